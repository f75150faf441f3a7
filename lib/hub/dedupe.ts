import type { Envelope } from '../backplane/backplane.ts'
import { BoundedMap } from '../bounded-map.ts'

/**
 * Limits how much is remembered, counted in connections that were given a message; each message counts as `messageWeight` further
 * connections, because it takes that much memory (300 bytes). A client that comes back to groups of several partitions may have missed
 * thousands of messages that went to more than one of them: it gets them from one log after another.
 */
const maxWeight = 200_000
const messageWeight = 16

/** Numbers of connections, so that no closed connection is kept in memory. */
type Recipients = Set<number>

/**
 * Remembers which connections were given which of the messages that went to several groups. The copies of such a message arrive on
 * different channels: with other messages between them, from different servers, or much later, when a log is repaired. Each connection gets
 * only one copy.
 */
export class MultiGroupDedupe {
  /** Copies from logs may come late. They have a map of their own, so that volatile messages do not push them out. */
  readonly #logged = newRecipientsMap()
  readonly #volatile = newRecipientsMap()

  /** The numbers of the connections that were given the message so far. Whoever adds to them calls `record`. */
  recipientsOf (envelope: Envelope): Recipients {
    const key = keyOf(envelope)
    return this.#logged.get(key) ?? this.#volatile.get(key) ?? new Set()
  }

  /** Remembers who was given the message. */
  record (envelope: Envelope, recipients: Recipients): void {
    const key = keyOf(envelope)
    // A message may go to groups with a log and to groups without one.
    const logged = envelope.position !== undefined || this.#logged.has(key)
    if (logged) this.#volatile.delete(key)
    const map = logged ? this.#logged : this.#volatile
    map.set(key, recipients)
  }

  /** Marks the message as given to the connection. Returns whether it is new to the connection. */
  markNew (connection: { readonly number: number }, envelope: Envelope): boolean {
    const recipients = this.recipientsOf(envelope)
    if (recipients.has(connection.number)) return false
    this.record(envelope, recipients.add(connection.number))
    return true
  }
}

function newRecipientsMap (): BoundedMap<string, Recipients> {
  return new BoundedMap({ maxWeight, weigh: ({ size }) => messageWeight + size })
}

function keyOf ({ origin, sequence }: Envelope): string {
  return `${origin}:${sequence}`
}
