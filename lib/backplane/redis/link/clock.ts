import type { Link } from './port.ts'

/**
 * Reads the clock of Redis, the only clock that all instances share. Between two readings the time goes on with the steady clock of this
 * process: the clock of this machine may be set at any moment, and nobody who was put out of a group must come back because of that.
 */
export class RedisClock {
  readonly #link: Link
  /** How far the clock of Redis is ahead of the steady clock (milliseconds); that of this machine until Redis was asked. */
  #aheadMs = Date.now() - performance.now()

  constructor (link: Link) {
    this.#link = link
  }

  /** The time by the clock of Redis (milliseconds since 1970), exact to half of the time that Redis took to answer. */
  now (): number {
    return Math.round(performance.now() + this.#aheadMs)
  }

  /** Reads the clock of Redis. Never rejects: while Redis is out, the latest reading counts. */
  async compare (): Promise<void> {
    const askedAt = performance.now()
    try {
      const [seconds, microseconds] = await this.#link.run(async redis => await redis.time())
      const here = (askedAt + performance.now()) / 2
      this.#aheadMs = Number(seconds) * 1_000 + Number(microseconds) / 1_000 - here
    } catch {
      // Other parts report that Redis is out.
    }
  }
}
