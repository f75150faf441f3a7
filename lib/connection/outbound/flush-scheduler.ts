import type { FastifyBaseLogger } from 'fastify'
import type { ResolvedLimits } from '../../options/limits.ts'
import { logEvent } from '../../logging.ts'
import type { Metrics } from '../../metrics.ts'
import { HeldBytes } from './held-bytes.ts'
import type { Deflate, Encoding } from './ws-frame.ts'

interface OutboundLimits {
  /** A connection with more bytes waiting is slow, and gets no volatile messages. */
  readonly slowBufferedBytes: number
  /** A connection with more bytes waiting is closed. */
  readonly maxBufferedBytes: number
  /** How long frames wait for others to share their write (milliseconds); 0 for not at all. */
  readonly flushIntervalMs: number
  readonly limits: Pick<ResolvedLimits, 'bufferedBytes'>
}

/** A socket that has frames to be written. */
export interface Flushable { flushScheduled (): void }

/** A writer far behind, which can be given up for the sake of the others. */
export interface SlowWriter { giveUp (): void }

/** A client is not read while this part of `maxBufferedBytes` waits for it. */
const backlogShare = 0.25
/** When this part of `limits.bufferedBytes` waits for slow clients, less may wait for each. */
const crowdedShare = 1 / 16
/** How long sockets that were given up take to free what waited for them (milliseconds). */
const freeingMs = 20

/** How long sockets are written to before the event loop may do something else. A write is a system call: 10,000 of them take 100 ms. */
const sliceMs = 5
/**
 * After a pass over the sockets the next pass begins no sooner than the pass took, or this many milliseconds: with messages coming all the
 * time, half of the event loop is left to others, and twice as much goes out in one write. Messages that come singly do not wait.
 */
const maxPauseMs = 5
/** The clock is looked at after this many writes. */
const clockEvery = 16

/** The connections of an instance that have frames to write. Each is written to once, with all that came for it meanwhile. */
export class FlushScheduler {
  readonly limits: OutboundLimits
  readonly slowBytes: number
  readonly metrics: Metrics
  /** Connections over `slowBufferedBytes`, and how much waited for each when it was last written to. */
  readonly slow = new Map<SlowWriter, number>()
  /** What waits for all slow connections. */
  readonly held: HeldBytes
  #givenUpAt = -Infinity
  readonly #encodings = new Map<string, Encoding>()
  readonly #log: FastifyBaseLogger
  #warned = false
  #waiting: Flushable[] = []
  /** The sockets of the pass that runs; `#next` is the index of the next one. */
  #pass: Flushable[] = []
  #next = 0
  #passMs = 0
  #pausedUntil = 0
  #busy = false
  readonly #flush = (): void => this.#write()

  constructor (limits: OutboundLimits, metrics: Metrics, log: FastifyBaseLogger) {
    this.limits = limits
    this.slowBytes = Math.min(limits.slowBufferedBytes, limits.maxBufferedBytes)
    this.held = new HeldBytes(this.slowBytes)
    this.metrics = metrics
    this.#log = log
  }

  /** How much may wait for a client that sends messages of its own, or catches up (bytes). */
  get maxBacklogBytes (): number {
    return this.#isCrowded ? this.slowBytes : this.limits.maxBufferedBytes * backlogShare
  }

  get #isCrowded (): boolean {
    return this.held.total > (this.limits.limits.bufferedBytes ?? Infinity) * crowdedShare
  }

  /** Notes how much waits for a slow connection. While all slow ones together have too much, those furthest behind are given up. */
  noteBacklog (writer: SlowWriter, bytes: number): void {
    this.slow.set(writer, bytes)
    let excess = this.held.total - (this.limits.limits.bufferedBytes ?? Infinity)
    if (excess <= 0 || performance.now() - this.#givenUpAt < freeingMs) return
    this.#givenUpAt = performance.now()
    for (; excess > 0 && this.slow.size > 0; excess -= this.#giveUpFurthest());
  }

  /** Returns how much waited for it. */
  #giveUpFurthest (): number {
    let [furthest, most]: [SlowWriter | undefined, number] = [undefined, -1]
    for (const [one, waiting] of this.slow) if (waiting > most) [furthest, most] = [one, waiting]
    if (furthest !== undefined) this.slow.delete(furthest)
    furthest?.giveUp()
    return most
  }

  /** The connection is no longer slow, or is gone. */
  forgetBacklog (writer: SlowWriter): void {
    this.slow.delete(writer)
  }

  /** Warns, once, that connections have to write each message by itself. */
  warnUnsupportedWs (): void {
    if (this.#warned) return
    this.#warned = true
    logEvent(this.#log, 'ws_unknown')
  }

  /** Returns the same object for the same arguments. */
  encoding (framed: boolean, deflate: Deflate | undefined, json = false): Encoding {
    const kind = json ? 'json' : String(framed)
    const key = deflate === undefined ? kind : `${kind} ${deflate.windowBits} ${deflate.threshold}`
    let encoding = this.#encodings.get(key)
    if (encoding === undefined) this.#encodings.set(key, encoding = { framed, json, deflate })
    return encoding
  }

  /** Call when a socket gets its first frame since it was last written to. */
  add (writer: Flushable): void {
    this.#waiting.push(writer)
    if (!this.#busy) this.#begin()
  }

  #begin (): void {
    this.#busy = true
    const waitMs = Math.max(this.limits.flushIntervalMs, Math.round(this.#pausedUntil - performance.now()))
    // Even without a wait this runs after all sockets were read, that of Redis too: what they brought goes out together.
    if (waitMs > 0) setTimeout(this.#flush, waitMs)
    else setImmediate(this.#flush)
  }

  /**
   * Writes to all that wait, in slices. A socket that gets frames meanwhile is for the next pass: the more there is to do, the more goes
   * out in one write.
   */
  #write (): void {
    if (this.#pass.length === 0) [this.#pass, this.#waiting] = [this.#waiting, []]
    const pass = this.#pass
    const startedAt = performance.now()
    try {
      while (this.#next < pass.length) {
        pass[this.#next++]?.flushScheduled()
        if (this.#next % clockEvery === 0 && performance.now() - startedAt > sliceMs) break
      }
    } finally {
      // Even when a stream throws: the others are still to be written to.
      this.#goOn(startedAt)
    }
  }

  #goOn (startedAt: number): void {
    const now = performance.now()
    this.#passMs += now - startedAt
    if (this.#next < this.#pass.length) {
      setImmediate(this.#flush)
      return
    }
    this.#pausedUntil = now + Math.min(this.#passMs, maxPauseMs)
    this.#pass = []
    this.#next = 0
    this.#passMs = 0
    this.#busy = this.#waiting.length > 0
    if (this.#busy) this.#begin()
  }
}
