import type { Link as DirectLink } from './link.ts'

/** What the parts of a partition ask of a link: one connection to Redis, or the way to whichever master has the partition now. */
export type Link = Omit<DirectLink, 'redis' | 'address'>

/** The two connections of an instance to Redis: a connection that subscribes can do nothing else. */
export interface Links {
  readonly command: Link
  readonly subscribe: Link
}
