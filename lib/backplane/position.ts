import { WebsocketGroupsError } from '../errors.ts'
import { positionPattern } from '../protocol/frames.ts'
import type { LogPosition } from './backplane.ts'

/** Epoch (8 bytes), offset (6), nonce (4): 24 characters, opaque to everybody outside this package. */
const bytesPerPosition = 18
const epochBytes = 8

/** The position before the first message of any log: where a reader is that has seen no message yet. */
export const logStart: LogPosition = { epoch: '', offset: 0, nonce: 0 }

export function formatPosition ({ epoch, offset, nonce }: LogPosition): string {
  const bytes = Buffer.alloc(bytesPerPosition)
  bytes.write(epoch, 'latin1')
  bytes.writeUIntBE(offset, epochBytes, 6)
  bytes.writeUInt32BE(nonce, 14)
  return bytes.toString('base64url')
}

/** Returns `undefined` for anything that does not have the form of a position. */
export function parsePosition (text: unknown): LogPosition | undefined {
  if (typeof text !== 'string' || !positionPattern.test(text)) return undefined
  const bytes = Buffer.from(text, 'base64url')
  const epoch = bytes.toString('latin1', 0, epochBytes)
  // The other bytes may be a seal: see `formatSealedStart`.
  if (epoch === '\0'.repeat(epochBytes)) return logStart
  return { epoch, offset: bytes.readUIntBE(epochBytes, 6), nonce: bytes.readUInt32BE(14) }
}

export function samePosition (a: LogPosition, b: LogPosition): boolean {
  return a.offset === b.offset && a.nonce === b.nonce && a.epoch === b.epoch
}

/**
 * Compares two positions of one group, as `Array.prototype.sort` wants it: negative when `a` comes first. The beginning of a log comes
 * before all others.
 * @throws {WebsocketGroupsError} WSG_POSITION_INVALID for anything but positions, and for positions of different logs
 */
export function comparePositions (a: string, b: string): number {
  const [first, second] = [parsePosition(a), parsePosition(b)]
  if (first === undefined || second === undefined) throw new WebsocketGroupsError('WSG_POSITION_INVALID')
  if (first.epoch !== second.epoch && !isLogStart(first) && !isLogStart(second)) {
    const detail = 'the positions are of different logs: of two groups, or of a log that began anew'
    throw new WebsocketGroupsError('WSG_POSITION_INVALID', detail)
  }
  return Math.sign(first.offset - second.offset)
}

/** Whether the position is the beginning of a log. */
export function isLogStart ({ epoch }: LogPosition): boolean {
  return epoch === ''
}

/**
 * Formats the beginning of a log, with a seal in the bytes where other positions have offset and nonce. Readers that know nothing of seals
 * ignore these bytes.
 */
export function formatSealedStart (seal: Buffer): string {
  const bytes = Buffer.alloc(bytesPerPosition)
  seal.copy(bytes, epochBytes, 0, bytesPerPosition - epochBytes)
  return bytes.toString('base64url')
}

/** Returns the seal of a beginning; `undefined` for other positions. */
export function sealOf (text: string): Buffer | undefined {
  const position = parsePosition(text)
  return position === undefined || !isLogStart(position) ? undefined : Buffer.from(text, 'base64url').subarray(epochBytes)
}
