import { isThenable } from '../connection/inbound/callback-results.ts'
import { WebsocketGroupsError } from '../errors.ts'
import type { Connection, Json, Member, MemberInfo } from '../types.ts'

const maxInfoBytes = 1024

export type MemberInfoOption = ((connection: Connection) => Json | undefined) | undefined

/** Returns what the option `memberInfo` shows of the connection, after a round trip through JSON: members here and elsewhere look alike. */
export function shownBy (memberInfo: MemberInfoOption, connection: Connection): Pick<Member, 'info'> | undefined {
  const info: unknown = memberInfo?.(connection)
  if (isThenable(info)) {
    // The promise is not used; without a handler its rejection would end the process.
    Promise.resolve(info).catch(() => undefined)
    throw new WebsocketGroupsError('WSG_OPTION_INVALID', 'memberInfo returned a promise: it cannot be async')
  }
  const shown = toInfo(info)
  return shown === undefined ? undefined : { info: shown }
}

/**
 * Returns the value as JSON keeps it; `undefined` where JSON cannot express it.
 * @throws {WebsocketGroupsError} WSG_MEMBER_INFO_TOO_LARGE
 */
export function toInfo (info: unknown): MemberInfo | undefined {
  const text = JSON.stringify(info) as string | undefined
  if (text === undefined) return undefined
  if (Buffer.byteLength(text) > maxInfoBytes) throw new WebsocketGroupsError('WSG_MEMBER_INFO_TOO_LARGE')
  return JSON.parse(text) as MemberInfo
}
