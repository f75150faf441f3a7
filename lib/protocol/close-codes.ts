import { WebsocketGroupsError } from '../errors.ts'

/** Every close code this package sends by itself, with the reason text beside it (at most 123 bytes, RFC 6455 5.5). */
export const CloseCode = {
  Normal: 1000,
  GoingAway: 1001,
  PolicyViolation: 1008,
  InternalError: 1011,
  ServiceRestart: 1012,
  TryAgainLater: 1013,
  SlowConsumer: 4008,
  BadFrame: 4400,
  TokenExpired: 4401,
  OtherUser: 4403,
  NoHello: 4408
} as const
export type CloseCode = (typeof CloseCode)[keyof typeof CloseCode]

export const closeReasons: Readonly<Record<CloseCode, string>> = {
  [CloseCode.Normal]: '',
  [CloseCode.GoingAway]: 'server is going away',
  [CloseCode.PolicyViolation]: 'too many messages waiting',
  [CloseCode.InternalError]: 'internal error',
  [CloseCode.ServiceRestart]: 'server restarts',
  [CloseCode.TryAgainLater]: 'too many messages before the connection was ready',
  [CloseCode.SlowConsumer]: 'client reads too slowly',
  [CloseCode.BadFrame]: 'no valid frame',
  [CloseCode.TokenExpired]: 'token expired',
  [CloseCode.OtherUser]: 'token of another user',
  [CloseCode.NoHello]: 'no hello in time'
}

/** RFC 6455 7.4: what an endpoint may put into a close frame. */
export function isSendableCloseCode (code: number): boolean {
  return Number.isInteger(code) && (
    (code >= 1000 && code <= 1014 && code !== 1004 && code !== 1005 && code !== 1006) ||
    (code >= 3000 && code <= 4999)
  )
}

/** RFC 6455 5.5: a control frame carries 125 bytes, two of them are the code. */
export const maxCloseReasonBytes = 123

/** @throws {WebsocketGroupsError} WSG_CLOSE_CODE_INVALID */
export function assertClose (code: number, reason: string): void {
  if (isSendableClose(code, reason)) return
  const got = typeof reason === 'string' ? `code ${String(code)} with a reason of ${Buffer.byteLength(reason)} bytes` : `code ${String(code)} with a reason that is no string`
  throw new WebsocketGroupsError('WSG_CLOSE_CODE_INVALID', `got ${got}`)
}

export function isSendableClose (code: unknown, reason: unknown): boolean {
  return typeof code === 'number' && isSendableCloseCode(code) && typeof reason === 'string' && Buffer.byteLength(reason) <= maxCloseReasonBytes
}
