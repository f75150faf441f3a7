import { WebsocketGroupsError } from './errors.ts'
import { userLogLabel } from './protocol/frames.ts'

const maxNameBytes = 255
const shortAscii = /^[\x20-\x7e]{1,255}$/
// Control characters break logs and tools; lone surrogates cannot be written as UTF-8.
const forbidden = /[\p{Cc}\p{Surrogate}]/u

/**
 * Also refuses the name under which clients get what `sendToUser` sends: in a group with that name anybody could pose as the server.
 * @throws {WebsocketGroupsError} WSG_GROUP_NAME_INVALID
 */
export function assertGroupName (name: unknown): asserts name is string {
  if (!isName(name) || name === userLogLabel) throw new WebsocketGroupsError('WSG_GROUP_NAME_INVALID', describe(name))
}

/** Whether a frame may contain the name: the name of a group, or the one under which a client knows the log of its user. */
export function isGroupName (name: unknown): name is string {
  return isName(name)
}

/** @throws {WebsocketGroupsError} WSG_USER_ID_INVALID */
export function assertUserId (userId: unknown): asserts userId is string {
  if (!isUserId(userId)) throw new WebsocketGroupsError('WSG_USER_ID_INVALID', describe(userId))
}

export function isUserId (userId: unknown): userId is string {
  return isName(userId)
}

function isName (name: unknown): name is string {
  if (typeof name !== 'string') return false
  // Nearly all names are short ASCII, which one regular expression accepts.
  if (shortAscii.test(name)) return true
  return name.length > 0 && name.length <= maxNameBytes && !forbidden.test(name) && Buffer.byteLength(name) <= maxNameBytes
}

/** Says what is wrong without repeating the name, which came from outside and may be long or unprintable. */
function describe (name: unknown): string {
  if (typeof name !== 'string') return `got ${name === null ? 'null' : typeof name}`
  if (name === '') return 'got an empty string'
  if (name === userLogLabel) return `clients know the messages to their user by the name ${name}`
  if (forbidden.test(name)) return 'got control characters or lone surrogates'
  return `got ${Buffer.byteLength(name)} bytes`
}
