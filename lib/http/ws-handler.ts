import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Socket } from 'node:net'
import type { WebSocket } from 'ws'
import type { FramedInit } from '../connection/framed-session.ts'
import { framedProtocol } from '../protocol/frames.ts'
import type { ResolvedOptions } from '../options/resolve.ts'
import { aBoolean, aFunction, checkOptions, invalid, type Rule } from '../options/rules.ts'
import type { GroupRegistry } from '../registry.ts'
import type { ConnectionCallbacks } from '../route-types.ts'
import type { Connection } from '../types.ts'
import { takeAdmission } from './admission.ts'
import { reauthenticatorOf } from './ws-auth.ts'
import { dropResponse } from './upgrade-sockets.ts'

const callbackRules = {
  onConnect: aFunction,
  onMessage: aFunction,
  onDisconnect: aFunction,
  onError: aFunction,
  mayJoin: aFunction,
  presence: aBoolean
} as const satisfies Record<keyof ConnectionCallbacks, Rule>

const helloTimeoutMs = 10_000

type HandlerRegistry = Pick<GroupRegistry, 'open' | 'join' | 'leave' | 'renew'>

/** Makes `app.wsHandler`: callbacks become a handler for a route with `websocket: true`. */
export function makeWsHandler (registry: HandlerRegistry, plugin: Pick<ResolvedOptions, 'heartbeatIntervalMs' | 'presenceGraceMs'>): FastifyInstance['wsHandler'] {
  const framedInit = (request: FastifyRequest): FramedInit => ({
    join: async (connection, group, options) => await registry.join(connection, group, options),
    leave: async (connection, group) => await registry.leave(connection, group),
    renew: (connectionId, identity) => registry.renew(connectionId, identity),
    reauthenticate: reauthenticatorOf(request),
    pingMs: plugin.heartbeatIntervalMs,
    resumeMs: plugin.presenceGraceMs,
    helloTimeoutMs
  })
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
        admission: takeAdmission(request),
        log: request.log,
        // Which types a route's params and identity have is known to the route alone.
        callbacks: callbacks as unknown as ConnectionCallbacks,
        framed: socket.protocol === framedProtocol ? framedInit(request) : undefined
      })
      connection.start(request)
    }
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
