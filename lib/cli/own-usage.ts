import { monitorEventLoopDelay, performance } from 'node:perf_hooks'

const resolutionMs = 5

/** How busy this program was while it measured. */
export interface Usage {
  /** Of one core: 1 is all of it. */
  readonly cpu: number
  /** How late its event loop was. */
  readonly lagMs: { readonly p50: number, readonly p99: number, readonly max: number }
  /** The longest delay with which this program sent a message. */
  readonly sentLateMs: number
}

/** Measures this program, from the construction of this object until `end`. */
export class OwnUsage {
  readonly #delay = monitorEventLoopDelay({ resolution: resolutionMs })
  readonly #startedAt = performance.now()
  readonly #cpuAtStart = process.cpuUsage()
  #sentLateMs = 0

  constructor () {
    this.#delay.enable()
  }

  sentLate (ms: number): void {
    if (ms > this.#sentLateMs) this.#sentLateMs = ms
  }

  cpu (): number {
    const { user, system } = process.cpuUsage(this.#cpuAtStart)
    return (user + system) / 1_000 / (performance.now() - this.#startedAt)
  }

  end (): Usage {
    this.#delay.disable()
    const late = (nanoseconds: number): number => Math.max(0, nanoseconds / 1e6 - resolutionMs)
    const { max } = this.#delay
    return {
      cpu: this.cpu(),
      lagMs: { p50: late(this.#delay.percentile(50)), p99: late(this.#delay.percentile(99)), max: late(max) },
      sentLateMs: this.#sentLateMs
    }
  }
}

const busyCpu = 0.85
const busyLagMs = 20
/** A program that was late although it used less of a core than this had to wait for the core. */
const idleCpu = 0.6

/** The reasons why the figures say more about this program than about the server. */
export function bottlenecks ({ cpu, lagMs }: Usage): string[] {
  return [
    ...cpu > busyCpu ? [`it used ${Math.round(cpu * 100)} % of a core, and has one event loop`] : [],
    ...lagMs.p99 > busyLagMs
      ? [`its event loop was ${Math.round(lagMs.p99)} ms late (p99)` +
        (cpu < idleCpu ? ', waiting for a core: the machine is busy with something else' : '')]
      : []
  ]
}
