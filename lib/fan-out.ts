import type { Envelope } from './backplane/backplane.ts'
import type { LocalConnection } from './connection.ts'
import { messageFrame } from './framed/envelope-frame.ts'
import { isExcepted } from './sender.ts'

/**
 * Writes one message to many connections; returns how many took it.
 * `stamp` is the same for all copies of a message that went to several targets, 0 for a message that went to one.
 */
export function fanOut (recipients: Iterable<LocalConnection>, envelope: Envelope, stamp: number): number {
  const { payload, binary } = envelope
  const except = envelope.except.length > 0 ? new Set(envelope.except) : undefined
  let frame: Buffer | undefined
  let taken = 0
  for (const connection of recipients) {
    const excepted = except !== undefined && isExcepted(connection, except)
    if (stamp > 0 && !excepted) {
      if (connection.multiStamp === stamp) continue
      connection.multiStamp = stamp
    }
    // What it missed comes first. An excepted one waits too: how far the log is must not be said before what came earlier.
    if (connection.held !== undefined && connection.hold(envelope)) continue
    if (excepted) connection.passOver(envelope)
    else if (connection.framed ? connection.writeFrame(frame ??= messageFrame(envelope)) : connection.write(payload, binary)) taken++
  }
  return taken
}
