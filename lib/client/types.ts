import type { FramedMember, GapReason, JoinedFrame, MembersFrame, PresenceFrame } from '../protocol/frames.ts'
import type { ClientError } from './errors.ts'

export type { GapReason } from '../protocol/frames.ts'

/** As it came: text as a string, binary as bytes. */
export type Data = string | Uint8Array

export interface Message {
  /** Missing in messages to this connection, or to its user, alone. */
  readonly group: string | undefined
  readonly data: Data
  /** Missing in messages that no log keeps. */
  readonly position: string | undefined
}

/**
 * Augment this to say once what the server's option `memberInfo` returns:
 * `declare module 'fastify-websocket-groups/client' { interface Register { memberInfo: { name: string } } }`
 */
export interface Register {}

export type MemberInfo = Register extends { memberInfo: infer Registered } ? Registered : unknown

/** A member of a group: one connection in it. */
export interface Member extends FramedMember<MemberInfo> {}

/** Somebody came or went. */
export interface PresenceChange extends Omit<PresenceFrame<MemberInfo>, 'type'> {}

/** This connection is in a group. */
export interface Joined extends Omit<JoinedFrame, 'type'> {}

/** Messages of the group are lost to this client. Once per loss, also when `joined` says `recovered: false`. */
export interface Gap {
  readonly group: string
  readonly reason: GapReason
  readonly position?: string | undefined
}

export type State = 'connecting' | 'open' | 'waiting' | 'offline' | 'closed'

export interface StateChange {
  readonly state: State
  readonly previous: State
  /** In `waiting`: when the next attempt comes. */
  readonly retryInMs?: number | undefined
  /** Why the connection ended, when it did. */
  readonly code?: number | undefined
  readonly reason?: string | undefined
}

export interface Closed {
  readonly code: number
  readonly reason: string
  /** Missing when `close()` was called, by this side or, with 1000, by the server's. */
  readonly error?: ClientError | undefined
}

export interface ClientEvents {
  message: Message
  presence: PresenceChange
  /** Who is in a group: after each `joined`, where the route has presence on. */
  members: Omit<MembersFrame<MemberInfo>, 'type'>
  joined: Joined
  left: { readonly group: string }
  gap: Gap
  state: StateChange
  /** Nothing here ends the client; what does comes with `close`. */
  error: ClientError
  /** Once, last: the client does not come back. */
  close: Closed
}

/** `expiresAt` in milliseconds since 1970: a fresh token is asked for, and sent, before that. */
export interface ExpiringToken { readonly token: string, readonly expiresAt: number }
export type TokenCallback = () => MaybeToken | Promise<MaybeToken>
type MaybeToken = string | ExpiringToken | undefined | null

/** What this client uses of a WebSocket: that of browsers, of Node 22 and of `ws` fit. */
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

/** `sessionStorage` fits. */
export interface StorageLike {
  getItem (key: string): string | null
  setItem (key: string, value: string): void
}

/** Where a route is. Of several, each attempt takes the next one, the first of them any: instances without a balancer before them. */
export type Address = string | URL | ReadonlyArray<string | URL>

export interface ConnectOptions {
  /** A string, or a function that is called for every attempt to connect, and before a token expires that it gave with `expiresAt`. */
  readonly token?: string | TokenCallback | undefined
  /** Needed in Node before 22: `import { WebSocket } from 'ws'`. @default globalThis.WebSocket */
  readonly WebSocket?: WebSocketClass | undefined
  /** Further subprotocols to offer, behind `wsg.v1`. */
  readonly protocols?: readonly string[] | undefined
  /** An attempt waits a random time of at most `minMs`, half as much again with each failure, and never more than `maxMs`. @default { minMs: 1_000, maxMs: 10_000 } */
  readonly backoff?: { readonly minMs?: number | undefined, readonly maxMs?: number | undefined } | undefined
  /** How many messages, and characters in them, may wait or be unacknowledged. @default { maxMessages: 1_000, maxBytes: 1_048_576 } */
  readonly queue?: { readonly maxMessages?: number | undefined, readonly maxBytes?: number | undefined } | undefined
  /** How long an attempt may take, the token included. @default 15_000 */
  readonly connectTimeoutMs?: number | undefined
  /**
   * Asked when a connection ended, unless it was refused for good: `false` closes the client, `true` has it come back.
   * @default it comes back, except after 1000
   */
  readonly reconnect?: ((closed: { readonly code: number, readonly reason: string }) => boolean | undefined) | undefined
  /** `positions` of an earlier client, to go on from there. */
  readonly positions?: Readonly<Record<string, string>> | undefined
  /** `session` of an earlier client: for others it then is the same one that came back. */
  readonly session?: string | undefined
  /** Where `positions` and `session` are kept when the page goes, and taken from at the start; the options of these names win. */
  readonly storage?: StorageLike | undefined
}

export interface SendOptions {
  /** Send it again when the connection broke before the server said that it is handled: for messages that may be handled twice. @default false */
  readonly retry?: boolean | undefined
}

export interface Ack { readonly position?: string | undefined }
