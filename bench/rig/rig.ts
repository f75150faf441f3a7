import type { Lag } from './lag.ts'
import type { LoadGenerator, Members } from './load-generator.ts'
import type { Plan, Sent } from './publisher.ts'
import type { BenchRedis } from './redis.ts'

/** A system in operation: instances, a process that publishes, Redis between them, and the load generator. */
export interface Rig {
  /** Of the instances. */
  readonly pids: readonly number[]
  readonly redisPid: number | undefined
  readonly publisherPid: number | undefined
  readonly load: LoadGenerator
  readonly redis: BenchRedis | undefined
  /** Resolves when all are in their groups, with how many ms that took. `load`: others than the rig's own. */
  open (members: Members, load?: LoadGenerator): Promise<number>
  publish (plan: Plan): Promise<void>
  /** How many messages were published. */
  sent (): Promise<number>
  stop (): Promise<Sent>
  /** Of each instance, since the last call. */
  lags (): Promise<readonly Lag[]>
  /** How many clients are connected, by what the instances say. */
  connections (): Promise<number>
  /** Bytes that each instance has got from Redis; -1 where that is not known. */
  fromRedis (): Promise<readonly number[]>
  /** What the heap of each instance holds, after garbage is collected. */
  heapBytes (): Promise<readonly number[]>
  close (): Promise<void>
}

export interface RigOptions {
  readonly instances?: number
  /** So many more that no client connects to. */
  readonly bystanders?: number
  readonly binary?: boolean
  /** Whether the instances hold no memory by chance: for what measures it. Not of Bun and the floor. */
  readonly steadyMemory?: boolean
}
