import type { WebSocket } from '@fastify/websocket'
import type { FastifyBaseLogger, FastifyRequest, FastifySchema, preHandlerAsyncHookHandler } from 'fastify'
import type { IncomingMessage } from 'node:http'

/** A `string` travels as a text frame, a `Uint8Array` (so also a `Buffer`) as a binary frame. */
export type Data = string | Uint8Array

/** Anything `JSON.stringify` keeps. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json | undefined }

/**
 * Augment this to tell the plugin your identity type once:
 * `declare module 'fastify-websocket-groups' { interface Register { identity: User } }`
 */
export interface Register {}

/** What an identity looks like when `Register` was not augmented. All fields are optional hints, see `userId` and `expiresAt` of the options. */
export interface DefaultIdentity {
  readonly userId?: string
  readonly name?: string
  /** Milliseconds since the epoch. */
  readonly expiresAt?: number
  readonly [key: string]: unknown
}

/** What `authenticate` returned. */
export type Identity = Register extends { identity: infer Registered } ? Registered : DefaultIdentity

/** One live socket of this instance. */
export interface Connection<Params = Record<string, string>, Who = Identity | null> {
  /** Unique in the cluster; starts with the id of the instance that holds the socket. */
  readonly id: string
  readonly params: Params
  /** What `authenticate` returned; `null` on routes without auth. */
  readonly identity: Who
  /** Set when the identity names a user, see the option `userId`. */
  readonly userId: string | undefined
  /** The groups it is in; after the socket closed: those it was in. */
  readonly groups: readonly string[]
  /** Aborts when the socket closes, so that work done for this connection can stop. */
  readonly signal: AbortSignal
  readonly closed: boolean
  readonly log: FastifyBaseLogger
  /** Bytes waiting in this process for a slow client. */
  readonly bufferedBytes: number
  /** `false` when the socket is closed or was closed now for being too slow. */
  send (data: Data): boolean
  sendJson (value: unknown): boolean
  /**
   * Starts the closing handshake. Idempotent.
   * @throws {WebsocketGroupsError} WSG_CLOSE_CODE_INVALID unless `code` is 1000-1003, 1007-1014 or 3000-4999 and `reason` is at most 123 bytes of UTF-8
   */
  close (code?: number, reason?: string): void
  /** Destroys the socket without a closing handshake. */
  terminate (): void
}

/** A connection of whatever route. */
export type AnyConnection = Connection<unknown, unknown>

/** A connection in a group, as everyone in the cluster sees it. */
export interface Member {
  readonly connectionId: string
  readonly instanceId: string
  readonly userId?: string
  /** Milliseconds since the epoch, by the clock of the instance that holds the connection. */
  readonly joinedAt: number
  /** What the option `memberInfo` returned. */
  readonly info?: Json
}

/** The members of a group, with the age of the reading in milliseconds: 0 when the backplane answered, more under the `stale` policy. */
export type MemberList = readonly Member[] & { readonly ageMs: number }

export interface BroadcastOptions {
  /** Connections (or their ids) that do not get the message, wherever they are. */
  readonly except?: AnyConnection | string | ReadonlyArray<AnyConnection | string>
}

/** How far an operation reached: the whole cluster, this instance only (the backplane is out), or nobody (policy `drop`). */
export type Scope = 'cluster' | 'local' | 'none'

export interface BroadcastResult {
  readonly scope: Scope
  /** Connections of this instance that the message is for. */
  readonly localRecipients: number
  /** Instances that took the message, this one included; `undefined` when the backplane cannot tell. */
  readonly instances?: number
}

export interface JoinResult {
  /** `local`: the backplane is out; the member is in the group here and gets registered as soon as it is back. */
  readonly scope: 'cluster' | 'local'
}

export interface CloseOptions {
  /** @default 1000 */
  readonly code?: number
  readonly reason?: string
}

export interface ReadOptions {
  /** Refuses a last known value that is older than this (milliseconds). @default Infinity */
  readonly maxAgeMs?: number
}

/** Groups across all instances; decorated as `app.registry`. */
export interface Registry {
  /** Drawn at boot; the first part of the id of every connection held here. */
  readonly instanceId: string

  /**
   * Adds the connection to the group. Resolves when every broadcast sent from now on, by any instance, will arrive. Idempotent.
   * A connection of another instance may be named by id: resolves when its instance has done it.
   * @throws {WebsocketGroupsError} WSG_GROUP_NAME_INVALID, WSG_CONNECTION_GONE, WSG_TOO_MANY_GROUPS, WSG_MEMBER_INFO_TOO_LARGE, WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT; nothing is left half joined
   */
  join (connection: AnyConnection | string, group: string): Promise<JoinResult>
  /** Resolves `true` when it was a member, `false` when it was not or is gone. */
  leave (connection: AnyConnection | string, group: string): Promise<boolean>
  /** Resolves with how many groups it left. */
  leaveAll (connection: AnyConnection | string): Promise<number>
  /** @throws {WebsocketGroupsError} WSG_CONNECTION_GONE */
  groups (connection: AnyConnection | string): Promise<readonly string[]>

  /** To every member of the group (or groups: each connection gets it once), on every instance, in the same order for all. */
  broadcastToGroup (group: string | readonly string[], data: Data, options?: BroadcastOptions): Promise<BroadcastResult>
  /** To every connection of every instance. */
  broadcastToAll (data: Data, options?: BroadcastOptions): Promise<BroadcastResult>
  /** To every connection of a user, on every instance. */
  sendToUser (userId: string, data: Data, options?: BroadcastOptions): Promise<BroadcastResult>
  /** To one connection, wherever it is. Resolves `true` when its instance handed it to the socket, `false` when the connection is gone. */
  sendTo (connectionId: string, data: Data): Promise<boolean>
  /** Closes one connection, or all of a user's, wherever they are. Resolves with how many were closed. */
  disconnect (target: AnyConnection | string | { readonly userId: string }, options?: CloseOptions): Promise<number>

  /** A connection of this instance. */
  get (connectionId: string): Connection | undefined
  /** The connections of this instance. */
  all (): Connection[]
  /** Those of this instance's connections for which `predicate` is true. */
  filter (predicate: (connection: Connection) => boolean): Connection[]
  /** How many connections this instance holds. */
  count (): number

  /** How many members the group has in the whole cluster. O(1). */
  groupCount (group: string, options?: ReadOptions): Promise<number>
  /** Who is in the group, in the whole cluster. */
  members (group: string, options?: ReadOptions): Promise<MemberList>

  health (): Health
  /** Counters and gauges since boot; a plain object, cheap enough to call on every scrape. */
  stats (): Stats
}

/** Broadcasts from a process that holds no sockets; made by `createPublisher`. */
export interface Publisher extends AsyncDisposable {
  broadcastToGroup: Registry['broadcastToGroup']
  broadcastToAll: Registry['broadcastToAll']
  sendToUser: Registry['sendToUser']
  groupCount (group: string): Promise<number>
  members (group: string): Promise<readonly Member[]>
  close (): Promise<void>
}

export type BackplaneState = 'up' | 'degraded' | 'down'

export interface Health {
  /** `up`: all is well. `degraded`: parts of the backplane are out or not yet repaired. `down`: this instance stands alone. `closing`: it is shutting down. */
  readonly status: BackplaneState | 'closing'
  /** Whether policy lets this instance take new connections now. */
  readonly ready: boolean
  readonly instanceId: string
  readonly backplane: string
  /** What is wrong, one clear sentence each; empty when all is well. */
  readonly problems: readonly string[]
}

export type Stats = Readonly<Record<string, number>>

/** The part of a request that outlives nothing: callbacks get it, connections do not keep it. */
export type UpgradeRequest = FastifyRequest

/** The part of an upgrade request that authentication may look at, with the token already taken out of it. */
export type Authenticate<Who = Identity> = (token: string, request: FastifyRequest) => Who | null | undefined | Promise<Who | null | undefined>

export interface WsAuthOptions<Who = Identity> {
  /** Turns a token into an identity; throws, or returns nothing, when the token is no good (401). @default the plugin's `authenticate` */
  readonly authenticate?: Authenticate<Who>
  /** Whether this identity may open this route; `false` is a 403. */
  readonly authorize?: (identity: Who, request: FastifyRequest) => boolean | Promise<boolean>
  /** `false` lets requests without any token through, with `identity` null; a bad token is still a 401. @default true */
  readonly required?: boolean
  /** Also take the token from this cookie. Requests of foreign origins are then refused unless `allowedOrigins` names them. @default false */
  readonly cookie?: string | false
  /** Also take the token from this query parameter. It ends up in access logs: prefer the subprotocol. @default false */
  readonly query?: string | false
  /** Origins that may connect, exact (`https://example.com`), or a function. Left out: any, but only the own host when `cookie` is on. */
  readonly allowedOrigins?: readonly string[] | ((origin: string, request: FastifyRequest) => boolean)
}

type Awaitable<T> = T | Promise<T>

/** The life of one connection. Calls never overlap: `onConnect`, then one `onMessage` at a time in the order of arrival, then `onDisconnect`. */
export interface ConnectionCallbacks<Params = Record<string, string>, Who = Identity | null> {
  /** Before any message is handled; messages that arrive meanwhile wait. Throwing closes the connection (1011, 1013 while the backplane is out, or the error's `closeCode` and `closeReason`) and undoes its memberships. */
  onConnect?: (connection: Connection<Params, Who>, request: FastifyRequest<{ Params: Params }>) => Awaitable<unknown>
  /** `data` is a `string` for a text frame, a `Buffer` for a binary frame. */
  onMessage: (connection: Connection<Params, Who>, data: string | Buffer) => Awaitable<unknown>
  /** Exactly once for every connection that reached `onConnect`, also when the client vanished or `onConnect` threw. Its memberships are already gone. */
  onDisconnect?: (connection: Connection<Params, Who>, closed: { readonly code: number, readonly reason: string }) => Awaitable<unknown>
  /** An error thrown by `onMessage`, or a socket error. `true` keeps the connection, anything else closes it with 1011. */
  onError?: (connection: Connection<Params, Who>, error: Error) => Awaitable<boolean | undefined | void>
}

/** The names of the parameters in a path: `'/ws/:org/:room'` gives `{ org: string, room: string }`. */
export type PathParams<Path extends string> = string extends Path
  ? Record<string, string>
  : { readonly [Name in ParamName<Path>]: string }
// As find-my-way reads a path: a name ends at a slash, a dash, a dot or a regular expression; two colons are a colon.
type ParamName<Path extends string> = Path extends `${infer Before}(${string})${infer After}` ? ParamName<`${Before}/${After}`>
  : Path extends `${infer Before}::${infer After}` ? ParamName<`${Before}/${After}`>
    : Path extends `${string}:${infer Rest}` ? Cut<Cut<Cut<Cut<Rest, '/'>, '-'>, '.'>, '?'> | ParamName<Rest>
      : never
type Cut<Text extends string, End extends string> = Text extends `${infer Head}${End}${string}` ? Head : Text

/** What `identity` is in a room, by its option `auth`. */
export type RoomIdentity<Auth, Who> =
  Auth extends false ? null
    : Auth extends { readonly required: false } ? Who | null
      : Auth extends true | object ? Who
        : Who | null

/** A ready-made room: connects, joins, relays each message to everyone in the room, leaves. Each callback replaces one step. */
export interface RoomOptions<Params = Record<string, string>, Auth = unknown, Who = Identity> {
  /** `false` opens the room to everyone. @default true when the plugin has `authenticate`, else false */
  readonly auth?: Auth & (boolean | WsAuthOptions<Who>)
  /** Which group a connection joins. @default the path's parameter `room`, or its only parameter */
  readonly group?: (params: Params, identity: RoomIdentity<Auth, Who>) => string
  readonly schema?: FastifySchema
  readonly preHandler?: preHandlerAsyncHookHandler | preHandlerAsyncHookHandler[]
  /** After the connection joined. */
  readonly onJoin?: (connection: Connection<Params, RoomIdentity<Auth, Who>>, group: string, request: FastifyRequest<{ Params: Params }>) => Awaitable<unknown>
  /** @default broadcasts `data` as it is to the group, the sender included */
  readonly onMessage?: (connection: Connection<Params, RoomIdentity<Auth, Who>>, data: string | Buffer, group: string) => Awaitable<unknown>
  /** After the connection left. */
  readonly onLeave?: (connection: Connection<Params, RoomIdentity<Auth, Who>>, group: string) => Awaitable<unknown>
  readonly onError?: ConnectionCallbacks<Params, RoomIdentity<Auth, Who>>['onError']
}

/** What a handler made by `app.wsHandler` needs of the request; names `params` so that TypeScript can infer them from the route. */
export interface HandlerRequest<Params> { readonly params: Params, readonly raw: IncomingMessage }

/** Leaves the params that a route declared as they are; without a declaration they are strings by name. */
export type KnownParams<Params> = unknown extends Params ? Record<string, string> : Params

declare module 'fastify' {
  interface FastifyInstance {
    registry: Registry
    /** A preHandler that answers 401 or 403 before the upgrade, and sets `request.identity`. */
    wsAuth: <Who = Identity>(options?: WsAuthOptions<Who>) => preHandlerAsyncHookHandler
    /** A handler for a route with `websocket: true`. */
    wsHandler: <Params, Who = Identity | null>(callbacks: ConnectionCallbacks<KnownParams<Params>, Who>) => (socket: WebSocket, request: HandlerRequest<Params> | HandlerRequest<unknown>) => void
    /** Adds a ready-made room route. */
    wsRoom: <const Path extends string, const Auth = unknown, Who = Identity>(path: Path, options?: RoomOptions<PathParams<Path>, Auth, Who>) => void
  }
  interface FastifyRequest {
    /** What `authenticate` returned; `null` where no auth ran. */
    identity: Identity | null
  }
}
