import type {
  FastifyInstance, FastifyReply, FastifyRequest, preHandlerAsyncHookHandler, preHandlerHookHandler, RouteShorthandOptions
} from 'fastify'
import { isIn } from '../connection/is-in.ts'
import { isThenable } from '../connection/inbound/callback-results.ts'
import { toJson } from '../connection/outbound/message.ts'
import type { CheckDeadlines } from '../deadline.ts'
import { WebsocketGroupsError } from '../errors.ts'
import { assertGroupName } from '../group-name.ts'
import type { Metrics } from '../metrics.ts'
import type { ResolvedOptions } from '../options/resolve.ts'
import { aFunction, anObject, check, checkOptions, integer, invalid, show, type Rule } from '../options/rules.ts'
import { parsePosition } from '../backplane/position.ts'
import { CloseCode } from '../protocol/close-codes.ts'
import type { Instance } from '../instance.ts'
import type { JsonRoomOptions, RoomOptions, RoomRouteOptions } from '../route-types.ts'
import { toError } from '../thrown.ts'
import type { Connection, Data, Identity, JoinOptions } from '../types.ts'
import { isClientStatus, statusOf, statusWithReply, toAnswer } from './option-errors.ts'
import { groupFromParams, RoomNames, type GroupOf } from './room-names.ts'
import { securedAs } from './security-schemes.ts'
import { handlerRules, makeWsHandler } from './ws-handler.ts'

const maxHistory = 10_000

const roomRules = {
  ...handlerRules,
  auth: { allowed: 'true, false or an object of wsAuth options', accepts: value => typeof value === 'boolean' || anObject.accepts(value) },
  group: aFunction,
  schema: anObject,
  preHandler: { allowed: 'a function or an array of functions', accepts: value => [value].flat().every(one => typeof one === 'function') },
  onJoin: aFunction,
  onLeave: aFunction,
  history: integer(0, maxHistory, 'messages')
} as const satisfies Record<Exclude<keyof RoomOptions, RouteOption>, Rule>

/** The options of any Fastify route, which Fastify checks itself. */
const routeOptions = [
  'attachValidation', 'bodyLimit', 'config', 'constraints', 'errorHandler', 'exposeHeadRoute', 'handlerTimeout', 'helmet', 'logLevel',
  'logSerializers', 'onRequest', 'onRequestAbort', 'onResponse', 'onSend', 'onTimeout', 'preParsing', 'preSerialization', 'preValidation',
  'rateLimit', 'schemaErrorFormatter', 'serializerCompiler', 'validatorCompiler'
] as const
type RouteOption = (typeof routeOptions)[number] | keyof Omit<RoomRouteOptions, 'schema' | 'preHandler'>

/** Makes `app.wsRoom`: a route whose connections join a group, get each other's messages, and leave. */
export function makeWsRoom (instance: Instance, plugin: ResolvedOptions, checks: CheckDeadlines): FastifyInstance['wsRoom'] {
  const { registry, forRoutes: { stored } } = instance
  const names = new RoomNames()

  function wsRoom (this: FastifyInstance | undefined, path: string, room: RoomOptions | JsonRoomOptions = {}): void {
    // `this` is the scope that the route belongs to, with its prefix and hooks.
    if (this === undefined) throw invalid('wsRoom was called without its instance: call it as app.wsRoom(…)')
    const scope = this
    check('the path of wsRoom', path, { allowed: 'a string', accepts: value => typeof value === 'string' })
    checkOptions(room, roomRules, `wsRoom(${show(path)}).`, routeOptions)
    const groupOf: GroupOf = room.group as GroupOf | undefined ?? groupFromParams(scope.prefix + path)
    const { auth = plugin.authenticate !== undefined || undefined } = room
    if (auth === undefined) {
      throw invalid(
        `wsRoom(${show(path)}) does not say who may enter: give the plugin, or the room's \`auth\`, the option authenticate, ` +
        'or write auth: false'
      )
    }
    if (room.onMessage !== undefined && room.messages !== undefined) {
      throw invalid(`wsRoom(${show(path)}) takes onMessage or messages, not both`)
    }
    if (room.json === true && room.messages !== undefined) {
      throw invalid(`wsRoom(${show(path)}).json is for \`onMessage\`: \`messages\` have schemas of their own`)
    }
    const unnamed = (): never => {
      const late = `the option group of wsRoom(${show(path)}) took longer than ${checks.ms} ms`
      throw new WebsocketGroupsError('WSG_HANDLER_FAILED', late, { statusCode: 503 })
    }
    const groups = new WeakMap<object, string>()
    const joined = new WeakSet<Connection>()

    const checked = (named: unknown): string => {
      // The schema may turn a parameter into a number.
      const group: unknown = Number.isFinite(named) ? String(named) : named
      assertGroupName(group)
      return group
    }

    /** A promise only where the option `group` returns one. */
    const nameGroup = (params: unknown, identity: Identity | null): string | Promise<string> => {
      const named = groupOf(params as Record<string, string>, identity)
      return isThenable(named) ? checks.within(named, unnamed).then(checked) : checked(named)
    }

    const enter = (request: FastifyRequest, group: string): void => {
      groups.set(request, group)
      assertSince(request)
    }

    // The last preHandler, because earlier ones may set what the name is made of; still plain HTTP, so that a bad name is a 400. Without a
    // promise where nothing has to be waited for: promises are a good part of what an upgrade costs.
    const enterGroup: preHandlerHookHandler = (request, _reply, done) => {
      let group: string | Promise<string>
      try {
        group = nameGroup(request.params, request.identity)
        if (typeof group === 'string') enter(request, group)
      } catch (error) {
        return done(toError(error))
      }
      if (typeof group === 'string') done()
      else group.then(name => enter(request, name)).then(() => done(), (error: unknown) => done(toError(error)))
    }

    const groupNamed = (key: object): string => {
      const group = groups.get(key)
      if (group === undefined) throw new WebsocketGroupsError('WSG_CONNECTION_GONE')
      return group
    }

    const isMember = (connection: Connection): boolean => isIn(connection, groupNamed(connection))

    const relay = (group: string, received: unknown, from: Connection): unknown => {
      const data = room.json === true ? toJson(received) : received as Data
      stored.add(from, group, data)
      return registry.broadcastToGroup(group, data, { from })
    }

    const onMessage = (connection: Connection, data: unknown): unknown => {
      const group = groupNamed(connection)
      // A string or bytes, or with `json` any value.
      if (room.onMessage !== undefined) return room.onMessage(connection, data as string, group)
      if (isMember(connection)) return relay(group, data, connection)
      // A framed client was refused by `mayPost` before. A raw one has no other use for this route.
      connection.close(CloseCode.PolicyViolation, 'no longer in the group')
    }

    const wsHandler = makeWsHandler(instance, plugin, checks, {
      stillIn: async (connection, group) => {
        if (groups.get(connection) !== group) return undefined
        return await nameGroup(connection.params, connection.identity) === group
      },
      // A service that handles messages itself decides who may post.
      ...(room.onMessage === undefined && room.messages === undefined ? { mayPost: isMember } : {}),
      groupOf: groupNamed,
      isMember
    })

    const guards = auth === false ? [] : [scope.wsAuth(auth === true ? {} : auth)]
    const preHandler = [...guards, ...[room.preHandler ?? []].flat(), enterGroup]
      .map(hook => securedAs(answering(hook, instance.metrics), hook))
    names.add(scope.prefix + path, room.group !== undefined)
    scope.get(path, {
      ...routeOptionsOf(room),
      websocket: true,
      preHandler
    }, wsHandler({
      async onConnect (connection, request) {
        const group = groupNamed(request)
        groups.set(connection, group)
        await registry.join(connection, group, joinOptions(connection, request, room.history))
        joined.add(connection)
        await room.onJoin?.(connection, group, request)
      },
      ...(room.messages === undefined ? { onMessage, json: room.json } : { messages: room.messages }),
      async onDisconnect (connection) {
        if (joined.has(connection)) await room.onLeave?.(connection, groupNamed(connection))
      },
      ...(room.onError === undefined ? {} : { onError: room.onError }),
      ...(room.onGap === undefined ? {} : { onGap: room.onGap }),
      ...(room.mayJoin === undefined ? {} : { mayJoin: room.mayJoin }),
      ...(room.mayStay === undefined ? {} : { mayStay: room.mayStay }),
      ...(room.mayStop === undefined ? {} : { mayStop: room.mayStop }),
      mayRead: room.mayRead ?? (async (connection, group) => {
        if ((room.history ?? 0) === 0) return false
        return isIn(connection, group) || await room.mayJoin?.(connection, group) === true
      }),
      presence: room.presence ?? false
    }))
  }
  return wsRoom as FastifyInstance['wsRoom']
}

/** The options that go on to Fastify unchanged: whatever Fastify, or a plugin for it, does with a route works for rooms too. */
function routeOptionsOf (room: RoomRouteOptions): Omit<RouteShorthandOptions, 'websocket'> {
  const names: readonly string[] = ['schema', ...routeOptions]
  const given = Object.entries(room).filter(([name, value]) => value !== undefined && names.includes(name))
  return Object.fromEntries(given)
}

/**
 * Wraps a hook so that the answers to its errors tell clients nothing internal. Fastify tells by the number of parameters whether
 * a hook takes a callback.
 */
function answering (hook: preHandlerAsyncHookHandler | preHandlerHookHandler, metrics: Metrics): preHandlerAsyncHookHandler {
  if (hook.length > 2) {
    return function (this: FastifyInstance, request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void) {
      const callback = hook as preHandlerHookHandler
      try {
        // Fastify takes only truthy values for errors: `done(null)` says that all is well.
        return callback.call(this, request, reply, error => done(error ? judged(error, request, reply, metrics) as Error : undefined))
      } catch (error) {
        throw judged(error, request, reply, metrics)
      }
    } as unknown as preHandlerAsyncHookHandler
  }
  return async function (this: FastifyInstance, request, reply) {
    try {
      return await (hook as preHandlerAsyncHookHandler).call(this, request, reply)
    } catch (error) {
      throw judged(error, request, reply, metrics)
    }
  }
}

/** Returns what Fastify is to answer. */
function judged (thrown: unknown, request: FastifyRequest, reply: FastifyReply, metrics: Metrics): unknown {
  const err = toError(thrown)
  const status = statusWithReply(thrown, reply.statusCode)
  const answer = toAnswer(err, status)
  // `wsAuth` has judged and logged its own errors.
  if (answer === err) return err
  // A hook set the status of the reply, or threw an object for the client. A field `status`, though, is that of another server's answer.
  if (isClientStatus(status) && (thrown as { readonly status?: unknown } | undefined)?.status === undefined) return thrown
  metrics.lines.write(request.log, 'room_failed', { err })
  if (request.ws) metrics.upgradeRefused(request.raw, statusOf(answer))
  return answer
}

/** `?since=<position>`: how a client without the framed protocol resumes. */
function sinceOf (request: FastifyRequest): unknown {
  const { query } = request
  return typeof query === 'object' && query !== null && 'since' in query ? query.since : undefined
}

/** Before the upgrade, so that a bad position is a 400. */
function assertSince (request: FastifyRequest): void {
  const since = sinceOf(request)
  if (since !== undefined && parsePosition(since) === undefined) throw new WebsocketGroupsError('WSG_POSITION_INVALID')
}

/** A framed client names its position in its hello. That position is newer than the `since` of its URL. */
function joinOptions (connection: Connection, request: FastifyRequest, history = 0): JoinOptions {
  const since = connection.framed ? undefined : sinceOf(request)
  return typeof since === 'string' ? { history, since } : { history }
}
