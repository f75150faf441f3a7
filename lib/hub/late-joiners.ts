import type { LogPosition } from '../backplane/backplane.ts'
import { BoundedMap } from '../bounded-map.ts'
import type { LocalConnection } from '../connection/connection.ts'

/** How long after a loss a publisher may store a message anew (milliseconds). */
const repeatMs = 60_000
const maxGroups = 20_000

/** `member`: the connection was in the group when the log lost messages. Otherwise it joined later, with this position, if it gave one. */
type Standing = 'member' | LogPosition | undefined

/**
 * Remembers who joined a group after its log lost messages. When a publisher stores such a message anew, those who were members at the loss
 * have it already; those who joined since lack it, unless they say that they got it elsewhere.
 */
export class LateJoiners {
  /** For each group whose log lost messages: who joined since, and which earlier members left since. */
  readonly #groups = new BoundedMap<string, WeakMap<LocalConnection, Standing>>({ maxWeight: maxGroups, maxAgeMs: repeatMs })

  /** The log of the group lost messages: all present members were members when that happened. */
  lost (group: string): void {
    this.#groups.set(group, new WeakMap())
  }

  joined (connection: LocalConnection, group: string): void {
    if (this.#groups.size === 0) return
    const standings = this.#groups.get(group)
    if (standings?.has(connection) === false) standings.set(connection, undefined)
  }

  left (connection: LocalConnection, group: string): void {
    if (this.#groups.size === 0) return
    const standings = this.#groups.get(group)
    if (standings?.has(connection) === false) standings.set(connection, 'member')
  }

  /** The connection joined, and says that it was at this position. */
  resumed (connection: LocalConnection, group: string, position: LogPosition): void {
    const standings = this.#groups.get(group)
    if (standings?.has(connection) === true && standings.get(connection) !== 'member') standings.set(connection, position)
  }

  /** Whether the connection was not given the message that stood at `place` before it was stored anew. */
  misses (connection: LocalConnection, group: string, place: LogPosition): boolean {
    const standings = this.#groups.get(group)
    if (standings?.has(connection) !== true) return false
    const standing = standings.get(connection)
    if (standing === undefined) return true
    return standing !== 'member' && (standing.epoch !== place.epoch || standing.offset < place.offset)
  }
}
