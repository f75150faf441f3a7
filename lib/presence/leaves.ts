import type { LocalConnection } from '../connection/connection.ts'

/**
 * Leaves that are being stored and announced. A connection that comes back meanwhile may be stored sooner: its join, and a leave after
 * that, are told in their turn.
 */
export class Leaves {
  /** By connection and group: settles when the latest leave was announced; never rejects. */
  readonly #running = new Map<string, Promise<void>>()

  /** Calls `act` when no leave of the connection is under way in the group. */
  after (connection: LocalConnection, group: string, act: () => void): void {
    const running = this.#running.get(keyOf(connection, group))
    if (running === undefined) act()
    else void running.then(act)
  }

  /** Runs `tell`, which never rejects, when the leave is `stored`, or failed to be. Rejects as `stored` does. */
  async add (connection: LocalConnection, group: string, stored: Promise<void>, tell: () => Promise<void>): Promise<void> {
    const key = keyOf(connection, group)
    const leaving = Promise.allSettled([stored, this.#running.get(key)]).then(tell)
    this.#running.set(key, leaving)
    await leaving
    if (this.#running.get(key) === leaving) this.#running.delete(key)
    await stored
  }
}

function keyOf ({ id }: LocalConnection, group: string): string {
  return `${id} ${group}`
}
