import type { Envelope, LogPosition } from './backplane/backplane.ts'
import type { LocalConnection } from './connection.ts'

const maxMessages = 1_024
const maxEntries = 100_000

/**
 * Who got which of the messages that went to several groups with a log. Their copies stand in different logs and may arrive with others between them, or much
 * later, out of a repair; each connection gets one.
 */
export class Served {
  readonly #messages = new Map<string, Set<LocalConnection>>()
  #entries = 0

  /** Those who did not get it yet. The others are told how far the group's log is. */
  fresh (recipients: Iterable<LocalConnection>, { origin, sequence, target }: Envelope, position: LogPosition): LocalConnection[] {
    const served = this.#servedOf(`${origin}:${sequence}`)
    const fresh: LocalConnection[] = []
    for (const connection of recipients) {
      if (served.has(connection)) {
        connection.announcePosition(target.name, position)
        continue
      }
      served.add(connection)
      this.#entries++
      fresh.push(connection)
    }
    return fresh
  }

  #servedOf (message: string): Set<LocalConnection> {
    const known = this.#messages.get(message)
    if (known !== undefined) return known
    const served = new Set<LocalConnection>()
    this.#messages.set(message, served)
    for (const [oldest, { size }] of this.#messages) {
      if (this.#messages.size <= maxMessages && this.#entries <= maxEntries) break
      this.#messages.delete(oldest)
      this.#entries -= size
    }
    return served
  }
}
