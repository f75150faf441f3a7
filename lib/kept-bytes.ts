/**
 * Copies bytes that are kept for a long time into memory of their own. `Buffer.from` puts small copies into shared blocks of 8 KB: one
 * message of ten bytes in a log would keep a whole block, and the limits of logs would cover only a small part of the memory that logs
 * take.
 */
export function copyToKeep (bytes: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length)
  copy.set(bytes)
  return copy
}

/** Does the same for a string: JavaScript keeps a long string in memory as long as a piece of it is in use. */
export function textToKeep (text: string): string {
  return Buffer.from(text).toString()
}
