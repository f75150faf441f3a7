import type { WebSocket } from '@fastify/websocket'
import type { FastifyRequest, preHandlerAsyncHookHandler, RouteShorthandOptions } from 'fastify'
import type { IncomingMessage } from 'node:http'
import type { AnyMessages, AsyncApiDocument, AsyncApiOptions, Messages, MessagesDefinition, QuestionSchemas } from './types/messages.ts'
import type { Connection, Identity, LossReason, Registry } from './types.ts'

/** Turns a token into an identity. Throws, or returns anything but an object, when the token is invalid. */
export type Authenticate<Who = Identity> =
  (token: string, request: FastifyRequest) => Who | null | undefined | Promise<Who | null | undefined>

export interface WsAuthOptions<Who = Identity, Params = unknown> {
  /** Replaces the plugin's `authenticate` on this route. */
  readonly authenticate?: Authenticate<Who> | undefined
  /** Whether this identity may use the route. `false` is a 403. */
  readonly authorize?: ((identity: Who, request: FastifyRequest<{ Params: Params }>) => boolean | Promise<boolean>) | undefined
  /** `false` lets requests without a token through, with `identity` null. A bad token is still a 401. @default true */
  readonly required?: boolean | undefined
  /** Also takes the token from this cookie. Other origins are then refused unless `allowedOrigins` names them. @default false */
  readonly cookie?: string | false | undefined
  /** Also takes the token from this query parameter. It ends up in access logs: prefer the subprotocol. @default false */
  readonly query?: string | false | undefined
  /**
   * Origins that may connect (`https://example.com`; scheme, host and port are compared), or a function that returns `true` for them.
   * Left out: any origin, or with `cookie` the service's own host alone.
   */
  readonly allowedOrigins?: readonly string[] | ((origin: string, request: FastifyRequest) => boolean | Promise<boolean>) | undefined
}

type Awaitable<T> = T | Promise<T>

/**
 * The life of one connection. Calls never overlap: `onConnect`, then one `onMessage` at a time in the order of arrival, then
 * `onDisconnect`.
 */
export interface ConnectionCallbacks<Params = Record<string, string>, Who = Identity | null> {
  /**
   * Runs before any message is handled; messages that arrive meanwhile wait. Throwing undoes the memberships and closes the connection:
   * with the error's `closeCode` and `closeReason`, else with 1013 while the backplane is out, else with 1011.
   */
  onConnect?: ((connection: Connection<Params, Who>, request: FastifyRequest<{ Params: Params }>) => Awaitable<unknown>) | undefined
  /** Handles one message. `data` is a `string` for a text frame, a `Buffer` for a binary frame. */
  onMessage: (connection: Connection<Params, Who>, data: string | Buffer) => Awaitable<unknown>
  /**
   * Runs exactly once for every connection that reached `onConnect`, also when the client vanished or `onConnect` threw. The memberships
   * are gone by then; `connection.groups` still says which they were.
   */
  onDisconnect?: ((
    connection: Connection<Params, Who>, closed: { readonly code: number, readonly reason: string }
  ) => Awaitable<unknown>) | undefined
  /**
   * `onMessage` threw, or the socket failed. `true` keeps the connection, anything else closes it with 1011. Without `onError` a connection
   * stays when the error will pass (WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT, WSG_QUEUE_FULL) or has a `statusCode` from 400 to 499; a
   * connection of the framed protocol always stays. A client of the framed protocol is told of the error when its connection stays.
   */
  onError?: ((connection: Connection<Params, Who>, error: Error) => Awaitable<boolean | undefined | void>) | undefined
  /**
   * This connection lost messages of a group, between the last one that it got and the next one. Clients of the framed protocol are told by
   * the protocol; others hear of it only if the service tells them, or closes them so that they reload what they show. Takes its turn with
   * the messages. Throwing is for `onError`, as in `onMessage`.
   */
  onGap?: ((connection: Connection<Params, Who>, group: string, gap: { readonly reason: LossReason }) => Awaitable<unknown>) | undefined
  /** Whether a framed client may join this group by itself. Without `mayJoin` framed clients can neither join nor leave. */
  mayJoin?: ((connection: Connection<Params, Who>, group: string) => Awaitable<boolean>) | undefined
  /**
   * Whether a framed client may stay in this group with the fresh token that it sent. Asked for groups that the service put it into with
   * `registry.join`; `mayJoin` decides on those that it joined by itself. Without `mayStay` it stays.
   */
  mayStay?: ((connection: Connection<Params, Who>, group: string) => Awaitable<boolean>) | undefined
  /** Whether a framed client may read the history of this group, at most 1,000 messages at once. Without `mayRead` it may not. */
  mayRead?: ((connection: Connection<Params, Who>, group: string) => Awaitable<boolean>) | undefined
  /** Whether a member of the group may stop this stream of tokens, see docs/streams.md; its owner may in any case. */
  mayStop?: ((
    connection: Connection<Params, Who>, stream: { readonly group: string, readonly id: string, readonly owner: string | undefined }
  ) => Awaitable<boolean>) | undefined
  /**
   * Tells framed clients who is in their groups, who comes and who goes, by whatever route, see docs/presence.md; `count`: only how many,
   * at most once a second. @default false
   */
  presence?: boolean | 'count' | undefined
}

/** Callbacks whose `onMessage` gets parsed JSON. */
export interface JsonCallbacks<Params = Record<string, string>, Who = Identity | null>
  extends Omit<ConnectionCallbacks<Params, Who>, 'onMessage'> {
  /** Bytes, text that is not JSON, and JSON that would be slow to parse fail as if `onMessage` threw WSG_MESSAGE_INVALID (400). */
  readonly json: true
  /** Handles one message. `value` may be anything that JSON can express: check it, or use `messages`. */
  onMessage: (connection: Connection<Params, Who>, value: unknown) => Awaitable<unknown>
}

/** What `app.wsHandler` takes: callbacks, with `onMessage`, or with `messages` that have handlers of their own. */
export type HandlerOptions<Params = Record<string, string>, Who = Identity | null> =
  | ConnectionCallbacks<Params, Who> & { readonly messages?: undefined, readonly json?: false | undefined }
  | JsonCallbacks<Params, Who> & { readonly messages?: undefined }
  | Omit<ConnectionCallbacks<Params, Who>, 'onMessage'> & {
    readonly messages: AnyMessages, readonly onMessage?: undefined, readonly json?: false | undefined
  }

/** The parameters of a path: `'/ws/:org/:room'` gives `{ org: string, room: string }`. */
export type PathParams<Path extends string> = string extends Path
  ? Record<string, string>
  : { readonly [Name in ParamName<Path>]: string }
// find-my-way reads a path like this: a name ends at a slash, a dash, a dot or a regular expression; two colons stand for a colon.
type ParamName<Path extends string> = Path extends `${infer Before}(${string})${infer After}` ? ParamName<`${Before}/${After}`>
  : Path extends `${infer Before}::${infer After}` ? ParamName<`${Before}/${After}`>
    : Path extends `${string}:${infer Rest}` ? Cut<Cut<Cut<Cut<Rest, '/'>, '-'>, '.'>, '?'> | ParamName<Rest>
      : never
type Cut<Text extends string, End extends string> = Text extends `${infer Head}${End}${string}` ? Head : Text

/** The parameters of a room: those in its path and those that its schema declares, which may include parameters of the prefix. */
export type RoomParams<Path extends string, Schema> = Schema extends { readonly params: { readonly properties: infer Properties } }
  ? {
      readonly [Name in (keyof PathParams<Path> | keyof Properties) & string]:
      Name extends keyof Properties ? ParamValue<Properties[Name]> : string
    }
  : PathParams<Path>
// Fastify converts parameters to the types of the schema.
type ParamValue<Schema> = Schema extends { readonly type: 'integer' | 'number' } ? number
  : Schema extends { readonly type: 'boolean' } ? boolean : string

/** The type of `identity` in a room, by the room's option `auth`. */
export type RoomIdentity<Auth, Who> =
  Auth extends false ? null
    : Auth extends { readonly required: false } ? Who | null
      : Auth extends true | object ? Who
        : Who | null

/** The options of Fastify routes that a room takes, too; a room has an `onError` of its own. */
export interface RoomRouteOptions extends
  Omit<RouteShorthandOptions, 'onError' | 'preHandler' | 'websocket' | 'wsHandler' | 'prefixTrailingSlash'> {
  readonly preHandler?: preHandlerAsyncHookHandler | preHandlerAsyncHookHandler[] | undefined
}

/**
 * A ready-made room: its connections join a group, and each message goes to everyone in it. Each callback replaces one step.
 * `Json` is the option `json`.
 */
export interface RoomOptions<Params = Record<string, string>, Auth = unknown, Who = Identity, Json extends boolean = false>
  extends RoomRouteOptions {
  /** `false` opens the room to everyone. @default true when the plugin has `authenticate`; without it this has to be written */
  readonly auth?: Auth & (boolean | WsAuthOptions<Who, Params>) | undefined
  /**
   * Which group a connection joins; a number stands for its digits. Required where the service has more than one room route: by default
   * two of them could lead to the same group, and the `authorize` of neither would protect it.
   * @default the path's parameter `room`, or its only parameter
   */
  readonly group?: ((params: Params, identity: RoomIdentity<Auth, Who>) => Awaitable<string | number>) | undefined
  /** Runs after the connection joined. */
  readonly onJoin?: ((
    connection: Connection<Params, RoomIdentity<Auth, Who>>, group: string, request: FastifyRequest<{ Params: Params }>
  ) => Awaitable<unknown>) | undefined
  /**
   * Parses each message and hands the value to `onMessage`. The value may be anything that JSON can express: check it, or use `messages`.
   * Bytes, text that is not JSON, and JSON that would be slow to parse fail as if `onMessage` threw WSG_MESSAGE_INVALID (400).
   * @default false
   */
  readonly json?: Json | undefined
  /** Handles one message. @default broadcasts it to the group, the sender included: `data` as it is, or the value as JSON */
  readonly onMessage?: ((
    connection: Connection<Params, RoomIdentity<Auth, Who>>, data: Json extends true ? unknown : string | Buffer, group: string
  ) => Awaitable<unknown>) | undefined
  /** Messages and events by name, made by `app.wsMessages`, instead of `onMessage`: see docs/messages.md. */
  readonly messages?: AnyMessages | undefined
  /** Runs after the connection left. */
  readonly onLeave?: ((connection: Connection<Params, RoomIdentity<Auth, Who>>, group: string) => Awaitable<unknown>) | undefined
  readonly onError?: ConnectionCallbacks<Params, RoomIdentity<Auth, Who>>['onError'] | undefined
  readonly onGap?: ConnectionCallbacks<Params, RoomIdentity<Auth, Who>>['onGap'] | undefined
  readonly mayJoin?: ConnectionCallbacks<Params, RoomIdentity<Auth, Who>>['mayJoin'] | undefined
  /** Not asked for the room's own group, which `group` decides on. */
  readonly mayStay?: ConnectionCallbacks<Params, RoomIdentity<Auth, Who>>['mayStay'] | undefined
  /** @default with `history`: the groups that the connection is in, or may join */
  readonly mayRead?: ConnectionCallbacks<Params, RoomIdentity<Auth, Who>>['mayRead'] | undefined
  readonly mayStop?: ConnectionCallbacks<Params, RoomIdentity<Auth, Who>>['mayStop'] | undefined
  readonly presence?: ConnectionCallbacks['presence'] | undefined
  /** How many of the group's latest messages a connection gets when it joins without a position to resume from. @default 0 */
  readonly history?: number | undefined
}

/** A room whose messages are JSON. */
export interface JsonRoomOptions extends RoomOptions<Record<string, string>, unknown, Identity, true> { readonly json: true }

/** What a handler of `app.wsHandler` needs of the request. It names `params`, so that TypeScript infers them from the route. */
export interface HandlerRequest<Params> { readonly params: Params, readonly raw: IncomingMessage }

/** The params that a route declared; without a declaration they are strings by name. */
export type KnownParams<Params> = unknown extends Params ? Record<string, string> : Params

declare module 'fastify' {
  interface FastifyInstance {
    /** Groups across all instances. */
    registry: Registry
    /** An AsyncAPI 3.0 document of all routes of `wsHandler` and `wsRoom`. Call it when the application is ready. */
    asyncapi: (options?: AsyncApiOptions) => AsyncApiDocument
    /** A preHandler that answers 401 or 403 before the upgrade, and sets `request.identity`. */
    wsAuth: <Who = Identity, Params = unknown>(options?: WsAuthOptions<Who, Params>) => preHandlerAsyncHookHandler
    /** A handler for a route with `websocket: true`. */
    wsHandler: <Params, Who = Identity | null>(
      callbacks: HandlerOptions<KnownParams<Params>, Who>
    ) => (socket: WebSocket, request: HandlerRequest<Params> | HandlerRequest<unknown>) => void
    /** Adds a route whose connections join a group and get each other's messages. */
    wsRoom: <const Path extends string, const Auth = unknown, Who = Identity, const Schema = unknown, const Json extends boolean = false>(
      path: Path, options?: RoomOptions<RoomParams<Path, Schema>, Auth, Who, Json> & { readonly schema?: Schema | undefined }
    ) => void
  }
  // All type parameters have to be named, although only one of them is used.
  // eslint-disable-next-line @typescript-eslint/no-unused-vars
  interface FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider> {
    /** Messages and events with names and schemas, for the option `messages` of `wsRoom` and `wsHandler`: see docs/messages.md. */
    wsMessages: <
      const Data extends Record<string, unknown>, const Replies extends Record<string, unknown>,
      const Events extends Record<string, unknown> = {}, const Questions extends Record<string, QuestionSchemas> = {},
      Auth extends boolean = false
    >(
      definition: MessagesDefinition<Data, Replies, Events, TypeProvider, Questions, Auth>
    ) => Messages<Data, Replies, Events, TypeProvider, Questions>
  }
  interface FastifyRequest {
    /** What `authenticate` returned; `null` where no auth ran. */
    identity: Identity | null
  }
}
