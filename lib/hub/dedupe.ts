import type { Envelope } from '../backplane/backplane.ts'
import { BoundedMap } from '../bounded-map.ts'

/** In connections that were given a message; each message counts as many as `messageWeight` on top. */
const maxWeight = 200_000
const messageWeight = 100

/** Numbers of connections: a connection that closed is not kept for the messages it got. */
type Recipients = Set<number>

/**
 * Who was given which of the messages that went to several groups. The copies of such a message come by different channels: with other messages between
 * them, from different servers, or much later, out of the repair of a log. Each connection gets one of them.
 */
export class MultiGroupDedupe {
  /** Copies from logs may come late. They have a room of their own, so that volatile messages do not push them out. */
  readonly #logged = newRoom()
  readonly #volatile = newRoom()

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
    const room = logged ? this.#logged : this.#volatile
    room.set(key, recipients)
  }

  /** Marks the message as given to the connection. Returns whether it is new to the connection. */
  markNew (connection: { readonly number: number }, envelope: Envelope): boolean {
    const recipients = this.recipientsOf(envelope)
    if (recipients.has(connection.number)) return false
    this.record(envelope, recipients.add(connection.number))
    return true
  }
}

function newRoom (): BoundedMap<string, Recipients> {
  return new BoundedMap({ maxWeight, weigh: ({ size }) => messageWeight + size })
}

function keyOf ({ origin, sequence }: Envelope): string {
  return `${origin}:${sequence}`
}
