import type { FramedMember, GapReason, JoinedFrame, MembersFrame, PastMessage, PresenceFrame } from '../protocol/frames.ts'
import type { ClientError } from './errors.ts'

export type { GapReason } from '../protocol/frames.ts'

/** Text as a string, binary data as bytes. */
export type Data = string | Uint8Array

/** A message that is JSON: it travels as it is, and reaches the server as its text. */
export interface JsonData { readonly json: unknown }

export type Sendable = Data | ArrayBuffer | JsonData

export interface Message {
  /** `undefined` in a message to this connection or to its user. */
  readonly group: string | undefined
  readonly data: Data
  /** `undefined` in a message that no log keeps. */
  readonly position: string | undefined
  /** When it was sent, in milliseconds since 1970. */
  readonly at?: number | undefined
}

export type { HistoryQuery } from '../protocol/frames.ts'

/** A page of what was sent to a group. */
export interface HistoryPage {
  readonly messages: ReadonlyArray<Omit<PastMessage, 'data' | 'binary'> & { readonly data: Data }>
  /** The end of the log. */
  readonly position: string
  /** Why messages at the start of the page are missing. */
  readonly gap: GapReason | undefined
  /** Whether there are further messages. */
  readonly more: boolean
}

/**
 * Augment this to say once what the server's option `memberInfo` returns:
 * `declare module 'fastify-websocket-groups/client' { interface Register { memberInfo: { name: string } } }`
 */
export interface Register {}

export type MemberInfo = Register extends { memberInfo: infer Registered } ? Registered : unknown

/** Somebody in a group: a user with all connections, or a session that belongs to no user. */
export interface Member extends FramedMember<MemberInfo> {}

/** Somebody came, went, shows another `info`, or has another number of connections. */
export interface PresenceChange extends Omit<PresenceFrame<MemberInfo>, 'type'> {}

/** This connection is in a group. */
export interface Joined extends Omit<JoinedFrame, 'type' | 'grant'> {}

/** This client lost messages of the group. Comes once per loss, also when `joined` says `recovered: false`. */
export interface Gap {
  readonly group: string
  readonly reason: GapReason
  /** Where what follows begins. Missing when the group has no log. */
  readonly position?: string | undefined
}

/** See the table in docs/client.md. */
export type State = 'connecting' | 'open' | 'waiting' | 'offline' | 'closed'

export interface StateChange {
  readonly state: State
  readonly previous: State
  /** In `waiting` and `offline`: how long until the next attempt, in milliseconds. */
  readonly retryInMs?: number | undefined
  /** The close code of the connection that ended. */
  readonly code?: number | undefined
  readonly reason?: string | undefined
}

export interface Closed {
  readonly code: number
  readonly reason: string
  /** Why the server refuses this client. Missing after `close()`, and after 1000 from the server. */
  readonly error?: ClientError | undefined
}

export interface ClientEvents {
  message: Message
  presence: PresenceChange
  /** All members of a group. Comes after each `joined`, where the route has presence on. */
  members: Omit<MembersFrame<MemberInfo>, 'type'>
  /** How many members a group has, where the route has `presence: 'count'`. */
  count: { readonly group: string, readonly count: number }
  joined: Joined
  left: { readonly group: string, readonly reason?: string | undefined }
  gap: Gap
  state: StateChange
  /** Something failed, and the client goes on. */
  error: ClientError
  /** The last event: the client does not come back. */
  close: Closed
}

/** `expiresAt` is in milliseconds since 1970: before that the client fetches a fresh token and sends it. */
export interface ExpiringToken { readonly token: string, readonly expiresAt: number }
export type TokenCallback = () => MaybeToken | Promise<MaybeToken>
type MaybeToken = string | ExpiringToken | undefined | null

/** What this client uses of a WebSocket. Those of browsers, of Node 22 and of `ws` fit. */
export interface WebSocketLike {
  readonly protocol: string
  readonly bufferedAmount: number
  onopen: ((event: never) => void) | null
  onmessage: ((event: never) => void) | null
  onclose: ((event: never) => void) | null
  onerror: ((event: never) => void) | null
  send (data: string): void
  close (code?: number, reason?: string): void
}
export type WebSocketClass = new (url: string, protocols: string[]) => WebSocketLike

/** What the client needs of a store such as `sessionStorage`. */
export interface StorageLike {
  getItem (key: string): string | null
  setItem (key: string, value: string): void
}

/** The URL of a route. Of a list (instances without a balancer), the first attempt takes any one, and each further attempt the next. */
export type Address = string | URL | ReadonlyArray<string | URL>

export interface ConnectOptions {
  /** A token, or a function that is called for every attempt to connect, and again before the `expiresAt` that it returned. */
  readonly token?: string | TokenCallback | undefined
  /** The class to use. Node before 22 has none: `import { WebSocket } from 'ws'`. @default globalThis.WebSocket */
  readonly WebSocket?: WebSocketClass | undefined
  /** Further subprotocols to offer, behind `wsg.v1`. @default [] */
  readonly protocols?: readonly string[] | undefined
  /**
   * An attempt waits for a random time of at most `minMs`. The bound grows by half with each failure, up to `maxMs`.
   * @default { minMs: 1_000, maxMs: 10_000 }
   */
  readonly backoff?: { readonly minMs?: number | undefined, readonly maxMs?: number | undefined } | undefined
  /**
   * How many messages, and how many characters of their frames, may wait or be unacknowledged. One message alone may be larger.
   * @default { maxMessages: 1_000, maxBytes: 1_048_576 }
   */
  readonly queue?: { readonly maxMessages?: number | undefined, readonly maxBytes?: number | undefined } | undefined
  /** How long an attempt may take, including the call of `token`, in milliseconds. @default 15_000 */
  readonly connectTimeoutMs?: number | undefined
  /**
   * Called when a connection ended, unless the server refused the client for good: `false` closes the client, `true` makes it come back.
   * @default the client comes back, except after 1000
   */
  readonly reconnect?: ((closed: { readonly code: number, readonly reason: string }) => boolean | undefined) | undefined
  /** The `positions` of an earlier client, to go on from there. */
  readonly positions?: Readonly<Record<string, string>> | undefined
  /** The `session` of an earlier client: others then see that client come back. */
  readonly session?: string | undefined
  /**
   * Keeps `positions` and `session` when the page is hidden, and gives them back at the start. The options of these names win. A tab that
   * was duplicated has a copy of the storage, and gets a session of its own.
   */
  readonly storage?: StorageLike | undefined
  /** What `storage` keeps. With `session` alone a page that was loaded again is the same client, and gets history anew. @default 'all' */
  readonly keep?: 'session' | 'all' | undefined
  /**
   * Asks the server to send events by name (JSON objects whose first field is `type`) as values, not as text that is encoded twice. The
   * event `message` then has the value as its `data`. @default false
   */
  readonly json?: boolean | undefined
}

export interface SendOptions {
  /** Send the message again when the connection broke before the acknowledgement: for messages that may be handled twice. @default false */
  readonly retry?: boolean | undefined
}

/** The answer to a message. `position` is set when `onMessage` returned what `broadcastToGroup` resolved with. */
export interface Ack {
  readonly position?: string | undefined
  /** The reply to a message by name: a JSON value, or bytes. Missing when there is none. */
  readonly data?: unknown
}
