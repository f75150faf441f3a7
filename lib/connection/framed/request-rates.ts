import { setTimeout as sleep } from 'node:timers/promises'
import type { Metrics } from '../../metrics.ts'
import type { ResolvedLimits } from '../../options/limits.ts'
import { RateLimit, unpaid } from '../inbound/rate.ts'
import type { ClientRequest } from './frame-codec.ts'
import type { AnyConnection } from '../../types.ts'

type Kind = 'requests' | 'replays' | 'tokens'

/** How many requests per second one client of the framed protocol may make, by kind of request; the same for all clients of an instance. */
export class RequestLimits {
  readonly metrics: Pick<Metrics, 'limitHit'>
  readonly #limits = new Map<Kind, RateLimit>()

  constructor (limits: Pick<ResolvedLimits, Kind>, metrics: Pick<Metrics, 'limitHit'>) {
    this.metrics = metrics
    for (const kind of ['requests', 'replays', 'tokens'] as const) {
      const rate = limits[kind]
      if (rate !== undefined) this.#limits.set(kind, new RateLimit(rate))
    }
  }

  limit (kind: Kind): RateLimit | undefined {
    return this.#limits.get(kind)
  }
}

/** Counts the requests of one client. A request over its rate waits, and so does everything that the client sent after it. */
export class RequestRates {
  readonly #limits: RequestLimits
  /** The instant until which each kind is paid for. */
  readonly #paidUntil = new Map<Kind, number>()

  constructor (limits: RequestLimits) {
    this.#limits = limits
  }

  /** Counts the request. Returns how many milliseconds it has to wait, 0 for none. */
  charge (request: ClientRequest): number {
    const kind = kindOf(request)
    const limit = kind === undefined ? undefined : this.#limits.limit(kind)
    if (kind === undefined || limit === undefined) return 0
    const now = performance.now()
    const paidUntil = limit.charge(this.#paidUntil.get(kind) ?? unpaid, now)
    this.#paidUntil.set(kind, paidUntil)
    return Math.max(0, paidUntil - now)
  }

  /** Resolves after `ms` milliseconds, or when the `signal` of the connection aborts. */
  async wait (ms: number, connection: AnyConnection): Promise<void> {
    const { signal } = connection
    this.#limits.metrics.limitHit('requestsDelayed', connection)
    await sleep(ms, undefined, { signal, ref: false }).catch(() => undefined)
  }
}

function kindOf (request: ClientRequest): Kind | undefined {
  switch (request.type) {
    case 'message': return undefined
    case 'join': return request.since === undefined && request.history === undefined ? 'requests' : 'replays'
    case 'history': return 'replays'
    case 'leave': return 'requests'
    case 'token': return 'tokens'
  }
}
