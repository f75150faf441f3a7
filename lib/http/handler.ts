import type { FastifyInstance, FastifyRequest, onRequestHookHandler } from 'fastify'
import type { Socket } from 'node:net'
import type { WebSocket } from 'ws'
import { WebsocketGroupsError } from '../errors.ts'
import { aFunction, checkOptions, invalid, type Rule } from '../options.ts'
import type { GroupRegistry } from '../registry.ts'
import type { Connection, ConnectionCallbacks } from '../types.ts'
import { dropResponse } from './refused-upgrades.ts'

const callbackRules = {
  onConnect: aFunction,
  onMessage: aFunction,
  onDisconnect: aFunction,
  onError: aFunction
} as const satisfies Record<keyof ConnectionCallbacks, Rule>

const retryAfterSeconds = 5

/** Makes `app.wsHandler`: callbacks become a handler for a route with `websocket: true`. */
export function makeWsHandler (registry: Pick<GroupRegistry, 'open'>): FastifyInstance['wsHandler'] {
  return callbacks => {
    checkOptions(callbacks, callbackRules, 'wsHandler.')
    if (typeof callbacks.onMessage !== 'function') throw invalid('wsHandler needs `onMessage`: a function')
    return (socket, handlerRequest) => {
      const request = handlerRequest as unknown as FastifyRequest<{ Params: Connection['params'] }>
      dropErrorListener(socket)
      dropResponse(request.raw.socket as Socket | undefined)
      const connection = registry.open({
        socket,
        params: request.params,
        identity: request.identity,
        log: request.log,
        // Which types a route's params and identity have is known to the route alone.
        callbacks: callbacks as unknown as ConnectionCallbacks
      })
      connection.start(request)
    }
  }
}

/** Makes the hook that refuses upgrades which the registry could not serve, before anything else looks at them. */
export function upgradeGuard (registry: Pick<GroupRegistry, 'health' | 'metrics'>): onRequestHookHandler {
  return (request, reply, done) => {
    if (request.headers.upgrade?.toLowerCase() !== 'websocket' || registry.health().ready) return done()
    registry.metrics.upgradesRefused++
    reply.header('retry-after', retryAfterSeconds)
    done(new WebsocketGroupsError('WSG_REFUSED'))
  }
}

/**
 * @fastify/websocket listens for errors just before it calls a handler. That listener would terminate the socket before its close
 * frame is out, and would hold the request for as long as the socket lives; the connection has its own.
 */
function dropErrorListener (socket: WebSocket): void {
  const latest = socket.listeners('error').at(-1)
  if (latest !== undefined) socket.off('error', latest as () => void)
}
