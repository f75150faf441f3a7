import type { onRequestHookHandler } from 'fastify'
import { WebsocketGroupsError } from '../errors.ts'
import type { ResolvedOptions } from '../options/resolve.ts'
import type { UpgradeLimit } from '../options/types.ts'
import type { Instance } from '../instance.ts'

const notReadySeconds = 5
const maxRetryAfterSeconds = 30

/** Makes the hook that refuses upgrades which this instance cannot serve, or not now, before anything else looks at them. */
export function upgradeGuard (instance: Pick<Instance, 'ready' | 'metrics'>, { upgradeLimit }: Pick<ResolvedOptions, 'upgradeLimit'>): onRequestHookHandler {
  const bucket = upgradeLimit === undefined ? undefined : new TokenBucket(upgradeLimit)
  return (request, reply, done) => {
    if (request.headers.upgrade?.toLowerCase() !== 'websocket') return done()
    const waitSeconds = instance.ready ? bucket?.take() ?? 0 : notReadySeconds
    if (waitSeconds === 0) return done()
    instance.metrics.upgradesRefused++
    reply.header('retry-after', waitSeconds)
    done(new WebsocketGroupsError('WSG_REFUSED', bucket !== undefined && instance.ready ? 'too many at once' : undefined))
  }
}

/** Lets through so many per second, and as many at once as were not used before. Who is refused is told when it is likely to get through. */
export class TokenBucket {
  readonly #perSecond: number
  readonly #burst: number
  readonly #now: () => number
  #tokens: number
  /** Refused ones that will be back: the next is sent to the end of their line. */
  #line = 0
  #at: number

  constructor ({ perSecond, burst = perSecond }: UpgradeLimit, now: () => number = () => performance.now()) {
    this.#perSecond = perSecond
    this.#burst = burst
    this.#now = now
    this.#tokens = burst
    this.#at = now()
  }

  /** 0: go ahead. Else the seconds to wait. */
  take (): number {
    const now = this.#now()
    const gained = (now - this.#at) / 1_000 * this.#perSecond
    this.#at = now
    this.#tokens = Math.min(this.#burst, this.#tokens + gained)
    this.#line = Math.max(0, this.#line - gained)
    if (this.#tokens >= 1) {
      this.#tokens--
      return 0
    }
    this.#line = Math.min(this.#line + 1, this.#perSecond * maxRetryAfterSeconds)
    return Math.ceil(this.#line / this.#perSecond)
  }
}
