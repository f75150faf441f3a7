import { BusyGrace } from '../../../deadline.ts'

/**
 * The deadline of one call to Redis. It measures whether Redis works, not how long the calls before this one take: when bytes came
 * meanwhile it starts again, up to a limit.
 */
export class CallDeadline {
  readonly #ms: number
  readonly #maxMs: number
  readonly #received: () => number
  readonly #missed: (tookMs: number, silent: boolean) => void
  readonly #startedAt = performance.now()
  #grace: BusyGrace | undefined
  #dueAt: number
  /** How many bytes had come when the timer was set. */
  #receivedBefore: number
  #timer: NodeJS.Timeout

  /**
   * `received`: how many bytes came on the connection so far. `maxMs`: after that long even progress does not help. `missed` is called when
   * the call is given up, with the milliseconds that it took, and whether no byte came in the last `ms` of them.
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

  #due (): void {
    const now = performance.now()
    const spentMs = now - this.#startedAt
    this.#grace ??= new BusyGrace()
    // By when the timer was due: this process may have been busy since then, with answers unread.
    const graceMs = this.#dueAt - this.#startedAt < this.#maxMs ? Math.min(this.#grace.after(now - this.#dueAt), this.#ms) : 0
    if (graceMs > 0) return this.#wait(graceMs)
    const received = this.#received()
    // Bytes came, of this answer or of those before it: Redis works, and so does the link.
    const silent = received === this.#receivedBefore
    if (silent || spentMs >= this.#maxMs) return this.#missed(spentMs, silent)
    this.#receivedBefore = received
    this.#grace = undefined
    this.#wait(this.#ms)
  }

  #wait (ms: number): void {
    this.#dueAt = performance.now() + ms
    this.#timer = setTimeout(() => this.#due(), ms)
  }
}
