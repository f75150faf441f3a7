import type { Envelope } from './backplane/backplane.ts'
import type { LocalConnection } from './connection/connection.ts'
import { OutboundMessage } from './connection/outbound/message.ts'
import { isExcepted } from './delivery/envelopes.ts'

/**
 * Gives one message to many connections; returns how many took it. It is written with all else that comes for them in this turn of the event loop.
 * `stamp` is the same for all copies of a message that went to several targets, 0 for a message that went to one.
 */
export function fanOut (recipients: Iterable<LocalConnection>, envelope: Envelope, stamp: number): number {
  const except = envelope.except.length > 0 ? new Set(envelope.except) : undefined
  const outgoing = OutboundMessage.ofEnvelope(envelope)
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
    else if (connection.outbound.enqueueShared(outgoing)) taken++
  }
  return taken
}
