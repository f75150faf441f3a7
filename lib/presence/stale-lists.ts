/** Stale lists are read within this time (milliseconds), at random: not by all instances at once. */
const spreadMs = 1_000
/** How many groups are read at the same time. */
const groupsAtOnce = 8
const minRetryMs = 1_000
const maxRetryMs = 60_000

/**
 * Reads the member lists again that may be wrong: events were missed, or an earlier read failed. However many reasons there are, a group is
 * read about twice a second at most.
 */
export class StaleLists {
  readonly #read: (group: string) => Promise<void>
  readonly #groups = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  /** When the timer is due, by `performance.now()`. */
  #dueAt = Infinity
  #retryMs = minRetryMs
  #failed = false
  #closed = false

  /** `read` reads the list of a group; it never rejects, and calls `retry` where that failed. */
  constructor (read: (group: string) => Promise<void>) {
    this.#read = read
  }

  /** Reads the lists of these groups soon. */
  add (groups: Iterable<string>): void {
    for (const group of groups) this.#groups.add(group)
    this.#arm(spreadMs * (1 + Math.random()) / 2)
  }

  /** The list could not be read: tries again, later and later as long as nothing can be read. */
  retry (group: string): void {
    this.#groups.add(group)
    if (!this.#failed) this.#retryMs = Math.min(2 * this.#retryMs, maxRetryMs)
    this.#failed = true
    this.#arm(this.#retryMs)
  }

  close (): void {
    this.#closed = true
    clearTimeout(this.#timer)
    this.#groups.clear()
  }

  #arm (delayMs: number): void {
    const dueAt = performance.now() + delayMs
    if (this.#closed || this.#groups.size === 0 || dueAt >= this.#dueAt) return
    clearTimeout(this.#timer)
    this.#dueAt = dueAt
    this.#timer = setTimeout(() => { void this.#readAll() }, delayMs).unref()
  }

  async #readAll (): Promise<void> {
    const groups = [...this.#groups]
    this.#groups.clear()
    this.#dueAt = Infinity
    this.#failed = false
    for (let start = 0; start < groups.length; start += groupsAtOnce) {
      await Promise.all(groups.slice(start, start + groupsAtOnce).map(this.#read))
    }
    if (!this.#failed) this.#retryMs = minRetryMs
  }
}
