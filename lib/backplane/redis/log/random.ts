import { randomFillSync } from 'node:crypto'

const pool = Buffer.allocUnsafe(8_192)
let used = pool.length

/** Random bytes, drawn many at once from the system: one by one they cost as much as the rest of an append. */
export function randomBytesOf (size: number): Buffer {
  if (used + size > pool.length) {
    randomFillSync(pool)
    used = 0
  }
  used += size
  return Buffer.from(pool.subarray(used - size, used))
}

/** The nonce of a message; 0 stands for "no message" and is never drawn. */
export function randomNonce (): Buffer {
  const nonce = randomBytesOf(4)
  if (nonce.readUInt32BE() === 0) nonce[3] = 1
  return nonce
}
