import type { Link } from './port.ts'

/** Measures how far the clock of Redis, the only clock that all instances share, is ahead of the clock of this process. */
export class RedisClock {
  readonly #link: Link
  #aheadMs = 0

  constructor (link: Link) {
    this.#link = link
  }

  /** How far the clock of Redis is ahead (milliseconds), exact to half of the time that Redis took to answer. */
  get aheadMs (): number {
    return this.#aheadMs
  }

  /** Reads the clock of Redis. Never rejects: while Redis is out, the latest reading counts. */
  async compare (): Promise<void> {
    const askedAt = Date.now()
    try {
      const [seconds, microseconds] = await this.#link.run(async redis => await redis.time())
      const here = (askedAt + Date.now()) / 2
      this.#aheadMs = Math.round(Number(seconds) * 1_000 + Number(microseconds) / 1_000 - here)
    } catch {
      // That Redis is out is reported elsewhere.
    }
  }
}
