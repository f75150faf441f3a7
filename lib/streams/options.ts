import { WebsocketGroupsError } from '../errors.ts'
import { assertGroupName, isUserId } from '../group-name.ts'
import { check, checkOptions, integer, type Rule } from '../options/rules.ts'
import type { StreamOptions } from '../types.ts'

const maxIdBytes = 128
const maxJsonBytes = 4_096

const rules = {
  owner: { allowed: 'a user id, or { userId }', accepts: owner => userIdOf(owner) === undefined || isUserId(userIdOf(owner)) },
  meta: { allowed: 'JSON', accepts: () => true },
  flushMs: integer(10, 1_000, 'ms'),
  maxBytes: integer(1, 1_048_576, 'bytes'),
  idleMs: integer(1_000, 86_400_000, 'ms'),
  keepMs: integer(1_000, 3_600_000, 'ms')
} as const satisfies Record<keyof StreamOptions, Rule>

const anId: Rule = {
  allowed: `a string of well-formed text of 1 to ${maxIdBytes} bytes, without control characters`,
  accepts: id => isUserId(id) && Buffer.byteLength(id) <= maxIdBytes
}

export interface ResolvedStreamOptions extends Required<Pick<StreamOptions, 'flushMs' | 'maxBytes' | 'idleMs' | 'keepMs'>> {
  readonly owner: string | undefined
  readonly meta: unknown
}

/** @throws {WebsocketGroupsError} WSG_OPTION_INVALID, WSG_DATA_INVALID */
export function resolveStreamOptions (id: unknown, options: StreamOptions): ResolvedStreamOptions {
  check('the id of a stream', id, anId)
  checkOptions(options, rules, 'stream.')
  const { owner, meta, flushMs = 50, maxBytes = 262_144, idleMs = 120_000, keepMs = 300_000 } = options
  return { owner: userIdOf(owner) as string | undefined, meta: asJson('meta', meta), flushMs, maxBytes, idleMs, keepMs }
}

/** Checks the name of a stream that any process may make. @throws {WebsocketGroupsError} WSG_GROUP_NAME_INVALID, WSG_OPTION_INVALID */
export function assertStream (group: unknown, id: unknown): void {
  assertGroupName(group)
  check('the id of a stream', id, anId)
}

/** Returns the value as JSON keeps it. @throws {WebsocketGroupsError} WSG_DATA_INVALID */
export function asJson (name: string, value: unknown): unknown {
  if (value === undefined) return undefined
  let json: string | undefined
  try {
    json = JSON.stringify(value) as string | undefined
  } catch (error) {
    throw new WebsocketGroupsError('WSG_DATA_INVALID', `${name} has no form in JSON`, { cause: error })
  }
  if (json === undefined || Buffer.byteLength(json) > maxJsonBytes) {
    throw new WebsocketGroupsError('WSG_DATA_INVALID', `${name} must be JSON of at most ${maxJsonBytes} bytes`)
  }
  return JSON.parse(json) as unknown
}

function userIdOf (owner: unknown): unknown {
  return typeof owner === 'object' && owner !== null ? (owner as { readonly userId?: unknown }).userId : owner
}
