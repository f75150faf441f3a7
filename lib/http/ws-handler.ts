import type { FastifyInstance, FastifyRequest, RouteOptions } from 'fastify'
import type { Socket } from 'node:net'
import type { WebSocket } from 'ws'
import type { FramedInit } from '../connection/init.ts'
import { RequestLimits } from '../connection/framed/request-rates.ts'
import { framedProtocol } from '../protocol/frames.ts'
import type { ResolvedOptions } from '../options/resolve.ts'
import { aBoolean, aFunction, aPresence, checkOptions, invalid, show, type Rule } from '../options/rules.ts'
import { closeReasons } from '../connection/close.ts'
import type { CheckDeadlines } from '../deadline.ts'
import { CloseCode } from '../protocol/close-codes.ts'
import type { Instance } from '../instance.ts'
import { StreamRequests } from '../messages/stream-requests.ts'
import { copyCallbacks } from '../messages/callbacks.ts'
import { MessageReceiver, type MessageRoute } from '../messages/receiver.ts'
import type { MessageSet } from '../messages/message-set.ts'
import type { ConnectionCallbacks, HandlerOptions, JsonCallbacks } from '../route-types.ts'
import type { Connection } from '../types.ts'
import { takeAdmission } from './admission.ts'
import { isForOperators } from './upgrade-guard.ts'
import { reauthenticationOf } from './ws-auth.ts'
import { parsingJson } from './json-callbacks.ts'
import { dropResponse } from './upgrade-sockets.ts'
import { someMessages } from './ws-messages.ts'

/** The options that `app.wsHandler` and `app.wsRoom` both have. */
export const handlerRules = {
  onMessage: aFunction,
  onError: aFunction,
  onGap: aFunction,
  mayJoin: aFunction,
  mayStay: aFunction,
  mayRead: aFunction,
  mayStop: aFunction,
  presence: aPresence,
  messages: someMessages,
  json: aBoolean
} as const

const callbackRules = {
  ...handlerRules,
  onConnect: aFunction,
  onDisconnect: aFunction
} as const satisfies Record<keyof HandlerOptions, Rule>

/** Which messages the handlers of `app.wsHandler` take: those of a set, or any. */
const handlers = new WeakMap<object, MessageSet | 'any'>()

/** Which messages a handler of `app.wsHandler` takes; `undefined` for any other handler. */
export function messagesOf (handler: object): MessageSet | 'any' | undefined {
  return handlers.get(handler)
}

/**
 * The hook for `onRoute` that refuses a handler of `app.wsHandler()` on a route without `websocket: true`.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID
 */
export function checkRoute ({ url, handler, ...route }: RouteOptions): void {
  if (!handlers.has(handler) || (route as { websocket?: unknown }).websocket === true) return
  throw forgotten(url)
}

function forgotten (url: string): Error {
  return invalid(`the route ${show(url)} has a handler of app.wsHandler(), but not the option websocket: true`)
}

const helloTimeoutMs = 10_000

/** How long a client whose connection cannot be opened may take to answer the close. */
const refusedGraceMs = 2_000

type HandlerInstance = Pick<Instance, 'registry' | 'open' | 'isSameUser' | 'renew' | 'metrics' | 'gate' | 'forRoutes'>
type PluginOptions = Pick<ResolvedOptions, 'heartbeatIntervalMs' | 'presenceGraceMs' | 'limits'>

/** What a ready-made route knows of the groups it puts its connections into. */
type RouteGroups = Pick<FramedInit, 'stillIn' | 'mayPost'> & MessageRoute

/** Makes `app.wsHandler`: callbacks become a handler for a route with `websocket: true`. */
export function makeWsHandler (
  instance: HandlerInstance, plugin: PluginOptions, checks: CheckDeadlines, groups: RouteGroups = {}
): FastifyInstance['wsHandler'] {
  const requestLimits = new RequestLimits(plugin.limits, instance.metrics)
  const { streams, commands, presence } = instance.forRoutes
  const streamRequests = new StreamRequests(streams, commands, instance.metrics)
  const framedInit = (receiver: MessageReceiver | undefined): FramedInit => ({
    join: async (connection, group, options) => await instance.registry.join(connection, group, options),
    leave: async (connection, group) => await commands.leaveAsClient(connection, group),
    putOut: async (connection, group) => await commands.putOut(connection, group),
    history: async (group, options) => await instance.registry.history(group, options),
    isSameUser: (connection, identity) => instance.isSameUser(connection, identity),
    renew: (connection, identity) => instance.renew(connection, identity),
    checks,
    metrics: instance.metrics,
    requestLimits,
    stillIn: groups.stillIn,
    mayPost: groups.mayPost,
    json: receiver,
    pingMs: plugin.heartbeatIntervalMs,
    resumeMs: plugin.presenceGraceMs,
    helloTimeoutMs
  })
  return options => {
    checkOptions(options, callbackRules, 'wsHandler.')
    // The types of params and identity are known to the route alone.
    const receiver = receiverOf(options as HandlerOptions)
    const callbacks = receiver === undefined
      ? streamRequests.before(options.json === true ? parsingJson(options as JsonCallbacks) : options as ConnectionCallbacks)
      : withMessages(options as HandlerOptions, receiver)
    const framed = framedInit(receiver)
    presence.addRoute(options.presence ?? false)
    const handler = (socket: WebSocket, handlerRequest: unknown): void => {
      // Where @fastify/websocket was registered first, and Fastify hides its hooks, `checkRoute` saw only the wrapper of the handler.
      if (!('readyState' in socket)) throw forgotten((socket as FastifyRequest).url)
      const request = handlerRequest as unknown as FastifyRequest<{ Params: Connection['params'] }>
      dropErrorListener(socket)
      dropResponse(request.raw.socket as Socket | undefined)
      const admission = takeAdmission(request)
      try {
        instance.open({
          socket,
          params: request.params,
          identity: request.identity,
          admission,
          log: request.log,
          route: instance.metrics.traffic.of(request.routeOptions.url ?? ''),
          callbacks,
          forOperators: isForOperators(request),
          framed: socket.protocol === framedProtocol ? framed : undefined,
          reauthentication: reauthenticationOf(request)
        }).start(request)
      } catch (error) {
        // The identity cannot be read. A hook of the service has set it, because `wsAuth` refuses such an identity before the upgrade.
        instance.metrics.lines.write(request.log, 'open_failed', { err: error })
        if (admission !== undefined) instance.gate.leave(admission)
        refuse(socket)
      }
    }
    handlers.set(handler, options.messages === undefined ? 'any' : options.messages as MessageSet)
    return handler
  }

  /** @throws {WebsocketGroupsError} WSG_OPTION_INVALID */
  function receiverOf (options: HandlerOptions): MessageReceiver | undefined {
    const { onMessage, messages, json } = options
    if ((onMessage === undefined) === (messages === undefined)) {
      throw invalid('wsHandler needs `onMessage`, a function, or `messages`; not both')
    }
    if (messages === undefined) return undefined
    if ((json as unknown) === true) throw invalid('wsHandler.json is for `onMessage`: `messages` have schemas of their own')
    const { mayStop } = copyCallbacks(options)
    return new MessageReceiver(messages as MessageSet, streamRequests, { ...groups, mayStop }, instance.metrics)
  }
}

function withMessages (callbacks: HandlerOptions, receiver: MessageReceiver): ConnectionCallbacks {
  return {
    ...copyCallbacks(callbacks),
    async onConnect (connection, request) {
      receiver.opened(connection, request)
      await callbacks.onConnect?.(connection, request)
    },
    onMessage: (connection, data) => receiver.onMessage(connection, data)
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

function refuse (socket: WebSocket): void {
  socket.on('error', () => socket.terminate())
  socket.close(CloseCode.InternalError, closeReasons[CloseCode.InternalError])
  const timer = setTimeout(() => socket.terminate(), refusedGraceMs).unref()
  socket.once('close', () => clearTimeout(timer))
}
