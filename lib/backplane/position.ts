import { positionPattern } from '../protocol/frames.ts'
import type { LogPosition } from './backplane.ts'

/** Epoch (8 bytes), offset (6), nonce (4): 24 characters, opaque to everyone outside. */
const bytesPerPosition = 18

/** Before the first message of whatever log comes: what a reader holds that has seen none. */
export const logStart: LogPosition = { epoch: '', offset: 0, nonce: 0 }

export function formatPosition ({ epoch, offset, nonce }: LogPosition): string {
  const bytes = Buffer.alloc(bytesPerPosition)
  bytes.write(epoch, 'latin1')
  bytes.writeUIntBE(offset, 8, 6)
  bytes.writeUInt32BE(nonce, 14)
  return bytes.toString('base64url')
}

/** Returns `undefined` for anything that `formatPosition` did not make. */
export function parsePosition (text: unknown): LogPosition | undefined {
  if (typeof text !== 'string' || !positionPattern.test(text)) return undefined
  const bytes = Buffer.from(text, 'base64url')
  const epoch = bytes.toString('latin1', 0, 8)
  return { epoch: epoch === '\0'.repeat(8) ? '' : epoch, offset: bytes.readUIntBE(8, 6), nonce: bytes.readUInt32BE(14) }
}

export function samePosition (a: LogPosition, b: LogPosition): boolean {
  return a.offset === b.offset && a.nonce === b.nonce && a.epoch === b.epoch
}
