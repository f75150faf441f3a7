import type { WebSocket } from '@fastify/websocket'
import type { FastifyRequest, FastifySchema, preHandlerAsyncHookHandler } from 'fastify'
import type { IncomingMessage } from 'node:http'
import type { Connection, Identity, Registry } from './types.ts'

/** The part of an upgrade request that authentication may look at, with the token already taken out of it. */
export type Authenticate<Who = Identity> = (token: string, request: FastifyRequest) => Who | null | undefined | Promise<Who | null | undefined>

export interface WsAuthOptions<Who = Identity> {
  /** Turns a token into an identity; throws, or returns nothing, when the token is no good (401). @default the plugin's `authenticate` */
  readonly authenticate?: Authenticate<Who> | undefined
  /** Whether this identity may open this route; `false` is a 403. */
  readonly authorize?: ((identity: Who, request: FastifyRequest) => boolean | Promise<boolean>) | undefined
  /** `false` lets requests without any token through, with `identity` null; a bad token is still a 401. @default true */
  readonly required?: boolean | undefined
  /** Also take the token from this cookie. Requests of foreign origins are then refused unless `allowedOrigins` names them. @default false */
  readonly cookie?: string | false | undefined
  /** Also take the token from this query parameter. It ends up in access logs: prefer the subprotocol. @default false */
  readonly query?: string | false | undefined
  /** Origins that may connect, exact (`https://example.com`), or a function. Left out: any, but only the own host when `cookie` is on. */
  readonly allowedOrigins?: readonly string[] | ((origin: string, request: FastifyRequest) => boolean) | undefined
}

type Awaitable<T> = T | Promise<T>

/** The life of one connection. Calls never overlap: `onConnect`, then one `onMessage` at a time in the order of arrival, then `onDisconnect`. */
export interface ConnectionCallbacks<Params = Record<string, string>, Who = Identity | null> {
  /** Before any message is handled; messages that arrive meanwhile wait. Throwing closes the connection (1011, 1013 while the backplane is out, or the error's `closeCode` and `closeReason`) and undoes its memberships. */
  onConnect?: ((connection: Connection<Params, Who>, request: FastifyRequest<{ Params: Params }>) => Awaitable<unknown>) | undefined
  /** `data` is a `string` for a text frame, a `Buffer` for a binary frame. */
  onMessage: (connection: Connection<Params, Who>, data: string | Buffer) => Awaitable<unknown>
  /** Exactly once for every connection that reached `onConnect`, also when the client vanished or `onConnect` threw. Its memberships are already gone. */
  onDisconnect?: ((connection: Connection<Params, Who>, closed: { readonly code: number, readonly reason: string }) => Awaitable<unknown>) | undefined
  /** An error thrown by `onMessage`, or a socket error. `true` keeps the connection, anything else closes it with 1011 (1013 while the backplane is out). */
  onError?: ((connection: Connection<Params, Who>, error: Error) => Awaitable<boolean | undefined | void>) | undefined
  /** Whether a client of the framed protocol may join this group by itself, beside those that it was put into; then it may also leave groups. @default none */
  mayJoin?: ((connection: Connection<Params, Who>, group: string) => Awaitable<boolean>) | undefined
  /** Tells clients of the framed protocol who is in their groups, who comes and who goes, see docs/presence.md. @default false */
  presence?: boolean | undefined
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
  readonly auth?: Auth & (boolean | WsAuthOptions<Who>) | undefined
  /** Which group a connection joins. @default the path's parameter `room`, or its only parameter */
  readonly group?: ((params: Params, identity: RoomIdentity<Auth, Who>) => string) | undefined
  readonly schema?: FastifySchema | undefined
  readonly preHandler?: preHandlerAsyncHookHandler | preHandlerAsyncHookHandler[] | undefined
  /** After the connection joined. */
  readonly onJoin?: ((connection: Connection<Params, RoomIdentity<Auth, Who>>, group: string, request: FastifyRequest<{ Params: Params }>) => Awaitable<unknown>) | undefined
  /** @default broadcasts `data` as it is to the group, the sender included */
  readonly onMessage?: ((connection: Connection<Params, RoomIdentity<Auth, Who>>, data: string | Buffer, group: string) => Awaitable<unknown>) | undefined
  /** After the connection left. */
  readonly onLeave?: ((connection: Connection<Params, RoomIdentity<Auth, Who>>, group: string) => Awaitable<unknown>) | undefined
  readonly onError?: ConnectionCallbacks<Params, RoomIdentity<Auth, Who>>['onError'] | undefined
  readonly mayJoin?: ConnectionCallbacks<Params, RoomIdentity<Auth, Who>>['mayJoin'] | undefined
  readonly presence?: boolean | undefined
  /** How many of the group's latest messages a connection gets when it joins and gives no position. @default 0 */
  readonly history?: number | undefined
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
