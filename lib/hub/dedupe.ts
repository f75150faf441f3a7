import type { Envelope } from '../backplane/backplane.ts'
import type { LocalConnection } from '../connection/connection.ts'

const maxMessages = 1_024
const maxEntries = 100_000

/** Held weakly: a connection that closed is not kept for the messages it got. */
interface Recipients {
  readonly connections: WeakSet<LocalConnection>
  size: number
}

/**
 * Who got which of the messages that went to several groups with a log. Their copies stand in different logs and may arrive with others between them, or much
 * later, out of a repair; each connection gets one.
 */
export class MultiGroupDedupe {
  readonly #messages = new Map<string, Recipients>()
  #entries = 0

  /**
   * Those who are to be given it now. The others are told how far the group's log is. Who is still to be given older messages of the group keeps it back,
   * and may be given it through another group before that.
   */
  selectNew (recipients: Iterable<LocalConnection>, envelope: Envelope): LocalConnection[] {
    const served = this.#servedOf(envelope)
    const fresh: LocalConnection[] = []
    for (const connection of recipients) {
      if (connection.holds(envelope.target.name) || this.#enter(served, connection)) fresh.push(connection)
      else connection.passOver(envelope)
    }
    return fresh
  }

  /** Whether the connection did not get it yet. It counts as given from now on. */
  markNew (connection: LocalConnection, envelope: Envelope): boolean {
    return this.#enter(this.#servedOf(envelope), connection)
  }

  #enter (served: Recipients, connection: LocalConnection): boolean {
    if (served.connections.has(connection)) return false
    served.connections.add(connection)
    served.size++
    this.#entries++
    return true
  }

  #servedOf ({ origin, sequence }: Envelope): Recipients {
    const message = `${origin}:${sequence}`
    const known = this.#messages.get(message)
    if (known !== undefined) return known
    for (const [oldest, { size }] of this.#messages) {
      if (this.#messages.size < maxMessages && this.#entries <= maxEntries) break
      this.#messages.delete(oldest)
      this.#entries -= size
    }
    const served = { connections: new WeakSet<LocalConnection>(), size: 0 }
    this.#messages.set(message, served)
    return served
  }
}
