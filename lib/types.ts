import type { FastifyBaseLogger } from 'fastify'

/** A `string` travels as a text frame, a `Uint8Array` (so also a `Buffer`) as a binary frame. */
export type Data = string | Uint8Array

/** Anything `JSON.stringify` keeps. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json | undefined }

/**
 * Augment this to tell the plugin your types once: that of identities, and that of what members show of themselves.
 * `declare module 'fastify-websocket-groups' { interface Register { identity: User, memberInfo: { name: string } } }`
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

/** What the option `memberInfo` returns, as members of a group see it: after a trip through JSON. */
export type MemberInfo = Register extends { memberInfo: infer Registered } ? Registered : Json

/** One live socket of this instance. */
export interface Connection<Params = Record<string, string>, Who = Identity | null> {
  /** Unique in the cluster; starts with the id of the instance that holds the socket. */
  readonly id: string
  readonly params: Params
  /** What `authenticate` returned; `null` on routes without auth. */
  readonly identity: Who
  /** Set when the identity names a user, see the option `userId`. */
  readonly userId: string | undefined
  /** Its client speaks the framed protocol, see docs/protocol.md. */
  readonly framed: boolean
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
  readonly info?: MemberInfo
  /** The public name of the client's session, which stays the same when it reconnects; clients of the framed protocol alone have one. */
  readonly session?: string
}

/** The members of a group, with the age of the reading in milliseconds: 0 when the backplane answered, more under the `stale` policy. */
export type MemberList = readonly Member[] & { readonly ageMs: number }

export interface BroadcastOptions {
  /**
   * Connections (or their ids) that do not get the message, wherever they are. A client of the framed protocol does not get it later either, when it comes
   * back with another connection; of one that is named by id this is known where the connection is, so give the connection itself.
   */
  readonly except?: AnyConnection | string | ReadonlyArray<AnyConnection | string>
  /** `true`: at most once and without the group's log, and not at all to clients that read too slowly (see `slowBufferedBytes`), as typing indicators want it. */
  readonly volatile?: boolean
  /** As `volatile`, but a client that reads too slowly gets the latest message of each key once it can, as cursors and prices want it. At most 255 bytes. */
  readonly conflationKey?: string
  /** A second broadcast with this key to the group within five minutes does nothing, so that a caller may retry. At most 255 bytes. */
  readonly idempotencyKey?: string
}

/** How far an operation reached: the whole cluster, this instance only (the backplane is out), or nobody (policy `drop`). */
export type Scope = 'cluster' | 'local' | 'none'

export interface BroadcastResult {
  readonly scope: Scope
  /** Connections of this instance that the message is for. */
  readonly localRecipients: number
  /** How many of these read so slowly that more than `slowBufferedBytes` waited for them; left out when none does. */
  readonly slowRecipients?: number
  /** Instances that took the message, this one included; `undefined` when the backplane cannot tell. */
  readonly instances?: number
  /** Where the message stands in the group's log; several groups: see `positions`. */
  readonly position?: string
  readonly positions?: Readonly<Record<string, string>>
  /** It waited for the backplane to come back (policy `queue`). */
  readonly queued?: boolean
  /** A broadcast with this idempotency key was there already; `position` is its. */
  readonly duplicate?: boolean
}

export interface LogSettings {
  /** How many messages the log keeps. */
  readonly maxMessages: number
  /** Milliseconds after the latest message until the log is dropped. */
  readonly ttlMs: number
}

/** Why messages between two positions cannot be had. */
export type GapReason =
  /** The log began anew: its data was lost. */
  | 'epoch'
  /** The log lost its latest messages, and went on from an older one. */
  | 'rewound'
  /** More messages came than the log keeps, or they became too old. */
  | 'trimmed'

export interface JoinResult {
  /** `local`: the backplane is out; the member is in the group here and gets registered as soon as it is back. */
  readonly scope: 'cluster' | 'local'
  /** Asked for with `since`: whether everything after that position was delivered. */
  readonly recovered?: boolean
  /** Why not. */
  readonly reason?: GapReason | 'unavailable'
  /** Where the connection stands in the group's log now. */
  readonly position?: string
}

export interface JoinOptions {
  /** Delivers what came after this position, before anything newer. @throws WSG_POSITION_INVALID */
  readonly since?: string
  /** Without `since`: delivers up to this many of the latest messages first. @default 0 */
  readonly history?: number
}

export interface HistoryOptions {
  /** Messages after this position. Left out: the latest ones. */
  readonly since?: string
  /** @default 100 */
  readonly limit?: number
  /** Newest first. @default false */
  readonly reverse?: boolean
}

export interface HistoryMessage {
  readonly data: string | Buffer
  readonly position: string
}

export interface History {
  readonly messages: readonly HistoryMessage[]
  /** The end of the log. */
  readonly position: string
  /** Messages right after `since` are missing, and why. */
  readonly gap?: GapReason
  readonly more: boolean
}

export interface CloseOptions {
  /** After 1000 the client of this package stays closed, and others are told at once that it left; after 1012 or 1013 it comes back. @default 1000 */
  readonly code?: number
  readonly reason?: string
}

export interface ReadOptions {
  /** Refuses a last known value that is older than this (milliseconds). @default Infinity */
  readonly maxAgeMs?: number
}

/** Who is kept out: a user, by the option `userId`, or one token of the user, by the option `tokenId`. */
export type BlockTarget = { readonly userId: string } | { readonly tokenId: string }

export interface BlockOptions {
  /** For how long, in milliseconds: up to 2,592,000,000 (30 days). A token needs no longer than it is valid. */
  readonly forMs: number
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
  join (connection: AnyConnection | string, group: string, options?: JoinOptions): Promise<JoinResult>
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

  /**
   * Keeps a user or a token out for so many milliseconds: closes the connections on every instance with 4403, and refuses upgrades and fresh
   * tokens with WSG_BLOCKED (403) until then. Resolves with how many connections were closed. A block again replaces the first one.
   * Connections of this instance are closed also when it rejects.
   * @throws {WebsocketGroupsError} WSG_BLOCK_INVALID, WSG_BLOCKLIST_FULL (10,000), WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  block (target: BlockTarget, options: BlockOptions): Promise<number>
  /**
   * Ends a block before its time.
   * @throws {WebsocketGroupsError} WSG_BLOCK_INVALID, WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  unblock (target: BlockTarget): Promise<void>

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

  /** What was broadcast to a group with a log. */
  history (group: string, options?: HistoryOptions): Promise<History>

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
