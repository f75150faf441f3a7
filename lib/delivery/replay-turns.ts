/** Pages that are under way for all connections of the instance together. */
const maxRunning = 32

/**
 * Shares out what replays may do: a connection reads one page at a time, however many groups it resumes, and of all connections of the
 * instance a few have their turn at once. Both go in the order in which they asked.
 */
export class ReplayTurns {
  /** Those that wait behind the one whose turn it is, by connection. */
  readonly #queues = new Map<object, Array<() => void>>()
  readonly #ready: Array<() => void> = []
  #running = 0

  /** Runs `work` when it is its turn. Settles as `work` does. */
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
