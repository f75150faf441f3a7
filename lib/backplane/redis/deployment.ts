import type { Backplane, StreamStore } from '../backplane.ts'

/** What a single Redis and a cluster do each in their own way, behind the one backplane `redis`. */
export type RedisDeployment = Required<Omit<Backplane, 'name' | 'localHistory' | 'streams'>> & { readonly streams: StreamStore }
