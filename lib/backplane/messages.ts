import type { GapReason, Sender } from '../types.ts'

/** Where an envelope goes. A connection's id starts with its instance's id, so one connection is reached through its instance. */
export interface Target {
  readonly kind: 'group' | 'user' | 'instance' | 'all'
  /** Group name, user id or instance id; '' for `all`. */
  readonly name: string
}

/**
 * Where a reader stands in a group's log. The epoch names one life of the log, the offset counts its messages from 1, and the nonce was
 * drawn for that very message: after a failover that lost messages the same offset is handed out twice, and only the nonce tells the two
 * apart.
 */
export interface LogPosition {
  /** Eight bytes as latin1; '' before the first message of any log. */
  readonly epoch: string
  readonly offset: number
  readonly nonce: number
}

/** The messages of one page have no more bytes than this together, unless the first message alone has. */
export const maxPageBytes = 262_144

/** One page of the messages of a log after a position, oldest first. */
export interface LogPage {
  /**
   * `undefined`: the messages follow the position without a gap. Else they are what the log still has, none of which was seen at that
   * position.
   */
  readonly gap: GapReason | undefined
  readonly messages: readonly LoggedEnvelope[]
  /** The position right before the first of `messages`; without messages, the end of the log. */
  readonly before: LogPosition
  /** The end of the log; `logStart` when there is none. */
  readonly end: LogPosition
  /** There are more messages after the last of these: read on from there. Never set on a page without messages. */
  readonly more: boolean
}

/** The place of one copy of a message that went to several groups. */
export interface Place {
  readonly group: string
  readonly epoch: string
  /** 0: no copy stands in this log, as the group had the message already. */
  readonly offset: number
}

/** Which connections behind its target a message is for; applied by the receiving instance, never by the backplane. */
export interface Audience {
  /** Users whose connections do not get the message. */
  readonly exceptUsers?: readonly string[] | undefined
  /** Groups whose members do not get the message. */
  readonly exceptGroups?: readonly string[] | undefined
  /** Only for connections that were given all of these tags when they joined groups: those in `taggedIn`, or any. */
  readonly tags?: readonly string[] | undefined
  readonly taggedIn?: readonly string[] | undefined
}

/** A message between instances. */
export interface Envelope {
  /** Where the message stands in the log of its group; `undefined` for volatile messages. */
  readonly position?: LogPosition | undefined
  /** The instance (or publisher) that made it. */
  readonly origin: string
  /** Unique and increasing per origin. */
  readonly sequence: number
  readonly kind: 'message' | 'presence' | 'request' | 'reply'
  /** The target this copy was published to. */
  readonly target: Target
  /** The message was published to several targets at once: a connection in more than one of them gets one copy. */
  readonly shared: boolean
  /**
   * Where the copies of a message to several groups stand in the logs of those groups; groups without a log have no place here. Optional:
   * without the places, a client that resumes several groups may get a message to more than one of them twice, if the instance has
   * forgotten whom it gave the message.
   */
  readonly places?: readonly Place[] | undefined
  /**
   * Ids of connections, and names of sessions of the framed protocol, that do not get the message; applied by the receiving instance, never
   * by the backplane.
   */
  readonly except: readonly string[]
  /** Who gets the message; `undefined`: all but `except`. */
  readonly audience?: Audience | undefined
  /**
   * Where the message stood in a log that was lost, before it was stored anew. Members here got it then: they are told its new position,
   * and do not get the message again.
   */
  readonly repeated?: LogPosition | undefined
  /**
   * When a volatile message arrived that had to wait for the log of another group (epoch milliseconds): members who joined later do not get
   * it.
   */
  readonly heldSince?: number | undefined
  /** A slow client may miss the message. */
  readonly volatile?: boolean | undefined
  /** A slow client gets only the latest message with this key. */
  readonly conflationKey?: string | undefined
  /** When the message was made: milliseconds since 1970, by the clock that all instances share if there is one. */
  readonly at?: number | undefined
  /** Who sent the message, if the service said so. */
  readonly from?: Sender | undefined
  /** The trace that the message was sent in, if the application traces: W3C `traceparent`. */
  readonly trace?: string | undefined
  /** JSON of a presence event, a request or a reply; '' in messages. */
  readonly command: string
  /** Whether the payload is a binary frame; else UTF-8 text. */
  readonly binary: boolean
  readonly payload: Buffer
}

/** A message that stands in the log of its group. */
export type LoggedEnvelope = Envelope & { readonly position: LogPosition }

/** What a log keeps: the settings of its group, with all defaults filled in. */
export interface LogLimits {
  readonly maxMessages: number
  /** The latest message stays, however large it is. */
  readonly maxBytes: number
  readonly ttlMs: number
}

/** A group that a message is appended to. */
export interface AppendTarget {
  readonly group: string
  /** `undefined`: the group keeps no log; it gets its copy as a volatile message, in the same step. */
  readonly log: LogLimits | undefined
}

export interface Appended {
  /** Where the message stands in the log of each group that keeps one. */
  readonly positions: ReadonlyMap<string, LogPosition>
  /** Whether the message waited for the backplane to come back. */
  readonly queued: boolean
  /** Whether all of the logs had a message with this key already. */
  readonly duplicate: boolean
  /** For metrics: how many messages each log holds that this one was stored in. Of messages stored in one step, one has this. */
  readonly logLengths?: readonly number[] | undefined
}

/** How much memory a message, or a group, takes in a process beside its texts and data (bytes): measured, and rounded up. */
export const overheadBytes = 1_000
/** The same for an entry of a list. */
const entryBytes = 128

/** Returns how much memory the message takes in a process, without its `places`, which its copies share (bytes). */
export function memoryOf ({ payload, target, conflationKey = '', except, audience = {} }: Envelope): number {
  const { exceptUsers = [], exceptGroups = [], tags = [], taggedIn = [] } = audience
  let bytes = overheadBytes + payload.length + target.name.length + conflationKey.length
  for (const texts of [except, exceptUsers, exceptGroups, tags, taggedIn]) bytes += listBytes(texts)
  return bytes
}

/** Returns how much memory the places of a message take (bytes). */
export function memoryOfPlaces ({ places = [] }: Envelope): number {
  return listBytes(places.map(({ group }) => group))
}

function listBytes (texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + entryBytes + text.length, 0)
}
