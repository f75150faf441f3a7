/** How many bytes all bulk reads of a link may have under way together: at most, and at least, however slow the link is. */
const maxBytes = 262_144
const minBytes = 16_384
const maxReads = 64
/** Two, so that the link is in use while the answer to the last read is handled. */
const minReads = 2
const firstReads = 4
/** How long other calls may wait behind bulk reads, beyond a few round trips (milliseconds). */
const targetMs = 10

/** The size of one answer. */
export interface BulkSize {
  readonly bytes: number
  /** Whether the answer is only a part, because it reached its limit of bytes. */
  readonly full: boolean
}

interface Waiter {
  readonly alone: boolean
  start (): void
}

/**
 * Lets bulk reads (pages of logs, lists of members, texts of streams) onto a link a few at a time, in the order they were asked for. The
 * bytes under way together are limited, so that appends, beats and joins on the same link never wait behind more than that. On a slow link
 * the limit shrinks.
 */
export class BulkReads {
  readonly #now: () => number
  readonly #waiting: Waiter[] = []
  #running = 0
  #alone = false
  #bytes = maxBytes
  #reads = firstReads
  /** The quickest answer since the link was opened: about the round trip to Redis (milliseconds). */
  #roundTripMs = Infinity
  /** The latest answer was large, or only a part. */
  #large = false
  #count = 0
  #total = 0
  #failed = 0

  constructor (now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** Whether there is more to read than a few small answers. */
  get much (): boolean {
    return this.#large || this.#waiting.length > 0
  }

  stats (): Record<string, number> {
    return { bulkReads: this.#count, bulkBytes: this.#total, bulkReadsWaiting: this.#waiting.length, bulkReadsFailed: this.#failed }
  }

  /** The link was opened again: it may lead to another server, over another network. */
  reset (): void {
    this.#roundTripMs = Infinity
  }

  /**
   * Runs `read` in its turn, and tells it how many bytes its answer may have. `alone`: no other bulk read is under way meanwhile, for an
   * answer that may be larger. Settles as `read` does.
   */
  async read<Answer> (read: (bytes: number) => Promise<Answer>, sizeOf: (answer: Answer) => BulkSize, alone = false): Promise<Answer> {
    await this.#turn(alone)
    const startedAt = this.#now()
    try {
      const answer = await read(alone ? this.#bytes : Math.floor(this.#bytes / this.#reads))
      this.#succeeded(sizeOf(answer), this.#now() - startedAt, alone)
      return answer
    } catch (error) {
      this.#failed++
      this.#bytes = Math.max(minBytes, this.#bytes / 2)
      this.#reads = minReads
      throw error
    } finally {
      this.#running--
      this.#alone = false
      this.#next()
    }
  }

  async #turn (alone: boolean): Promise<void> {
    await new Promise<void>(resolve => {
      this.#waiting.push({ alone, start: resolve })
      this.#next()
    })
  }

  #next (): void {
    while (!this.#alone) {
      const [first] = this.#waiting
      if (first === undefined || this.#running >= (first.alone ? 1 : this.#reads)) return
      this.#waiting.shift()
      this.#running++
      this.#alone = first.alone
      first.start()
    }
  }

  #succeeded ({ bytes, full }: BulkSize, tookMs: number, alone: boolean): void {
    this.#count++
    this.#total += bytes
    this.#large = full || bytes >= minBytes
    // Many small answers may be under way together, but few large ones.
    if (!alone) this.#reads = full ? Math.max(minReads, this.#reads >> 1) : Math.min(maxReads, this.#reads + 1)
    this.#roundTripMs = Math.min(this.#roundTripMs, tookMs)
    const allowedMs = targetMs + 4 * this.#roundTripMs
    if (tookMs > 2 * allowedMs) this.#bytes = Math.max(minBytes, this.#bytes * 0.75)
    else if (tookMs < allowedMs) this.#bytes = Math.min(maxBytes, this.#bytes * 1.25)
  }
}
