import type { Backplane } from '../backplane/backplane.ts'
import { metricsSnapshot } from '../metrics/snapshot.ts'
import { describeOptions } from '../options/describe.ts'
import type { ResolvedOptions } from '../options/resolve.ts'
import type { Parts } from './parts.ts'
import type { Description, Health, MetricsSnapshot, Stats } from '../types.ts'
import { versions } from '../version.ts'

/** A repair of logs that is over within this time (milliseconds) does not end what was before. */
const passingMs = 1_500

type Status = Pick<Health, 'status' | 'since'>

/** Health, stats and metrics of an instance, and its description. */
export class Reports {
  readonly #parts: Parts
  readonly #options: ResolvedOptions
  readonly #backplane: Backplane
  readonly #phase: () => { readonly ready: boolean, readonly closing: boolean }
  readonly #startedAt = Date.now()
  #status: Status = { status: 'down', since: this.#startedAt }
  #before = this.#status

  constructor (parts: Parts, options: ResolvedOptions, backplane: Backplane, phase: () => { ready: boolean, closing: boolean }) {
    this.#parts = parts
    this.#options = options
    this.#backplane = backplane
    this.#phase = phase
  }

  /** Also notes since when the status holds: call it when the state may have changed. */
  health (): Health {
    const { state, name, problems } = this.#backplane
    const { ready, closing } = this.#phase()
    const status = closing ? 'closing' : state
    if (status !== this.#status.status) this.#note(status)
    return {
      ...this.#status,
      ready,
      instanceId: this.#parts.instanceId,
      backplane: name,
      problems: closing ? ['the instance is shutting down', ...problems] : problems
    }
  }

  /** A probe may meet a repair that takes a moment: an instance that was up for days is not up since then. */
  #note (status: Health['status']): void {
    const [last, now] = [this.#status, Date.now()]
    const passed = last.status === 'degraded' && now - last.since < passingMs && status === this.#before.status
    this.#status = passed ? this.#before : { status, since: now }
    this.#before = last
  }

  stats (): Stats {
    const { metrics, hub, scheduler, presence, cache, gate, intake, blocks, streams } = this.#parts
    return {
      ...metrics,
      connections: hub.connections.size,
      groups: hub.groupTotal(),
      streams: streams.size,
      slowConnections: scheduler.slow.size,
      bufferedBytes: scheduler.held.total,
      ...gate.stats(),
      ...intake.stats(),
      blocked: blocks.size,
      ...presence.stats(),
      ...cache.stats(),
      ...this.#backplane.stats()
    }
  }

  metrics (): MetricsSnapshot {
    return metricsSnapshot(this.stats(), this.#parts.metrics)
  }

  describe (): Description {
    return { ...versions, startedAt: this.#startedAt, health: this.health(), options: describeOptions(this.#options) }
  }
}
