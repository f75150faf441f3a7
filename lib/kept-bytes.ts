/**
 * A copy in memory of its own, for what is kept for long. `Buffer.from` puts small copies into blocks of 8 KB that they share: one message
 * of ten bytes in a log would keep a whole block, and the limits of logs would hold for a small part of what they take.
 */
export function copyToKeep (bytes: Uint8Array): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length)
  copy.set(bytes)
  return copy
}

/** The same for a text: JavaScript keeps all of a longer text for a piece of it. */
export function textToKeep (text: string): string {
  return Buffer.from(text).toString()
}
