import type { System } from '../systems/system.ts'
import { Native } from './native.ts'

export interface Members {
  readonly clients: number
  readonly groups: number
  /** So many of them never read. @default 0 */
  readonly slow?: number
  /** The members of a group are on all instances in turn, or on one. @default 'spread' */
  readonly placement?: 'spread' | 'together'
  /** What the names of the groups begin with. @default 'room' */
  readonly named?: string
}

/** In microseconds. */
export interface Ages {
  readonly count: number
  readonly p50: number
  readonly p90: number
  readonly p99: number
  readonly p999: number
  readonly max: number
  /** Upper bound and count. */
  readonly buckets: ReadonlyArray<readonly [number, number]>
}

interface Window {
  readonly us: number
  readonly cpuUs: number
  readonly longestTurnUs: number
  readonly delivered: number
  readonly bytes: number
  readonly reads: number
}

interface Arrived {
  readonly delivered: number
  readonly doubled: number
  readonly outOfOrder: number
  readonly misled: number
  readonly broken: number
  readonly slowBroken: number
  readonly ages: Ages
}

/** The process that holds the clients, see native/load.c. */
export class LoadGenerator {
  readonly #native = new Native('load')

  get pid (): number { return this.#native.pid }

  /** Resolves when all are in their groups, with how long that took. */
  async open (
    { protocol, path }: Pick<System, 'protocol' | 'path'>, ports: readonly number[],
    { clients, groups, slow = 0, placement = 'spread', named = 'room' }: Members
  ): Promise<number> {
    const { failed, ms } = await this.#native.ask<{ failed: number, ms: number }>(
      `open ${protocol} ${clients} ${slow} ${groups} ${placement} ${ports.join(',')} ${path.replace('room', named)}`
    )
    if (failed > 0) throw new Error(`${failed} of ${clients} clients could not connect`)
    return ms
  }

  async start (): Promise<void> { await this.#native.ask('start') }
  async mark (): Promise<Window> { return await this.#native.ask('mark') }
  async delivered (): Promise<number> { return (await this.#native.ask<{ delivered: number }>('status')).delivered }
  async report (): Promise<Arrived> { return await this.#native.ask('report') }
  async end (): Promise<void> { await this.#native.end() }
}

/** How many clients that read each group has, dealt as the load generator does it. */
export function readers ({ clients, groups, slow = 0 }: Members): number[] {
  const counts = new Array<number>(groups).fill(0)
  for (let i = slow; i < clients; i++) counts[i % groups] = (counts[i % groups] ?? 0) + 1
  return counts
}
