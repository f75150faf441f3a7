import type { FastifyInstance, FastifyRequest, preHandlerAsyncHookHandler } from 'fastify'
import { LocalConnection } from '../connection/connection.ts'
import { WebsocketGroupsError } from '../errors.ts'
import { assertGroupName } from '../group-name.ts'
import type { ResolvedOptions } from '../options/resolve.ts'
import { aBoolean, aFunction, anObject, checkOptions, integer, invalid, show, type Rule } from '../options/rules.ts'
import { parsePosition } from '../backplane/position.ts'
import type { GroupRegistry } from '../registry.ts'
import type { RoomOptions } from '../route-types.ts'
import type { Connection, JoinOptions } from '../types.ts'
import { makeWsHandler } from './ws-handler.ts'

const maxHistory = 10_000

const roomRules = {
  auth: { allowed: 'true, false or an object of wsAuth options', accepts: value => typeof value === 'boolean' || anObject.accepts(value) },
  group: aFunction,
  schema: anObject,
  preHandler: { allowed: 'a function or an array of functions', accepts: value => [value].flat().every(one => typeof one === 'function') },
  onJoin: aFunction,
  onMessage: aFunction,
  onLeave: aFunction,
  onError: aFunction,
  mayJoin: aFunction,
  presence: aBoolean,
  history: integer(0, maxHistory, 'messages')
} as const satisfies Record<keyof RoomOptions, Rule>

/** Makes `app.wsRoom`: a route whose connections join a group, hear what each other says, and leave. */
export function makeWsRoom (app: FastifyInstance, registry: GroupRegistry, plugin: ResolvedOptions): FastifyInstance['wsRoom'] {
  const wsHandler = makeWsHandler(registry, plugin)

  function wsRoom (this: FastifyInstance | undefined, path: string, room: RoomOptions = {}): void {
    // Called as a method, `this` is the scope that the route belongs to, with its prefix and hooks.
    const scope = this ?? app
    checkOptions(room, roomRules, `wsRoom(${show(path)}).`)
    const groupOf = room.group ?? groupFromParams(scope.prefix + path)
    const { auth = plugin.authenticate !== undefined } = room
    const groups = new WeakMap<object, string>()
    const joined = new WeakSet<Connection>()

    // The last preHandler, as those before it may set what the name is made of; still plain HTTP, so that a bad name is a 400.
    const nameGroup: preHandlerAsyncHookHandler = async request => {
      const group: unknown = groupOf(request.params as Record<string, string>, request.identity)
      assertGroupName(group)
      groups.set(request, group)
      assertSince(request)
    }

    const groupNamed = (key: object): string => {
      const group = groups.get(key)
      if (group === undefined) throw new WebsocketGroupsError('WSG_CONNECTION_GONE')
      return group
    }

    scope.get(path, {
      websocket: true,
      ...(room.schema === undefined ? {} : { schema: room.schema }),
      preHandler: [...(auth === false ? [] : [scope.wsAuth(auth === true ? {} : auth)]), ...[room.preHandler ?? []].flat(), nameGroup]
    }, wsHandler({
      async onConnect (connection, request) {
        const group = groupNamed(request)
        groups.set(connection, group)
        await registry.join(connection, group, joinOptions(connection, request, room.history))
        joined.add(connection)
        await room.onJoin?.(connection, group, request)
      },
      onMessage (connection, data) {
        const group = groupNamed(connection)
        return room.onMessage === undefined ? registry.broadcastToGroup(group, data) : room.onMessage(connection, data, group)
      },
      async onDisconnect (connection) {
        if (joined.has(connection)) await room.onLeave?.(connection, groupNamed(connection))
      },
      ...(room.onError === undefined ? {} : { onError: room.onError }),
      ...(room.mayJoin === undefined ? {} : { mayJoin: room.mayJoin }),
      presence: room.presence === true
    }))
  }
  return wsRoom as FastifyInstance['wsRoom']
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

/** A client of the framed protocol says in its hello where it was, which is newer than the address it was given once. */
function joinOptions (connection: Connection, request: FastifyRequest, history = 0): JoinOptions {
  const framed = connection instanceof LocalConnection && connection.framed
  const since = framed ? undefined : sinceOf(request)
  return { history, ...(typeof since === 'string' ? { since } : {}) }
}

/** The path's parameter `room`, or its only one. */
function groupFromParams (path: string): (params: Record<string, string>) => unknown {
  const names = paramNames(path)
  const name = names.includes('room') ? 'room' : names[0]
  if (name === undefined || (name !== 'room' && names.length > 1)) {
    throw invalid(`wsRoom(${show(path)}) must have a parameter called room, or only one, or the option group; got ${names.length} parameters`)
  }
  return params => params[name]
}

/** As find-my-way reads a path: a name ends at a slash, a dash, a dot or a regular expression; two colons are a colon. */
function paramNames (path: string): string[] {
  const bare = path.replaceAll('::', '').replace(/\((?:[^()]|\([^()]*\))*\)/g, '/')
  return [...bare.matchAll(/:([^/:.-]+)/g)].map(match => (match[1] ?? '').replace(/\?$/, ''))
}
