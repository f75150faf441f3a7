import type { Envelope } from './backplane/backplane.ts'
import type { LocalConnection } from './connection.ts'

/**
 * Writes one message to many connections; returns how many took it.
 * `stamp` is the same for all copies of a message that went to several targets, 0 for a message that went to one.
 */
export function fanOut (recipients: Iterable<LocalConnection>, envelope: Envelope, stamp: number): number {
  const { payload, binary } = envelope
  const except = envelope.except.length > 0 ? new Set(envelope.except) : undefined
  let taken = 0
  for (const connection of recipients) {
    if (except?.has(connection.id)) continue
    if (stamp > 0) {
      if (connection.multiStamp === stamp) continue
      connection.multiStamp = stamp
    }
    if (connection.write(payload, binary)) taken++
  }
  return taken
}
