import { BoundedMap } from '../../bounded-map.ts'
import type { Rate } from '../../options/types.ts'

/**
 * A rate limit that stores one number per client: the instant until which everything it sent is paid for (milliseconds, on the clock of
 * `now`). Needs neither a timer nor a list of what came. A new client starts with `unpaid`.
 */
export class RateLimit {
  readonly #msEach: number
  readonly #burstMs: number

  constructor ({ perSecond, burst = perSecond }: Rate) {
    this.#msEach = 1_000 / perSecond
    // A rate of less than one a second lets one through at a time: a smaller burst would let none through, ever.
    this.#burstMs = Math.max(burst, 1) * this.#msEach
  }

  /** How long a quiet time has to be until the whole burst is free again (milliseconds). */
  get burstMs (): number {
    return this.#burstMs
  }

  /** By how much the limit is exceeded: how far the instant lies ahead of `now` (milliseconds). 0 for less than a rounding error. */
  excess (paidUntil: number, now: number): number {
    return paidUntil - now > roundingMs ? paidUntil - now : 0
  }

  /** Adds `cost` to what the client sent. Returns the new instant: while it lies after `now`, the limit is exceeded. */
  charge (paidUntil: number, now: number, cost = 1): number {
    return Math.max(paidUntil, now - this.#burstMs) + cost * this.#msEach
  }
}

/** Allows for the rounding error of sums of large and small numbers. */
const roundingMs = 1e-6

/** The longest wait that a refused client is told: one that was refused in a rush should not stay away for long (seconds). */
export const maxRetryAfterSeconds = 30

/** The value that a new client of a `RateLimit` starts with. */
export const unpaid = -Infinity

/** One rate limit for many names (addresses, users). Forgets names that were quiet long enough, and beyond `maxNames` the oldest. */
export class RateTable {
  readonly #limit: RateLimit
  readonly #names: BoundedMap<string, number>
  readonly #now: () => number

  constructor (rate: Rate, maxNames: number, now: () => number = () => performance.now()) {
    this.#limit = new RateLimit(rate)
    this.#now = now
    this.#names = new BoundedMap({ maxWeight: maxNames, maxAgeMs: this.#limit.burstMs, now })
  }

  get size (): number {
    return this.#names.size
  }

  /** Counts `cost` more of `name` and returns 0. Over the limit: counts nothing, and returns the milliseconds until there is room. */
  take (name: string, cost = 1): number {
    const now = this.#now()
    const paidUntil = this.#limit.charge(this.#names.get(name) ?? unpaid, now, cost)
    const excess = this.#limit.excess(paidUntil, now)
    if (excess === 0) this.#names.set(name, paidUntil)
    return excess
  }
}

/** Lets through a number per second, and in a burst as many as were not used before. A refused caller is told when to try again. */
export class TokenBucket {
  readonly #perSecond: number
  readonly #burst: number
  readonly #now: () => number
  #tokens: number
  /** Refused callers that will come back: the next one is told to come after them. */
  #line = 0
  #at: number

  constructor ({ perSecond, burst = perSecond }: Rate, now: () => number = () => performance.now()) {
    this.#perSecond = perSecond
    this.#burst = burst
    this.#now = now
    this.#tokens = burst
    this.#at = now()
  }

  /** Returns 0 to go ahead, or the seconds to wait. */
  take (): number {
    const now = this.#now()
    const gained = (now - this.#at) / 1_000 * this.#perSecond
    this.#at = now
    this.#tokens = Math.min(this.#burst, this.#tokens + gained)
    this.#line = Math.max(0, this.#line - gained)
    if (this.#tokens >= 1) {
      this.#tokens--
      return 0
    }
    this.#line = Math.min(this.#line + 1, this.#perSecond * maxRetryAfterSeconds)
    return Math.ceil(this.#line / this.#perSecond)
  }
}
