import type { Backplane, StreamStore } from '../backplane.ts'

/** Knows who was put out of which group of one partition. */
export interface Revocations {
  /** As `Backplane.revoke`. */
  readonly set: NonNullable<Backplane['revoke']>
  /** As `Backplane.revoked`. */
  readonly latest: NonNullable<Backplane['revoked']>
}

/** What a single Redis and a cluster each do in their own way, behind the one backplane `redis`. */
export interface RedisDeployment extends Required<Omit<Backplane, 'name' | 'localHistory' | 'streams' | 'revoke' | 'revoked'>> {
  readonly streams: StreamStore
  /** The store in the partition of the group. */
  revocationsOf (group: string): Revocations
}
