import type { FastifyRequest, onRequestHookHandler, RouteOptions } from 'fastify'
import { WebsocketGroupsError } from '../errors.ts'
import type { ResolvedOptions } from '../options/resolve.ts'
import type { UpgradeLimit } from '../options/types.ts'
import type { Instance } from '../instance.ts'

const notReadySeconds = 5
const maxRetryAfterSeconds = 30

/** In a route's `config`: whether the route takes WebSockets. A symbol, as the object is the application's. */
const takesWebsockets = Symbol('fastify-websocket-groups.takesWebsockets')

/** The hook for `onRoute` that lets the guard know later which routes take WebSockets. */
export function markRoute (route: RouteOptions): void {
  const { websocket, wsHandler } = route as { websocket?: unknown, wsHandler?: unknown }
  route.config = { ...route.config, [takesWebsockets]: websocket === true || typeof wsHandler === 'function' }
}

/**
 * Makes the hook that refuses upgrades before anything else looks at them: those of routes that take none, which @fastify/websocket would
 * open just to close them again, and those that this instance cannot serve, or not now. `othersUpgrade` says whether routes that were not
 * marked may take WebSockets all the same.
 */
export function upgradeGuard (
  instance: Pick<Instance, 'ready' | 'metrics'>,
  { upgradeLimit }: Pick<ResolvedOptions, 'upgradeLimit'>,
  othersUpgrade: () => boolean
): onRequestHookHandler {
  const bucket = upgradeLimit === undefined ? undefined : new TokenBucket(upgradeLimit)
  return (request, reply, done) => {
    if (!request.ws) return done()
    if (!request.is404 && !mayUpgrade(request, othersUpgrade)) return done(new WebsocketGroupsError('WSG_NO_WEBSOCKET_ROUTE'))
    const waitSeconds = instance.ready ? bucket?.take() ?? 0 : notReadySeconds
    if (waitSeconds === 0) return done()
    instance.metrics.upgradesRefused++
    reply.header('retry-after', waitSeconds)
    done(new WebsocketGroupsError('WSG_REFUSED', bucket !== undefined && instance.ready ? 'too many at once' : undefined))
  }
}

function mayUpgrade ({ routeOptions }: FastifyRequest, othersUpgrade: () => boolean): boolean {
  return (routeOptions.config as { readonly [takesWebsockets]?: boolean } | undefined)?.[takesWebsockets] ?? othersUpgrade()
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
