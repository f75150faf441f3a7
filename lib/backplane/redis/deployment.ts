import type { Backplane, StreamStore } from '../backplane.ts'

/** The store of those who were put out of groups, in one partition. */
export interface Revocations {
  /** As `Backplane.revoke`. */
  readonly set: NonNullable<Backplane['revoke']>
  /** As `Backplane.revoked`. */
  readonly latest: NonNullable<Backplane['revoked']>
}

/** What a single Redis and a cluster do each in their own way, behind the one backplane `redis`. */
export interface RedisDeployment extends Required<Omit<Backplane, 'name' | 'localHistory' | 'streams' | 'revoke' | 'revoked'>> {
  readonly streams: StreamStore
  /** The store in the partition of the group. */
  revocationsOf (group: string): Revocations
}
