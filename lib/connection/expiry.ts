import { CloseCode } from '../protocol/close-codes.ts'
import type { Metrics } from '../metrics.ts'

const minPauseMs = 1_000
/**
 * The longest wait of the timer: far below the overflow of setTimeout (2^31 ms), and short enough to notice that the machine's clock was
 * set.
 */
const maxPauseMs = 60_000

/** The part of a connection that its expiry needs. */
interface Expiring {
  readonly closed: boolean
  closeForFault (code: number): void
}

/** Closes connections when their identity ends, on one timer for all: each within a second of its instant. */
export class Expiry {
  readonly #metrics: Metrics
  readonly #now: () => number
  readonly #expiring = new Map<Expiring, number>()
  #timer: NodeJS.Timeout | undefined
  #nextAt = Infinity
  /** Sweeps start no earlier than this after each other: each looks at every connection. */
  #notBefore = 0

  constructor (metrics: Metrics, now: () => number = () => Date.now()) {
    this.#metrics = metrics
    this.#now = now
  }

  /** `expiresAt` is in milliseconds since 1970. Infinity never expires; NaN counts as expired, because nobody knows what was meant. */
  add (connection: Expiring, expiresAt: number): void {
    if (expiresAt === Infinity) return this.remove(connection)
    const instant = Number.isNaN(expiresAt) ? -Infinity : expiresAt
    this.#expiring.set(connection, instant)
    if (instant < this.#nextAt) this.#arm(instant)
  }

  remove (connection: Expiring): void {
    this.#expiring.delete(connection)
  }

  stop (): void {
    clearTimeout(this.#timer)
    this.#expiring.clear()
    this.#nextAt = Infinity
  }

  #arm (nextAt: number): void {
    clearTimeout(this.#timer)
    this.#nextAt = nextAt
    if (nextAt === Infinity) return
    const now = this.#now()
    // One millisecond more: a timer may fire just before the instant it was set for.
    const pause = Math.max(nextAt - now + 1, this.#notBefore - now, 0)
    this.#timer = setTimeout(() => this.#sweep(), Math.min(pause, maxPauseMs)).unref()
  }

  #sweep (): void {
    const now = this.#now()
    let nextAt = Infinity
    for (const [connection, expiresAt] of this.#expiring) {
      if (expiresAt > now) {
        nextAt = Math.min(nextAt, expiresAt)
        continue
      }
      this.#expiring.delete(connection)
      if (connection.closed) continue
      this.#metrics.tokensExpired++
      connection.closeForFault(CloseCode.TokenExpired)
    }
    this.#notBefore = now + minPauseMs
    this.#arm(nextAt)
  }
}
