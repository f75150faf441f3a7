import type { Link as DirectLink } from './link.ts'

/** What the parts of a partition ask of a link: one connection to Redis, or the way to whichever master has the partition now. */
export type Link = Omit<DirectLink, 'redis' | 'address'>
