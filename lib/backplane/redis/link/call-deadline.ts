/**
 * A timer that is later than this tells of a process that was busy, which gets as long again, up to a limit, to read what came meanwhile.
 */
const lateMs = 10
const maxGraceMs = 100

/** What decides on the call when its deadline is over. */
export interface CallDeadlineEvents {
  /** Whether the call may wait on while bytes come. */
  readonly mayGoOn: () => boolean
  /** The call is given up, after this many milliseconds. */
  readonly missed: (tookMs: number) => void
}

/** The deadline of one call to Redis, which starts again where bytes came meanwhile and the call may wait on. */
export class CallDeadline {
  readonly #ms: number
  readonly #maxMs: number
  readonly #received: () => number
  readonly #events: CallDeadlineEvents
  readonly #startedAt = performance.now()
  #dueAt: number
  /** Bytes that had come when the timer was set. */
  #receivedBefore: number
  #timer: NodeJS.Timeout

  /** `received`: how many bytes came on the connection so far. `maxMs`: after that long even progress does not help. */
  constructor (ms: number, maxMs: number, received: () => number, events: CallDeadlineEvents) {
    this.#ms = ms
    this.#maxMs = maxMs
    this.#received = received
    this.#events = events
    this.#dueAt = this.#startedAt + ms
    this.#receivedBefore = received()
    this.#timer = setTimeout(() => this.#due(), ms)
  }

  stop (): void {
    clearTimeout(this.#timer)
  }

  #due (): void {
    // Timers come before sockets: after a stall of this process the answer may be there already, unread.
    const late = performance.now() - this.#dueAt
    if (late > lateMs) this.#timer = setTimeout(() => this.#over(), Math.min(late, maxGraceMs))
    else this.#over()
  }

  #over (): void {
    const now = performance.now()
    const received = this.#received()
    // Bytes come: this answer, or what has to be through before it. Redis works, and so does the link.
    const spentMs = now - this.#startedAt
    if (received === this.#receivedBefore || spentMs >= this.#maxMs || !this.#events.mayGoOn()) return this.#events.missed(spentMs)
    this.#receivedBefore = received
    this.#dueAt = now + this.#ms
    this.#timer = setTimeout(() => this.#due(), this.#ms)
  }
}
