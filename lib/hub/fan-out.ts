import type { Envelope } from '../backplane/backplane.ts'
import type { LocalConnection } from '../connection/connection.ts'
import { OutboundMessage } from '../connection/outbound/message.ts'
import type { Exclusion } from './exclusion.ts'
import type { LocalMember } from './local-member.ts'

/*
 * The fan-out: one message to many connections, encoded once for all of them and written with all else that comes for each in this turn of
 * the event loop. Nothing is looked up and nothing is allocated per recipient.
 */

/**
 * Gives the message to the members, except to those whom `excludes` names. Returns how many took it.
 * `given`: numbers of the connections that got another copy of the message; those that get this one are added.
 */
export function giveToMembers (
  members: Iterable<LocalMember>, envelope: Envelope, given: Set<number> | undefined, excludes: Exclusion<LocalConnection> | undefined
): number {
  const outgoing = OutboundMessage.ofEnvelope(envelope)
  const { heldSince } = envelope
  let taken = 0
  for (const member of members) {
    const { connection } = member
    // Nor does it count as given: the copy in a log, which the member may be owed, may come yet.
    if (heldSince !== undefined && member.member.joinedAt > heldSince) continue
    // A member that holds the message back does not have it yet, and may get it sooner through another group.
    if (given !== undefined && !member.holding) {
      if (given.has(connection.number)) {
        // A client that came back ahead of this instance must not be told of a position that it is past.
        if (member.holdback === undefined || !member.hold(envelope)) member.passOver(envelope)
        continue
      }
      given.add(connection.number)
    }
    // For an excluded member too: its client must not be told how far the log is before it got what came earlier.
    if (member.holdback !== undefined && member.hold(envelope)) continue
    if (excludes !== undefined && excludes(connection)) member.passOver(envelope)
    else if (connection.outbound.enqueueShared(outgoing)) taken++
  }
  return taken
}

/** Gives the message to the connections, except to those whom `excludes` names. Returns how many took it. */
export function giveToConnections (
  connections: Iterable<LocalConnection>, envelope: Envelope, excludes: Exclusion<LocalConnection> | undefined
): number {
  const outgoing = OutboundMessage.ofEnvelope(envelope)
  let taken = 0
  for (const connection of connections) {
    if (excludes !== undefined && excludes(connection)) continue
    if (connection.outbound.enqueueShared(outgoing)) taken++
  }
  return taken
}
