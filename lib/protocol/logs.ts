/** How far an operation reached: the whole cluster, this instance alone (the backplane is out), or nobody (policy `drop`). */
export type Scope = 'cluster' | 'local' | 'none'

/**
 * What a log keeps of its group's messages. Where processes that share a Redis have different settings for a group, the larger ones count,
 * and `health()` of those who notice names them.
 */
export interface LogSettings {
  /** How many messages the log keeps, from 1 to 10,000. */
  readonly maxMessages: number
  /**
   * How many bytes of messages the log keeps; each message counts with about 100 bytes more than its data. The latest message stays,
   * however large it is.
   * @default 1_048_576 // 1 MiB
   */
  readonly maxBytes?: number | undefined
  /** Milliseconds after the latest message until the log is dropped. */
  readonly ttlMs: number
}

/** Why messages between two positions are lost. */
export type GapReason =
  /** The log started again from nothing: its data was lost. */
  | 'epoch'
  /** The log lost its latest messages and went on from an earlier one. */
  | 'rewound'
  /** More messages came than the log keeps, or they became too old. */
  | 'trimmed'

/**
 * Why a connection lost messages; `unavailable`: nobody knows whether any are lost, because the log could not be read or the group has
 * none.
 */
export type LossReason = GapReason | 'unavailable'

export interface JoinResult {
  /** `local`: the backplane is out. The connection is a member on this instance, and is registered as soon as the backplane is back. */
  readonly scope: 'cluster' | 'local'
  /** Present when a position was given: whether everything after that position was delivered. */
  readonly recovered?: boolean | undefined
  /** Why not, when `recovered` is `false`. */
  readonly reason?: LossReason | undefined
  /** Where the connection stands in the group's log now, if that is known. */
  readonly position?: string | undefined
}

export interface JoinOptions {
  /** First delivers what came after this position. @throws {WebsocketGroupsError} WSG_POSITION_INVALID */
  readonly since?: string | undefined
  /** Without `since`: first delivers up to this many of the latest messages. @default 0 */
  readonly history?: number | undefined
  /**
   * For broadcasts with a `filter`: up to 32 strings of 64 bytes. The connection has them until it leaves the group; joining again with
   * other tags replaces them.
   */
  readonly tags?: readonly string[] | undefined
}

/** Who sent a message. */
export interface Sender {
  readonly userId?: string | undefined
  readonly connectionId?: string | undefined
}

export interface HistoryOptions {
  /**
   * Messages after this position; `start`: from the earliest that the log holds. The page begins with the earliest of them, or with
   * `reverse` with the latest. Without `since` it ends with the latest.
   */
  readonly since?: string | undefined
  /** Only messages before this position. To read on towards the past, give the position of the earliest message of the latest page. */
  readonly before?: string | undefined
  /** At most this many messages, up to 10,000. @default 100 */
  readonly limit?: number | undefined
  /** Newest first, from the latest message on. @default false */
  readonly reverse?: boolean | undefined
}

export interface HistoryMessage {
  readonly data: string | Buffer
  readonly position: string
  /** When it was sent, in milliseconds since 1970 by the clock of Redis. */
  readonly at: number
  /** Missing if the broadcast did not say who sent it. */
  readonly from?: Sender | undefined
}

export interface History {
  readonly messages: readonly HistoryMessage[]
  /** The end of the log. */
  readonly position: string
  /** Present when messages right after `since`, or right before `before`, are lost: why. */
  readonly gap?: GapReason | undefined
  /**
   * Whether the log holds further messages beyond this page: after its last one when it begins with the earliest (`since` without
   * `reverse`), else before its earliest one.
   */
  readonly more: boolean
}
