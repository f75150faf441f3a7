import { createHistogram } from 'node:perf_hooks'

export interface Spread { readonly p50: number, readonly p90: number, readonly p99: number, readonly max: number }

/** Times in milliseconds. The histogram counts microseconds, in little memory however many times are recorded. */
export class Times {
  readonly #histogram = createHistogram()

  get count (): number {
    return this.#histogram.count
  }

  record (ms: number): void {
    this.#histogram.record(Math.max(1, Math.round(ms * 1_000)))
  }

  /** `undefined` when nothing was recorded. */
  spread (): Spread | undefined {
    if (this.#histogram.count === 0) return undefined
    const at = (percent: number): number => this.#histogram.percentile(percent) / 1_000
    return { p50: at(50), p90: at(90), p99: at(99), max: this.#histogram.max / 1_000 }
  }
}

/** Counts reasons. Beyond the first twenty, further kinds count together. */
export class Reasons {
  readonly #counts = new Map<string, number>()
  static readonly #maxKinds = 20

  get count (): number {
    return [...this.#counts.values()].reduce((sum, count) => sum + count, 0)
  }

  add (reason: string): void {
    const kind = this.#counts.has(reason) || this.#counts.size < Reasons.#maxKinds ? reason : 'other reasons'
    this.#counts.set(kind, (this.#counts.get(kind) ?? 0) + 1)
  }

  /** All reasons, the most frequent first. */
  list (): ReadonlyArray<{ readonly reason: string, readonly count: number }> {
    return [...this.#counts].map(([reason, count]) => ({ reason, count })).sort((a, b) => b.count - a.count)
  }
}

/** The measured messages: when each was due, and who sent it. Numbers begin with 0. */
export class SentMessages {
  readonly dueAt: number[] = []
  readonly senders: number[] = []
  /** How many deliveries these messages should make: one to each member of the room but the sender. */
  due = 0

  get count (): number {
    return this.dueAt.length
  }

  /** Returns the number of the message. */
  add (dueAt: number, sender: number, recipients: number): number {
    this.senders.push(sender)
    this.due += recipients
    return this.dueAt.push(dueAt) - 1
  }
}

/** What all clients together received of the measured messages. */
export class Deliveries {
  readonly times = new Times()
  delivered = 0
  doubled = 0
  outOfOrder = 0
}

/** What one client received: which messages, and the latest one of each sender. */
export class Receptions {
  readonly #all: Deliveries
  readonly #sent: SentMessages
  readonly #latest = new Map<number, number>()
  #seen = new Uint8Array(16)

  constructor (sent: SentMessages, all: Deliveries) {
    this.#sent = sent
    this.#all = all
  }

  /** Counts message `n`, which came to client `self`. Routes may or may not send a client its own messages, so these are not counted. */
  receive (n: number, self: number): void {
    const dueAt = this.#sent.dueAt[n]
    const sender = this.#sent.senders[n]
    if (dueAt === undefined || sender === undefined || sender === self) return
    if (this.#mark(n)) {
      this.#all.doubled++
      return
    }
    this.#all.delivered++
    // Time counts from when the message was due, not from when it was sent: a pause, of the server or of this program, then counts for each
    // message that it held up.
    this.#all.times.record(performance.now() - dueAt)
    if (n < (this.#latest.get(sender) ?? -1)) this.#all.outOfOrder++
    else this.#latest.set(sender, n)
  }

  /** Returns whether the message had come before. */
  #mark (n: number): boolean {
    const at = n >> 3
    if (at >= this.#seen.length) {
      const larger = new Uint8Array(Math.max(at + 1, this.#seen.length * 2))
      larger.set(this.#seen)
      this.#seen = larger
    }
    const bits = this.#seen[at] ?? 0
    const bit = 1 << (n & 7)
    this.#seen[at] = bits | bit
    return (bits & bit) !== 0
  }
}
