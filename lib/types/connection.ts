import type { Json } from './json.ts'
import type { FastifyBaseLogger } from 'fastify'
import type { FramedMember } from '../protocol/frames.ts'

/** A `string` travels as a text frame, a `Uint8Array` (so also a `Buffer`) as a binary frame. */
export type Data = string | Uint8Array

/**
 * Augment this interface to tell the plugin your types once: of identities, of what `memberInfo` returns, and of `connection.state`.
 * `declare module 'fastify-websocket-groups' { interface Register { identity: User, memberInfo: Shown, state: { n?: number } } }`
 */
export interface Register {}

/**
 * The type of an identity unless `Register` names another one. Every field is optional: the plugin options `userId` and `expiresAt`
 * say which fields are read.
 */
export interface DefaultIdentity {
  readonly userId?: string | undefined
  readonly name?: string | undefined
  /** Milliseconds since the epoch, a Date or an ISO 8601 string. */
  readonly expiresAt?: number | string | Date | undefined
  readonly [key: string]: unknown
}

/** What `authenticate` returned. */
export type Identity = Register extends { identity: infer Registered } ? Registered : DefaultIdentity

/** What the option `memberInfo` returns, as other members see it: as JSON, parsed again. */
export type MemberInfo = Register extends { memberInfo: infer Registered } ? Registered : Json

/** What the application keeps with a connection: each field is `undefined` until it is set. */
export type ConnectionState = Register extends { state: infer Registered } ? Registered : Record<string, unknown>

/** One client that is connected to this instance. */
export interface Connection<Params = Record<string, string>, Who = Identity | null> extends AsyncDisposable {
  /** Unique in the cluster. Starts with the id of the instance that holds the socket. */
  readonly id: string
  /** The parameters of the route, validated by its schema. */
  readonly params: Params
  /** What `authenticate` returned; `null` on routes without auth. */
  readonly identity: Who
  /** The user that the identity stands for, see the option `userId`; `undefined` when it stands for no user. */
  readonly userId: string | undefined
  /** Whether the client speaks the framed protocol, see docs/protocol.md. */
  readonly framed: boolean
  /** The groups that the connection is in; after the socket closed, those it was in. */
  readonly groups: readonly string[]
  /** Aborts when the socket closes, so that work done for this connection can stop. */
  readonly signal: AbortSignal
  /** Whether the socket is closed or closing. */
  readonly closed: boolean
  /** A logger whose every line names the connection. */
  readonly log: FastifyBaseLogger
  /** Bytes waiting in this process for a slow client. */
  readonly bufferedBytes: number
  /** The application may keep here whatever belongs to this connection. Empty at first. */
  readonly state: ConnectionState
  /**
   * Sends to this client. `false` when the socket is closed, or is closed now because the client reads too slowly.
   * @throws {WebsocketGroupsError} WSG_DATA_INVALID
   */
  send (data: Data): boolean
  /** Sends the value as JSON, in a text frame. @throws {WebsocketGroupsError} WSG_DATA_INVALID when JSON cannot express it */
  sendJson (value: unknown): boolean
  /**
   * Starts the closing handshake. Idempotent.
   * @throws {WebsocketGroupsError} WSG_CLOSE_CODE_INVALID unless `code` is 1000-1003, 1007-1014 or 3000-4999, and `reason` has at most
   * 123 bytes
   */
  close (code?: number, reason?: string): void
  /** Destroys the socket without a closing handshake. */
  terminate (): void
  /** What `await using` calls: closes the connection, and resolves when its socket is gone, after at most two seconds. */
  [Symbol.asyncDispose] (): Promise<void>
  /**
   * Replaces what other members see of the connection (what the option `memberInfo` returned), in all of its groups and in those that it
   * joins later. Resolves when the new info is stored, or as soon as the backplane is out.
   * @throws {WebsocketGroupsError} WSG_DATA_INVALID when JSON cannot express the value, WSG_MEMBER_INFO_TOO_LARGE, WSG_CONNECTION_GONE
   */
  setInfo (info: MemberInfo): Promise<void>
}

/** A connection of any route. */
export type AnyConnection = Connection<unknown, unknown>

/** A connection in a group, as everyone in the cluster sees it. */
export interface Member {
  readonly connectionId: string
  readonly instanceId: string
  readonly userId?: string | undefined
  /** In milliseconds since 1970, by the clock of the instance that holds the connection. */
  readonly joinedAt: number
  /** What the option `memberInfo` returned, or `connection.setInfo` was given. */
  readonly info?: MemberInfo | undefined
  /** When `connection.setInfo` was called last, in milliseconds since 1970. */
  readonly infoAt?: number | undefined
  /** The public name of a framed client's session: it stays the same when the client reconnects. Raw clients have none. */
  readonly session?: string | undefined
}

/**
 * The members of a group, or a page of them. `ageMs` is 0 when the backplane answered, and the age of a remembered answer under the policy
 * `stale`. `cursor` is set when the list goes on: pass it for the next page.
 */
export type MemberList = readonly Member[] & { readonly ageMs: number, readonly cursor?: string | undefined }

/** Somebody in a group: a user with all connections, or a session that belongs to no user. */
export interface PresenceEntry extends FramedMember<MemberInfo> {}

/**
 * People in a group, in an order that stays the same from page to page. `cursor` and `ageMs` are as in `MemberList`.
 */
export type PresenceList = readonly PresenceEntry[] & { readonly ageMs: number, readonly cursor?: string | undefined }

export interface PageOptions {
  /** The `cursor` of the page before. */
  readonly cursor?: string | undefined
  /** How many at most, from 1 to 10,000. @default 1_000 */
  readonly limit?: number | undefined
}

/** Selects members of a group: all of them, or with `cursor` or `limit` a page. */
export interface MembersOptions extends PageOptions {
  /** Only the connections of this user. */
  readonly userId?: string | undefined
}
