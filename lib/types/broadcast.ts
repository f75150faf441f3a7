import type { Scope, Sender } from '../protocol/logs.ts'
import type { AnyConnection } from './connection.ts'

/** All connections of a user. */
export interface UserTarget { readonly userId: string }

/** Who does not get a message: a connection, or its id; all connections of a user; all members of a group. */
export type Exception = AnyConnection | string | UserTarget | { readonly group: string }

export interface BroadcastOptions {
  /**
   * Who does not get the message, wherever they are. A framed client does not get it later either, when it comes back as another
   * connection. Pass the connection object, not its id: only the instance that holds a connection knows the session behind its id.
   */
  readonly except?: Exception | readonly Exception[] | undefined
  /**
   * Only connections that were given all of these tags when they joined the group get the message. With several groups, tags from any of
   * them count; with `broadcastToAll` and `sendToUser`, tags from any group.
   */
  readonly filter?: { readonly tags: readonly string[] } | undefined
  /**
   * `true`: only connections of this instance get the message. It goes through no log and no backplane.
   */
  readonly local?: boolean | undefined
  /** Who sent the message, for readers of the history: a connection, or what a worker knows about the sender. */
  readonly from?: AnyConnection | Sender | undefined
  /**
   * `true` sends the message at most once, without the group's log, and not to clients that read too slowly (`slowBufferedBytes`): typing
   * indicators, say.
   */
  readonly volatile?: boolean | undefined
  /**
   * As `volatile`, but a client that reads too slowly gets the latest message of each key once it can read again: cursors, prices. At most
   * 255 bytes.
   */
  readonly conflationKey?: string | undefined
  /** A second broadcast to the group with this key, within five minutes, does nothing, so that the caller may retry. At most 255 bytes. */
  readonly idempotencyKey?: string | undefined
  /**
   * `true`: the result has a `report`, for those who publish faster than clients read. It costs a request to all instances that have
   * recipients, and up to a second: ask for it with one message in many.
   */
  readonly report?: boolean | undefined
}

/** The state of the connections that a message was for, in the whole cluster. */
export interface DeliveryReport {
  /** How many connections the message was for, at the instances that answered. */
  readonly recipients: number
  /** How many of these are slow: more than `slowBufferedBytes` wait for each. A volatile message was not sent to them. */
  readonly slow: number
  /** How many instances did not answer within a second: the numbers leave out their connections. */
  readonly missing: number
}

export interface BroadcastResult {
  readonly scope: Scope
  /** How many connections of this instance the message is for. */
  readonly localRecipients: number
  /** How many of these are slow: more than `slowBufferedBytes` wait for each. Missing when there are none. */
  readonly slowRecipients?: number | undefined
  /** How many instances took the message, this one included. Missing when the backplane cannot tell. */
  readonly instances?: number | undefined
  /** Where the message stands in the group's log. For several groups, see `positions`. */
  readonly position?: string | undefined
  /** By group, for a message to several groups. */
  readonly positions?: Readonly<Record<string, string>> | undefined
  /** `true` when the message waited for the backplane to come back (policy `queue`). */
  readonly queued?: boolean | undefined
  /** `true` when there already was a broadcast with this idempotency key; `position` is the position of that one. */
  readonly duplicate?: boolean | undefined
  /** Present when the option `report` asked for it. */
  readonly report?: DeliveryReport | undefined
}
