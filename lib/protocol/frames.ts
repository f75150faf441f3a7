// The frames of docs/protocol.md, as they travel: JSON objects with a `type`, one in each text message. The server and the
// client of browsers share this file, so it imports nothing.

/** The subprotocol that a client offers, and the server answers with. */
export const framedProtocol = 'wsg.v1'

/** Stands for the name of a group where frames are about the log of the client's user. */
export const userLogLabel = 'wsg:user'

/** How many groups a `hello` may offer positions for. */
export const maxResume = 100

/** The form of every position. Only the log it came from can tell whether it exists. */
export const positionPattern = /^[\w-]{24}$/

/** Why messages are lost: the log is another one now, went back, was trimmed beyond them, or could not be read. */
export type GapReason = 'epoch' | 'rewound' | 'trimmed' | 'unavailable'

/** The data of a message. With `binary: true`, `data` is base64. */
export interface Payload {
  readonly data: string
  readonly binary?: boolean | undefined
}

/** The data of a message that is JSON: any value. Stands for its text. */
export interface JsonPayload {
  readonly data: unknown
  readonly json: true
}

/**
 * Somebody in a group, as clients see it: a user with all connections, or a session that belongs to no user. `Info` is what the server's
 * option `memberInfo` returns.
 */
export interface FramedMember<Info = unknown> {
  readonly userId?: string | undefined
  /** The public name of the session, where there is no user id: the same before and after a break. */
  readonly session?: string | undefined
  /** In milliseconds since 1970. */
  readonly joinedAt: number
  /** What the latest connection shows of itself. */
  readonly info?: Info | undefined
  /** How many clients (tabs, devices) the member has in the group; one that is away for a moment counts. */
  readonly connections: number
}

/** Answers `hello`. */
export interface WelcomeFrame {
  readonly type: 'welcome'
  readonly connectionId: string
  /** The secret name of the session: proves in a later `hello` that the client is back. */
  readonly session: string
  /** A connection is dead when nothing came from the server for twice this long, in milliseconds. 0: unknown. */
  readonly pingMs: number
  /** How long after a break the server waits before it announces that the client left, in milliseconds. */
  readonly resumeMs: number
}

/** The connection is in the group. */
export interface JoinedFrame {
  readonly type: 'joined'
  readonly group: string
  /** Present when the client gave a position: whether everything since then follows. */
  readonly recovered?: boolean | undefined
  /** Why not, when `recovered` is `false`. */
  readonly reason?: GapReason | undefined
  /** Where what follows begins. Missing when the group has no log. */
  readonly position?: string | undefined
  /** Proves to any instance that this session was in the group at `position`. */
  readonly grant?: string | undefined
}

/** A member came, went, or shows something else of itself. */
export interface PresenceFrame<Info = unknown> {
  readonly type: 'presence'
  readonly group: string
  readonly event: 'join' | 'leave' | 'update'
  readonly member: FramedMember<Info>
  /** How many members the group has then. */
  readonly count: number
}

/** All members of a group: replaces what was known of them. */
export interface MembersFrame<Info = unknown> {
  readonly type: 'members'
  readonly group: string
  readonly members: ReadonlyArray<FramedMember<Info>>
}

/** What was sent to a group, to the connection, or to its user. */
type MessageFrame<Data = Payload> = { readonly type: 'message' } & MessagePlace & Data

/** Where a message was sent, and where in a log it stands. */
export interface MessagePlace {
  /** Missing in direct sends. */
  readonly group?: string | undefined
  /** Missing in messages that no log keeps. */
  readonly position?: string | undefined
  /** The same in all copies of a message that went to several groups. A client that gets a second copy after a break knows it by this. */
  readonly copy?: string | undefined
  /** When it was sent, in milliseconds since 1970. */
  readonly at?: number | undefined
}

/** One message of the history of a group. */
export type PastMessage<Data = Payload> = PastPlace & Data

/** Where a message of a history stands. */
interface PastPlace {
  readonly position: string
  readonly at: number
  readonly from?: { readonly userId?: string | undefined, readonly connectionId?: string | undefined } | undefined
}

/** Answers the request `history`, with the oldest message first unless the request says `reverse`. */
export interface HistoryFrame<Data = Payload> {
  readonly type: 'history'
  readonly id: number
  readonly group: string
  readonly messages: ReadonlyArray<PastMessage<Data>>
  readonly position: string
  readonly gap?: GapReason | undefined
  readonly more: boolean
}

/** Which messages of a group's log a page has. */
export interface HistoryQuery {
  readonly since?: string | undefined
  readonly before?: string | undefined
  readonly limit?: number | undefined
  readonly reverse?: boolean | undefined
}

/** A request is done. */
export interface AckFrame {
  readonly type: 'ack'
  readonly id: number
  /** Where in the log a broadcast, or a join, stands. */
  readonly position?: string | undefined
  /** The reply to a message by name: a JSON value, or base64 with `binary`. */
  readonly data?: unknown
  readonly binary?: boolean | undefined
}

/** A request failed; without an `id`, something that nobody asked for did. */
export interface ErrorFrame {
  readonly type: 'error'
  readonly id?: number | undefined
  readonly code: string
  readonly message: string
  /** What the error of the application says beside its text: the `details`, or the `validation`, of one with a status from 400 to 499. */
  readonly details?: unknown
}

/** What the server sends; `JsonPayload` only to those who asked for it. A field that is `undefined` is left out. */
export type ServerFrame<Info = unknown, Data = Payload> =
  | WelcomeFrame
  | JoinedFrame
  | { readonly type: 'left', readonly group: string, readonly reason?: string | undefined }
  | MessageFrame<Data>
  | HistoryFrame<Data>
  | { readonly type: 'position', readonly group: string, readonly position: string }
  | { readonly type: 'gap', readonly group: string, readonly reason: GapReason, readonly position: string }
  | PresenceFrame<Info>
  | MembersFrame<Info>
  | { readonly type: 'count', readonly group: string, readonly count: number }
  | AckFrame
  | ErrorFrame
  | { readonly type: 'pong' }
  | { readonly type: 'reconnect', readonly afterMs: number }

/** The first frame of a client. */
export interface HelloFrame {
  readonly type: 'hello'
  readonly session?: string | undefined
  /** The position that the client reached, by group. */
  readonly resume?: Readonly<Record<string, string>> | undefined
  /** The latest grant of each of these groups, where there is one. */
  readonly grants?: Readonly<Record<string, string | undefined>> | undefined
  /** The client takes events by name as JSON values inside frames. */
  readonly json?: boolean | undefined
}

/** What a client asks for. With an `id` it is answered, by `ack`, `history` or `error`. */
export type RequestFrame = { readonly id?: number | undefined } & (
  | { readonly type: 'message' } & (Payload | JsonPayload)
  | {
    readonly type: 'join'
    readonly group: string
    readonly since?: string | undefined
    readonly grant?: string | undefined
    readonly history?: number | undefined
  }
  | { readonly type: 'history', readonly group: string } & HistoryQuery
  | { readonly type: 'leave', readonly group: string }
  | { readonly type: 'token', readonly token: string }
)

/** What a client sends. */
export type ClientFrame = HelloFrame | { readonly type: 'ping' } | RequestFrame
