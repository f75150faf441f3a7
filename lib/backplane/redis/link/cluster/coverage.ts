import type { FastifyBaseLogger } from 'fastify'
import { logEvent } from '../../../../logging.ts'
import type { Link } from '../port.ts'

const setting = 'cluster-require-full-coverage'

/** Watches whether the masters of a cluster are set up to stop as soon as one of them is out. */
export class CoverageWatch {
  readonly #link: Link
  readonly #log: FastifyBaseLogger
  #stops = false

  constructor (link: Link, log: FastifyBaseLogger) {
    this.#link = link
    this.#log = log
  }

  get problem (): string | undefined {
    return this.#stops ? `with ${setting} yes, all masters of the cluster stop when one is out: set ${setting} no` : undefined
  }

  /** Asks one master, because all should be set up alike. Never rejects: without an answer, what was known stays. */
  async look (): Promise<void> {
    let stops: boolean
    try {
      const [, value] = await this.#link.run(async redis => await redis.config('GET', setting)) as string[]
      stops = value === 'yes'
    } catch {
      // CONFIG is forbidden, or the master is out, which is reported elsewhere.
      return
    }
    const begins = stops && !this.#stops
    this.#stops = stops
    if (begins) logEvent(this.#log, 'redis_setup_risky', { problem: this.problem })
  }
}
