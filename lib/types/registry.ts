import type { BroadcastOptions, BroadcastResult, UserTarget } from './broadcast.ts'
import type { Json } from './json.ts'
import type { Description, Health, Stats } from './health.ts'
import type { MetricsSnapshot } from '../metrics/types.ts'
import type {
  AnyConnection, Connection, Data, Member, MemberList, MembersOptions, PageOptions, PresenceEntry, PresenceList, Register
} from './connection.ts'
import type { Stream, StreamOptions, StreamReading } from './streams.ts'
import type { History, HistoryOptions, JoinOptions, JoinResult } from '../protocol/logs.ts'

export interface CloseOptions {
  /**
   * After 1000 the client of this package stays closed, and other members are told at once that it left. After 1012 or 1013 the client
   * comes back.
   * @default 1000
   */
  readonly code?: number | undefined
  readonly reason?: string | undefined
}

export interface ReadOptions {
  /** Refuses a remembered answer that is older than this, in milliseconds. @default Infinity */
  readonly maxAgeMs?: number | undefined
}

/** Who is blocked: a user, by the option `userId`, or one token of the user, by the option `tokenId`. */
export type BlockTarget = { readonly userId: string } | { readonly tokenId: string }

export interface BlockOptions {
  /** For how long, in milliseconds: up to 2,592,000,000 (30 days). A token needs no longer than it is valid. */
  readonly forMs: number
}

export interface GroupListOptions extends PageOptions {
  /** Only groups whose names start with this. */
  readonly prefix?: string | undefined
}

/** Names of groups, in alphabetical order. `cursor` is set when the list goes on: pass it for the next page. */
export type GroupList = readonly string[] & {
  readonly cursor?: string | undefined
  /** How many live instances did not answer in time: groups that have members there alone are not in the list. */
  readonly missing: number
}

/** A group or several, all connections of a user, or everyone. */
export type Recipients = string | readonly string[] | UserTarget | { readonly all: true }

export interface LeaveOptions {
  /** What a client of the framed protocol is told: at most 123 bytes. */
  readonly reason?: string | undefined
}

/** What instances send each other with `registry.instances`: payloads by name, as `events` of `Register` declares them, else any JSON. */
export type InstanceEvents = Register extends { events: infer Registered extends object } ? Registered : Record<string, Json>

/** Removes a handler when it is called, or at the end of the block that declares it with `using`. */
export type Removal = (() => void) & Disposable

export interface AskOptions {
  /** How long instances may take. @default joinTimeoutMs + operationTimeoutMs */
  readonly timeoutMs?: number | undefined
}

export interface Asked {
  /** What the handlers of the instances returned, as JSON. */
  readonly replies: readonly unknown[]
  /** How many instances did not answer in time, have no handler, or whose handler failed. */
  readonly missing: number
  /** `local`: the backplane was out, and this instance alone was asked. Nobody knows how many others there are: `missing` counts one. */
  readonly scope?: 'local' | undefined
}

/** Messages between the instances of an application, this one included. Payloads are JSON of at most 1 MiB. */
export interface Instances {
  /** Handles what instances send under this name. Returns a function that removes the handler. */
  on<Name extends keyof InstanceEvents & string> (name: Name, handler: (payload: InstanceEvents[Name]) => unknown): Removal
  /** @throws {WebsocketGroupsError} WSG_DATA_INVALID, WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT, WSG_CLOSED */
  emit<Name extends keyof InstanceEvents & string> (name: Name, payload: InstanceEvents[Name]): Promise<void>
  /**
   * Asks all instances, and resolves with the answers that came in time; while the backplane is out, with the answer of this instance.
   * @throws {WebsocketGroupsError} WSG_DATA_INVALID, WSG_OPTION_INVALID, WSG_CLOSED
   */
  ask<Name extends keyof InstanceEvents & string> (name: Name, payload: InstanceEvents[Name], options?: AskOptions): Promise<Asked>
}

/** Groups across all instances; decorated as `app.registry`. */
export interface Registry {
  /** Messages between the instances. */
  readonly instances: Instances
  /** Drawn at boot. The id of every connection of this instance starts with it. */
  readonly instanceId: string

  /**
   * Adds the connection to the group. Resolves when every broadcast sent from now on, by any instance, will arrive. Idempotent.
   * Name a connection of another instance by its id: the call resolves when that instance has done the work.
   * After a rejection the connection is not in the group.
   * @throws {WebsocketGroupsError} WSG_GROUP_NAME_INVALID, WSG_CONNECTION_GONE, WSG_TOO_MANY_GROUPS, WSG_MEMBER_INFO_TOO_LARGE,
   * WSG_POSITION_INVALID, WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  join (connection: AnyConnection | string, group: string, options?: JoinOptions): Promise<JoinResult>
  /**
   * The same for all connections of a user, wherever they are. Resolves with how many of them are in the group afterwards.
   * @throws {WebsocketGroupsError} when a live instance does not answer: WSG_TIMEOUT, or WSG_BACKPLANE_UNAVAILABLE if no connection joined.
   * `error.missing` names these instances, `error.done` says how many connections are in the group
   */
  join (user: UserTarget, group: string, options?: JoinOptions): Promise<number>
  /** Takes the connection out of the group. Resolves with whether it was a member. A framed client is told the reason. */
  leave (connection: AnyConnection | string, group: string, options?: LeaveOptions): Promise<boolean>
  /**
   * The same for all connections of a user, wherever they are. Resolves with how many were in the group.
   * @throws {WebsocketGroupsError} when a live instance does not answer: WSG_TIMEOUT, or WSG_BACKPLANE_UNAVAILABLE if no connection was
   * taken out. `error.missing` names these instances, `error.done` says how many connections were taken out
   */
  leave (user: UserTarget, group: string, options?: LeaveOptions): Promise<number>
  /** Takes the connection out of all its groups. Resolves with how many it left. */
  leaveAll (connection: AnyConnection | string): Promise<number>
  /**
   * The groups that the connection, or any connection of the user, is in.
   * @throws {WebsocketGroupsError} WSG_CONNECTION_GONE; WSG_TIMEOUT or WSG_BACKPLANE_UNAVAILABLE when a live instance does not answer,
   * which `error.missing` names
   */
  groups (connection: AnyConnection | string | UserTarget): Promise<readonly string[]>

  /**
   * Sends to every member of the group, on every instance, in the same order for all. Each connection gets one copy of a message to several
   * groups. Resolves when the group's log has the message, if the group has a log. A message to more than 1,000 groups goes in parts of
   * 1,000 groups, each stored whole or not at all.
   * @throws {WebsocketGroupsError} WSG_GROUP_NAME_INVALID, WSG_DATA_INVALID, WSG_IDEMPOTENCY_INVALID, WSG_CONFLATION_KEY_INVALID,
   * WSG_BACKPLANE_UNAVAILABLE (nothing was sent), WSG_TIMEOUT (the message may have been sent; if to some of the groups only,
   * `error.sentTo` names them), WSG_QUEUE_FULL
   */
  broadcastToGroup (group: string | readonly string[], data: Data, options?: BroadcastOptions): Promise<BroadcastResult>
  /**
   * Sends a value as JSON, in a text frame, as `broadcastToGroup`, `sendToUser` or `broadcastToAll` would.
   * @throws {WebsocketGroupsError} WSG_DATA_INVALID when JSON cannot express it
   */
  broadcastJson (to: Recipients, value: unknown, options?: BroadcastOptions): Promise<BroadcastResult>
  /** Sends to every connection of every instance. */
  broadcastToAll (data: Data, options?: BroadcastOptions): Promise<BroadcastResult>
  /** Sends to every connection of a user, on every instance. @throws {WebsocketGroupsError} WSG_USER_ID_INVALID */
  sendToUser (userId: string, data: Data, options?: BroadcastOptions): Promise<BroadcastResult>
  /** Sends to one connection, wherever it is. Resolves with whether its instance handed the data to the socket: `false` when it is gone. */
  sendTo (connectionId: string, data: Data): Promise<boolean>
  /** Closes one connection, or all connections of a user, wherever they are. Resolves with how many were closed. */
  disconnect (target: AnyConnection | string | { readonly userId: string }, options?: CloseOptions): Promise<number>

  /**
   * Keeps a user or a token out for `forMs` milliseconds: closes the connections on every instance with 4403, and refuses upgrades and
   * fresh tokens with WSG_BLOCKED (403) until then. Resolves with how many connections were closed. A second block replaces the first one.
   * Connections of this instance are closed even if the call rejects: `error.done` says how many.
   * @throws {WebsocketGroupsError} WSG_BLOCK_INVALID, WSG_BLOCKLIST_FULL (10,000), WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  block (target: BlockTarget, options: BlockOptions): Promise<number>
  /**
   * Ends a block before its time.
   * @throws {WebsocketGroupsError} WSG_BLOCK_INVALID, WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  unblock (target: BlockTarget): Promise<void>

  /** The connection of this instance with that id. */
  get (connectionId: string): Connection | undefined
  /** The connections of this instance. */
  all (): Connection[]
  /** The connections of this instance for which `predicate` is true. */
  filter (predicate: (connection: Connection) => boolean): Connection[]
  /** How many connections this instance holds. */
  count (): number

  /** How many members the group has in the whole cluster. O(1). */
  groupCount (group: string, options?: ReadOptions): Promise<number>
  /**
   * The people in the group, in the whole cluster: one entry for each user with all connections, and for each session without a user id.
   * @throws {WebsocketGroupsError} WSG_OPTION_INVALID for an invalid limit or cursor
   */
  presence (group: string, options?: ReadOptions & PageOptions): Promise<PresenceList>
  /**
   * The connections in the group, in the whole cluster: all, those of one user, or a page of them.
   * @throws {WebsocketGroupsError} WSG_OPTION_INVALID for an invalid limit or cursor
   */
  members (group: string, options?: ReadOptions & MembersOptions): Promise<MemberList>

  /**
   * The groups that have members, in the whole cluster. Asks every instance: too costly for each request of a client.
   * @throws {WebsocketGroupsError} WSG_OPTION_INVALID for an invalid limit or cursor, WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  groupList (options?: GroupListOptions): Promise<GroupList>
  /**
   * How many connections all instances hold. Asks every instance: too costly for each request of a client.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE; WSG_TIMEOUT when a live instance did not answer: `error.done` is the number
   * without the instances in `error.missing`
   */
  connectionCount (): Promise<number>
  /**
   * How many users have connections, each counted once. Every instance answers with eight bytes for each of its users.
   * @throws {WebsocketGroupsError} as `connectionCount`
   */
  userCount (): Promise<number>

  /** What was broadcast to a group, as far as its log reaches. @throws {WebsocketGroupsError} WSG_POSITION_INVALID */
  history (group: string, options?: HistoryOptions): Promise<History>

  /**
   * Begins a text that grows piece by piece, for the members of the group: see docs/streams.md. The `id`, 1 to 128 bytes, is unique in the
   * group.
   * @throws {WebsocketGroupsError} WSG_GROUP_NAME_INVALID, WSG_OPTION_INVALID, WSG_DATA_INVALID (`meta`), WSG_STREAM_TAKEN,
   * WSG_STREAM_LIMIT
   */
  stream (group: string, id: string, options?: StreamOptions): Stream
  /**
   * Stops a stream, whichever process makes it: its `signal` aborts. Resolves with whether the stream was open.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  stopStream (group: string, id: string): Promise<boolean>
  /**
   * A stream as it is now; `undefined` when the group never had a stream of this id, or no longer has it.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  readStream (group: string, id: string): Promise<StreamReading | undefined>

  /**
   * For use before `app.close()`: takes no new connections from now on (`health().ready` is false, upgrades get 503), and closes the open
   * ones one after another within `overMs` milliseconds, so that their clients do not all come back at once. Framed clients are told
   * when to come back, all are closed with 1012, and those that do not answer within `closeGraceMs` are terminated. Resolves when all are
   * closed. There is no way back: call `app.close()` next. That ends a drain early, and a second call joins the first.
   * @throws {WebsocketGroupsError} WSG_OPTION_INVALID
   */
  drain (options: { readonly overMs: number }): Promise<void>

  /** Whether all is well, and if not, what is wrong. */
  health (): Health
  /** Counters since boot, and gauges: a plain object, cheap enough for every scrape. */
  stats (): Stats
  /** The numbers of `stats`, and histograms, close codes and traffic by route, as metrics with their kind, help and unit. */
  metrics (): MetricsSnapshot
  /** What runs here and how it is configured, without secrets, for a support ticket. As JSON it says the same. */
  describe (): Description
}

/**
 * What a process without sockets can do, made by `createPublisher`: it broadcasts, acts on connections wherever they are, and reads. The
 * methods are those of the registry. Calls that concern connections need an answer of the instances that hold them: with the first such
 * call the publisher subscribes to a channel of its own.
 */
export interface Publisher extends AsyncDisposable, Pick<Registry,
  'broadcastToGroup' | 'broadcastJson' | 'broadcastToAll' | 'sendToUser' | 'sendTo' | 'disconnect' | 'block' | 'unblock' | 'join' |
  'leave' | 'leaveAll' | 'groups' | 'groupList' | 'connectionCount' | 'userCount' | 'history' | 'stream' | 'stopStream' | 'readStream'> {
  groupCount (group: string): Promise<number>
  /** As `Registry.members`. */
  members (group: string, options?: MembersOptions): Promise<readonly Member[] & { readonly cursor?: string | undefined }>
  /** As `Registry.presence`. */
  presence (group: string, options?: PageOptions): Promise<readonly PresenceEntry[] & { readonly cursor?: string | undefined }>
  /**
   * Waits for the calls that were made, also before there was a connection, and closes the connection to Redis. Calls that wait for answers
   * of instances are rejected with WSG_CLOSED, and so are all that wait where Redis cannot be reached.
   */
  close (): Promise<void>
}
