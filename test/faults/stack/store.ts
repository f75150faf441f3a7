import type { TestRedis } from '../../helpers/redis.ts'
import type { Wire } from '../chaos/wire.ts'
import type { Stage } from './faults.ts'

/** What the instances keep their data in. */
export interface Store {
  /** Of the servers, as instances would dial them. */
  readonly ports: readonly number[]
  /** What can go wrong with the servers. Each is over, and healed, when its promise resolves; what follows from it may go on. */
  readonly faults: Readonly<Record<string, (stage: Stage) => Promise<void>>>
  /** The option `redis` of an instance that reaches each server by a wire of its own, in the order of `ports`. */
  optionFor (wires: readonly Wire[]): unknown
  /** Channels that somebody is subscribed to. */
  channels (): Promise<string[]>
  /** Whether nothing is left to be cleaned up after instances that were killed, while `living` instances run. */
  settled (living: number): Promise<boolean>
  /** What instances that closed may not leave behind. */
  leftovers (): Promise<string[]>
}

/** How many instances live, or died and were not cleaned up after yet. Then their records begin with F. */
export async function unforgotten ({ admin }: TestRedis): Promise<number> {
  return (await admin.hvals('wsg:{0}:inst')).filter(record => !record.startsWith('F')).length
}
