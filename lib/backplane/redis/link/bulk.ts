import { ReceiveRate } from './receive-rate.ts'

/** How many bytes all bulk reads of a link may have under way together: at most, and at least, however slow the link is. */
const maxBytes = 262_144
const minBytes = 4_096
const maxReads = 64
const firstReads = 4
/** A large answer. From here on two reads are under way, so that the link is in use while the answer to the last one is handled. */
const largeBytes = 16_384
/** How long bulk reads may hold up other calls, beyond a few round trips (milliseconds). */
const targetMs = 2
/** On a link that brings less than `slowRate` (bytes per millisecond: 20 Mbit/s), answers are so small that each takes `slowMs`. */
const slowRate = 2_500
const slowMs = 4
/** How often one answer may have `trialBytes` there, to find out whether the link is still slow (milliseconds). */
const trialMs = 1_000
const trialBytes = 2 * largeBytes

/** The size of one answer. */
interface BulkSize {
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
  /** How long this process had nothing to do (milliseconds). While it is busy, answers are late on any link. */
  readonly #idleMs: () => number
  /** Is told of all that comes on the connection for bulk reads. */
  readonly rate: ReceiveRate
  readonly #waiting: Waiter[] = []
  #running = 0
  #alone = false
  #bytes = maxBytes
  #reads = firstReads
  /**
   * The quickest answer since the link was opened (milliseconds): about the round trip to Redis, or longer while all were large or Redis
   * is busy. Small calls would tell the round trip, but then a busy Redis looks like a slow link, and reads get far too small for it.
   */
  #roundTripMs = Infinity
  /** The latest answer was large, or only a part. */
  #large = false
  /** When an answer could last be large on a slow link. */
  #triedAt = -Infinity
  #count = 0
  #total = 0
  #failed = 0

  constructor (now?: () => number) {
    this.#now = now ?? (() => performance.now())
    this.#idleMs = now ?? (() => performance.eventLoopUtilization().idle)
    this.rate = new ReceiveRate(this.#idleMs, largeBytes)
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
    this.rate.reset()
  }

  /**
   * Runs `read` in its turn, and tells it how many bytes its answer may have. `alone`: no other bulk read is under way meanwhile, for an
   * answer that may be larger. Settles as `read` does.
   */
  async read<Answer> (read: (bytes: number) => Promise<Answer>, sizeOf: (answer: Answer) => BulkSize, alone = false): Promise<Answer> {
    await this.#turn(alone)
    const [startedAt, idleBefore] = [this.#now(), this.#idleMs()]
    try {
      const allowed = this.#tries() ? Math.min(this.#bytes, trialBytes) : this.#allowed
      const answer = await read(alone ? allowed : Math.floor(allowed / this.#reads))
      this.#roundTripMs = Math.min(this.#roundTripMs, this.#now() - startedAt)
      this.#succeeded(sizeOf(answer), this.#idleMs() - idleBefore, alone)
      return answer
    } catch (error) {
      this.#failed++
      this.#bytes = Math.max(minBytes, this.#bytes / 2)
      this.#reads = this.#minReads
      throw error
    } finally {
      this.rate.answered()
      this.#running--
      this.#alone = false
      this.#next()
    }
  }

  /** How many bytes may be under way. */
  get #allowed (): number {
    const { estimate } = this.rate
    return estimate > slowRate ? this.#bytes : Math.min(this.#bytes, Math.max(minBytes, estimate * slowMs))
  }

  /** Whether the next answer may be large on a slow link. */
  #tries (): boolean {
    const now = this.#now()
    if (this.rate.estimate > slowRate || now - this.#triedAt < trialMs) return false
    this.#triedAt = now
    return true
  }

  get #minReads (): number {
    return this.#allowed < largeBytes ? 1 : 2
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

  #succeeded ({ bytes, full }: BulkSize, waitedMs: number, alone: boolean): void {
    this.#count++
    this.#total += bytes
    this.#large = full || bytes >= largeBytes
    // Many small answers may be under way together, but few large ones.
    if (!alone) this.#reads = full ? Math.max(this.#minReads, this.#reads >> 1) : Math.min(maxReads, this.#reads + 1)
    const allowedMs = targetMs + 4 * this.#roundTripMs
    if (waitedMs > 2 * allowedMs) this.#bytes = Math.max(minBytes, this.#bytes * 0.75)
    else if (waitedMs < allowedMs) this.#bytes = Math.min(maxBytes, this.#bytes * 1.25)
  }
}
