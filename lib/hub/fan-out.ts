import type { Envelope } from '../backplane/backplane.ts'
import type { LocalConnection } from '../connection/connection.ts'
import { OutboundMessage } from '../connection/outbound/message.ts'
import type { Exclusion } from './exclusion.ts'
import type { LocalMember } from './local-member.ts'

/*
 * The fan-out: one message to many connections, encoded once for all of them and written together with everything else that each of them
 * gets in this turn of the event loop. Nothing is looked up and nothing is allocated per recipient.
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
    // The member joined after the message was sent. It does not count as given either: the member may be owed a copy from a log.
    if (heldSince !== undefined && member.member.joinedAt > heldSince) continue
    // A member that holds the message back does not have it yet, and may get it sooner through another group.
    if (given !== undefined && !member.holding) {
      if (given.has(connection.number)) {
        // A client that came back ahead of this instance must not be told a position that it has already passed.
        if (member.holdback === undefined || !member.hold(envelope)) member.passOver(envelope)
        continue
      }
      given.add(connection.number)
    }
    // Hold it back for an excluded member, too: the client must get all earlier messages before it is told a later position.
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
