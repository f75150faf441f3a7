import type { Link } from './link/port.ts'
import type { WhenDown } from './log/append-queue.ts'

export interface PartitionOptions {
  readonly joinTimeoutMs: number
  readonly leaseMs: number
  readonly lingerMs: number
  /** What happens to an append while Redis is out. */
  readonly whenDown: WhenDown
}

/** The two connections of an instance to Redis: a connection that subscribes can do nothing else. */
export interface Links {
  readonly command: Link
  readonly subscribe: Link
}
