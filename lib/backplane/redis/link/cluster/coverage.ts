import type { FastifyBaseLogger } from 'fastify'
import { logEvent } from '../../../../logging.ts'
import type { Link } from '../port.ts'

const setting = 'cluster-require-full-coverage'

/** Looks whether the masters of a cluster stop as soon as one of them is out. */
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

  /** Asks one master: all are set up alike. Never rejects: what cannot be known is no problem. */
  async look (): Promise<void> {
    let stops: boolean
    try {
      const [, value] = await this.#link.run(async redis => await redis.config('GET', setting)) as string[]
      stops = value === 'yes'
    } catch {
      // CONFIG is forbidden, or the master is out, which others report.
      return
    }
    const begins = stops && !this.#stops
    this.#stops = stops
    if (begins) logEvent(this.#log, 'redis_setup_risky', { problem: this.problem })
  }
}
