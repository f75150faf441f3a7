import { isDeepStrictEqual } from 'node:util'
import { WebsocketGroupsError } from '../errors.ts'
import { isUserId } from '../group-name.ts'
import type { Identity } from '../types.ts'
import { isLiteral, property, show } from './rules.ts'
import type { WebsocketGroupsOptions } from './types.ts'

/** What the plugin reads from an identity: which user it stands for, and when it expires. */
export interface IdentityFacts {
  readonly userId: string | undefined
  /** Milliseconds since 1970; `undefined` for an identity that never expires. */
  readonly expiresAt: number | undefined
}

export type IdentityOptions = Required<Pick<WebsocketGroupsOptions, 'userId' | 'expiresAt'>>

/**
 * Reads an identity with the options `userId` and `expiresAt`. A value that cannot be understood is an error and never counts as missing:
 * an expiry that is ignored would keep a connection forever, and a user id that is ignored would put it out of reach of `disconnect`.
 * @throws {WebsocketGroupsError} WSG_IDENTITY_INVALID
 */
export function readIdentity (identity: Identity, options: IdentityOptions): IdentityFacts {
  const userId: unknown = options.userId(identity)
  if (!isAbsent(userId) && !isUserId(userId)) throw wrong('the user id', 'a non-empty string of at most 255 bytes', userId)
  const expiresAt: unknown = options.expiresAt(identity)
  const ends = isAbsent(expiresAt) ? undefined : instantOf(expiresAt, 1)
  if (Number.isNaN(ends)) throw wrong('the expiry', 'milliseconds since the epoch, a Date or an ISO 8601 string', expiresAt)
  return { userId: isAbsent(userId) ? undefined : userId, expiresAt: ends }
}

/**
 * Reads with the option `tokenId` which token an identity came from.
 * @throws {WebsocketGroupsError} WSG_IDENTITY_INVALID
 */
export function readTokenId (identity: Identity, options: Required<Pick<WebsocketGroupsOptions, 'tokenId'>>): string | undefined {
  const tokenId: unknown = options.tokenId?.(identity)
  if (isAbsent(tokenId)) return undefined
  if (!isUserId(tokenId)) throw wrong('the token id', 'a non-empty string of at most 255 bytes', tokenId)
  return tokenId
}

/**
 * Whether a fresh identity stands for the same user as an old one. Identities without a user id count as the same only if they are equal
 * literals, apart from what differs in every new token: an instance of a class may keep its user in private fields, or behind getters.
 */
export function isSameUser (old: Identity | null, fresh: Identity, options: IdentityOptions): boolean {
  if (old === null) return false
  const { userId } = readIdentity(fresh, options)
  if (userId !== readIdentity(old, options).userId) return false
  return userId !== undefined || (isLiteral(old) && isLiteral(fresh) && isDeepStrictEqual(withoutTimes(old), withoutTimes(fresh)))
}

function withoutTimes (identity: Identity): object {
  const { exp, iat, nbf, jti, expiresAt, ...rest } = identity as Record<string, unknown>
  return rest
}

/** `userId`, else `sub`, as tokens call it, else `id`, as databases do. */
export function defaultUserId (identity: Identity): string | undefined {
  const userId = property(identity, 'userId') ?? property(identity, 'sub') ?? property(identity, 'id')
  // `readIdentity` refuses any other value.
  return (Number.isFinite(userId) ? String(userId) : userId) as string | undefined
}

/** `jti`, as JWTs have it (RFC 7519 4.1.7). */
export function defaultTokenId (identity: Identity): string | undefined {
  return property(identity, 'jti') as string | undefined
}

/** `expiresAt` in milliseconds, or `exp` in seconds as in a JWT (RFC 7519 4.1.4). */
export function defaultExpiresAt (identity: Identity): number | undefined {
  const expiresAt = property(identity, 'expiresAt')
  if (!isAbsent(expiresAt)) return expiresAt as number
  const exp = property(identity, 'exp')
  if (isAbsent(exp)) return undefined
  const instant = instantOf(exp, 1_000)
  // `readIdentity` refuses the value as it is.
  return Number.isNaN(instant) ? exp as number : instant
}

/**
 * Milliseconds since the epoch, of a number or a numeric string in units of `unitMs`, a Date or an ISO 8601 string; NaN for anything else.
 */
function instantOf (value: unknown, unitMs: number): number {
  if (typeof value === 'number') return value * unitMs
  if (value instanceof Date) return value.getTime()
  if (typeof value !== 'string') return NaN
  if (/^[+-]?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(value.trim())) return Number(value) * unitMs
  return /^\d{4}-\d\d-\d\d(T|$)/.test(value) ? Date.parse(value) : NaN
}

function isAbsent (value: unknown): value is undefined | null {
  return value === undefined || value === null
}

function wrong (what: string, allowed: string, got: unknown): WebsocketGroupsError {
  const promise = typeof property(got, 'then') === 'function'
  // The promise is refused here; without a handler its rejection would end the process.
  if (promise) Promise.resolve(got).catch(() => undefined)
  const found = promise ? 'a promise: the option cannot be async' : show(got)
  return new WebsocketGroupsError('WSG_IDENTITY_INVALID', `${what} must be ${allowed}, got ${found}`)
}
