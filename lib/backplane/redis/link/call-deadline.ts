/** A timer that is later than this tells of a process that was busy, which gets as long again to read what came meanwhile. */
const lateMs = 10
/** One that is so late after that tells of a process that still is. */
const stillLateMs = 100

/**
 * The deadline of one call to Redis. It measures Redis, not the queue of calls before this one: it starts again where bytes came meanwhile,
 * up to a limit.
 */
export class CallDeadline {
  readonly #ms: number
  readonly #maxMs: number
  readonly #received: () => number
  readonly #missed: (tookMs: number, silent: boolean) => void
  readonly #startedAt = performance.now()
  #dueAt: number
  /** Bytes that had come when the timer was set. */
  #receivedBefore: number
  #timer: NodeJS.Timeout

  /**
   * `received`: how many bytes came on the connection so far. `maxMs`: after that long even progress does not help. `missed` is told after
   * how many milliseconds the call is given up, and whether nothing came in the latest `ms` of them.
   */
  constructor (ms: number, maxMs: number, received: () => number, missed: (tookMs: number, silent: boolean) => void) {
    this.#ms = ms
    this.#maxMs = maxMs
    this.#received = received
    this.#missed = missed
    this.#dueAt = this.#startedAt + ms
    this.#receivedBefore = received()
    this.#timer = setTimeout(() => this.#due(), ms)
  }

  stop (): void {
    clearTimeout(this.#timer)
  }

  #due (least = lateMs): void {
    // Timers come before sockets: after a stall of this process the answer may be there already, unread.
    const now = performance.now()
    const late = now - this.#dueAt
    if (late <= least || now - this.#startedAt >= this.#maxMs) return this.#over()
    const graceMs = Math.min(late, this.#ms)
    this.#dueAt = now + graceMs
    this.#timer = setTimeout(() => this.#due(stillLateMs), graceMs)
  }

  #over (): void {
    const now = performance.now()
    const received = this.#received()
    // Bytes come: this answer, or what has to be through before it. Redis works, and so does the link.
    const spentMs = now - this.#startedAt
    const silent = received === this.#receivedBefore
    if (silent || spentMs >= this.#maxMs) return this.#missed(spentMs, silent)
    this.#receivedBefore = received
    this.#dueAt = now + this.#ms
    this.#timer = setTimeout(() => this.#due(), this.#ms)
  }
}
