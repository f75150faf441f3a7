import { WebsocketGroupsError } from '../errors.ts'
import { show } from '../options/rules.ts'
import { CloseCode } from '../protocol/close-codes.ts'

/** RFC 6455 5.5: a control frame carries 125 bytes, two of which are the code. */
export const maxCloseReasonBytes = 123

/** The reason that goes with each code of this package, unless a caller gives another one. */
export const closeReasons: Readonly<Record<CloseCode, string>> = {
  [CloseCode.Normal]: '',
  [CloseCode.GoingAway]: 'server is going away',
  [CloseCode.PolicyViolation]: 'too many messages waiting',
  [CloseCode.InternalError]: 'internal error',
  [CloseCode.ServiceRestart]: 'server restarts',
  [CloseCode.TryAgainLater]: 'too many messages before the connection was ready',
  [CloseCode.SlowConsumer]: 'client reads too slowly',
  [CloseCode.BadFrame]: 'invalid frame',
  [CloseCode.TokenExpired]: 'token expired',
  [CloseCode.OtherUser]: 'the token belongs to another user',
  [CloseCode.NoHello]: 'no hello in time'
}

/** Whether a client that the application closed with this code should come back: to another instance, or later. */
export function isForAWhile (code: number): boolean {
  return code === CloseCode.GoingAway || code === CloseCode.ServiceRestart || code === CloseCode.TryAgainLater
}

/** Whether an endpoint may put `code` into a close frame (RFC 6455 7.4). */
export function isSendableCloseCode (code: number): boolean {
  return Number.isInteger(code) && (
    (code >= 1000 && code <= 1014 && code !== 1004 && code !== 1005 && code !== 1006) ||
    (code >= 3000 && code <= 4999)
  )
}

/** Whether both fit into a close frame. */
export function isSendableClose (code: unknown, reason: unknown): boolean {
  if (typeof code !== 'number' || typeof reason !== 'string') return false
  return isSendableCloseCode(code) && Buffer.byteLength(reason) <= maxCloseReasonBytes
}

/** @throws {WebsocketGroupsError} WSG_CLOSE_CODE_INVALID */
export function assertClose (code: number, reason: string): void {
  if (isSendableClose(code, reason)) return
  const kind = typeof reason === 'string' ? `reason of ${Buffer.byteLength(reason)} bytes` : 'reason that is not a string'
  throw new WebsocketGroupsError('WSG_CLOSE_CODE_INVALID', `got code ${show(code)} with a ${kind}`)
}

/** The payload of the ping at shutdown, which no other ping has: its answer says that the client knows of the shutdown. */
export const farewell = Buffer.from('farewell')
