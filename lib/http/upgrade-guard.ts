import type { FastifyContextConfig, FastifyRequest, onRequestHookHandler, RouteOptions } from 'fastify'
import { WebsocketGroupsError } from '../errors.ts'
import type { Instance } from '../instance.ts'

/** `Retry-After` while the instance starts, or Redis is out. */
const notReadySeconds = 5
/** `Retry-After` during the shutdown: another instance takes the client as soon as the balancer notices. */
const closingSeconds = 1

/** The key in a route's `config` that says whether the route takes WebSockets. A symbol, because the object is the application's. */
const takesWebsockets = Symbol('fastify-websocket-groups.takesWebsockets')

const operators = Symbol('fastify-websocket-groups.operators')

/**
 * The `config` of a route for those who look what is wrong: its WebSockets open also while the instance is full, or takes nobody because
 * its backplane is down.
 */
export const forOperators: FastifyContextConfig & { readonly [operators]: true } = { [operators]: true }

export function isForOperators ({ routeOptions }: FastifyRequest): boolean {
  return (routeOptions.config as Partial<typeof forOperators> | undefined)?.[operators] === true
}

/** The hook for `onRoute` that lets the guard know later which routes take WebSockets. */
export function markRoute (route: RouteOptions): void {
  const { websocket, wsHandler } = route as { websocket?: unknown, wsHandler?: unknown }
  const mark = { [takesWebsockets]: websocket === true || typeof wsHandler === 'function' }
  route.config = { ...route.config, ...mark }
}

/**
 * Makes the hook that refuses upgrades before anything else judges them: on routes that take none, where @fastify/websocket would open a
 * WebSocket only to close it again, and while this instance takes no connections. `othersUpgrade` says whether routes without a mark may
 * take WebSockets.
 */
export function upgradeGuard (
  instance: Pick<Instance, 'ready' | 'registry' | 'metrics'>,
  othersUpgrade: () => boolean
): onRequestHookHandler {
  return (request, reply, done) => {
    if (!request.ws) return done()
    const { metrics, ready, registry } = instance
    if (!request.is404 && !mayUpgrade(request, othersUpgrade)) {
      metrics.upgradeRefused(request.raw, 'noRoute')
      return done(new WebsocketGroupsError('WSG_NO_WEBSOCKET_ROUTE'))
    }
    if (ready) return done()
    const closing = registry.health().status === 'closing'
    if (!closing && isForOperators(request)) return done()
    metrics.upgradeRefused(request.raw)
    reply.header('retry-after', closing ? closingSeconds : notReadySeconds)
    done(new WebsocketGroupsError('WSG_REFUSED'))
  }
}

function mayUpgrade ({ routeOptions }: FastifyRequest, othersUpgrade: () => boolean): boolean {
  return (routeOptions.config as { readonly [takesWebsockets]?: boolean } | undefined)?.[takesWebsockets] ?? othersUpgrade()
}
