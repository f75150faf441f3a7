/** How many pages the connections of the instance may read at the same time. */
const maxRunning = 32

/**
 * Limits replays: a connection reads one page at a time, however many groups it resumes, and the instance reads a few pages at once. Both
 * queues are first in, first out.
 */
export class ReplayQueue {
  /** By connection that reads a page, the work that waits for its end. */
  readonly #queues = new Map<object, Array<() => void>>()
  readonly #ready: Array<() => void> = []
  #running = 0

  /** Runs `work` when the connection and the instance may read its page. Settles as `work` does. */
  async run<Result> (connection: object, work: () => Promise<Result>): Promise<Result> {
    const queue = this.#queues.get(connection)
    if (queue === undefined) this.#queues.set(connection, [])
    else await new Promise<void>(resolve => { queue.push(resolve) })
    try {
      return await this.#limited(work)
    } finally {
      const next = this.#queues.get(connection)?.shift()
      if (next === undefined) this.#queues.delete(connection)
      else next()
    }
  }

  async #limited<Result> (work: () => Promise<Result>): Promise<Result> {
    if (this.#running === maxRunning) await new Promise<void>(resolve => { this.#ready.push(resolve) })
    else this.#running++
    try {
      return await work()
    } finally {
      const next = this.#ready.shift()
      if (next === undefined) this.#running--
      else next()
    }
  }
}
