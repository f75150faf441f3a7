import type { WhenDown } from './log/append-queue.ts'

export interface PartitionOptions {
  readonly joinTimeoutMs: number
  readonly leaseMs: number
  readonly lingerMs: number
  /** What happens to an append while Redis is out. */
  readonly whenDown: WhenDown
}
