import type { FastifyBaseLogger } from 'fastify'
import type { Metrics } from '../metrics.ts'
import type { Deflate, Encoding } from './encode.ts'

export interface OutboundLimits {
  /** A connection with more than this waiting is slow: what may be left out is. */
  readonly slowBufferedBytes: number
  /** A connection with more than this waiting is closed. */
  readonly maxBufferedBytes: number
  /** Milliseconds that frames wait for more of them, 0 for none. */
  readonly flushIntervalMs: number
}

/** Has frames for one socket. */
export interface Writer { turn (): void }

/** How long sockets are written to before the event loop may do something else. A write is a system call: 10,000 of them take 100 ms. */
const sliceMs = 5
/** How often the clock is looked at. */
const clockEvery = 16

/** The connections of an instance that have frames to write. Each is written to once, with all that came for it meanwhile. */
export class Outbox {
  readonly limits: OutboundLimits
  readonly slowBytes: number
  readonly metrics: Metrics
  /** Connections over `slowBufferedBytes`. */
  readonly slow = new Set<Writer>()
  readonly #encodings = new Map<string, Encoding>()
  readonly #log: () => FastifyBaseLogger
  #warned = false
  #waiting: Writer[] = []
  #next = 0
  #scheduled = false
  readonly #flush = (): void => this.#write()

  constructor (limits: OutboundLimits, metrics: Metrics, log: () => FastifyBaseLogger) {
    this.limits = limits
    this.slowBytes = Math.min(limits.slowBufferedBytes, limits.maxBufferedBytes)
    this.metrics = metrics
    this.#log = log
  }

  /** A connection has to send each message by itself. */
  unknownShape (): void {
    if (this.#warned) return
    this.#warned = true
    this.#log().warn('this release of ws is not known to this package: each message is written by itself, which is slower')
  }

  /** The same object for the same arguments. */
  encoding (framed: boolean, deflate: Deflate | undefined): Encoding {
    const key = deflate === undefined ? String(framed) : `${framed} ${deflate.windowBits} ${deflate.threshold}`
    let encoding = this.#encodings.get(key)
    if (encoding === undefined) this.#encodings.set(key, encoding = { framed, deflate })
    return encoding
  }

  /** It has its first frame since its last write. */
  add (writer: Writer): void {
    this.#waiting.push(writer)
    if (this.#scheduled) return
    this.#scheduled = true
    // After the sockets were read, Redis's too: what they brought goes out together.
    if (this.limits.flushIntervalMs === 0) setImmediate(this.#flush)
    else setTimeout(this.#flush, this.limits.flushIntervalMs)
  }

  /** In slices. Whoever gets frames while others are written to queues up again, so the more there is to do, the more goes out in one write. */
  #write (): void {
    const until = performance.now() + sliceMs
    const waiting = this.#waiting
    while (this.#next < waiting.length) {
      waiting[this.#next++]?.turn()
      if (this.#next % clockEvery === 0 && performance.now() > until) break
    }
    if (this.#next < waiting.length) {
      setImmediate(this.#flush)
    } else {
      this.#waiting = []
      this.#next = 0
      this.#scheduled = false
    }
  }
}
