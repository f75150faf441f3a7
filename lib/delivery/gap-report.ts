import type { FastifyBaseLogger } from 'fastify'
import { logEvent } from '../logging.ts'
import type { LossReason } from '../types.ts'

/** How long losses are gathered for one line: those of one outage come within moments (milliseconds). */
const gatherMs = 1_000
/** Lines are at least this far apart (milliseconds): losses meanwhile are added up, where a bounded log would leave lines out. */
const intervalMs = 10_000
/** How many groups a line names. */
const namedGroups = 5

/** Writes a log line when connections here lost messages: one line for all losses that happen together, with the number of connections. */
export class GapReport {
  readonly #log: FastifyBaseLogger
  readonly #now: () => number
  readonly #reasons = new Map<LossReason, number>()
  /** The first few groups. */
  readonly #groups = new Set<string>()
  #connections = 0
  #timer: NodeJS.Timeout | undefined
  #lastAt = -Infinity

  constructor (log: FastifyBaseLogger, now: () => number = () => performance.now()) {
    this.#log = log
    this.#now = now
  }

  /** Messages of the group are lost to one connection. */
  add (group: string, reason: LossReason): void {
    this.#connections++
    this.#reasons.set(reason, (this.#reasons.get(reason) ?? 0) + 1)
    if (this.#groups.size < namedGroups) this.#groups.add(group)
    this.#timer ??= setTimeout(() => this.flush(), Math.max(gatherMs, this.#lastAt + intervalMs - this.#now())).unref()
  }

  /** Writes the line that is due, if there is one. */
  flush (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#connections === 0) return
    const fields = { connections: this.#connections, reasons: Object.fromEntries(this.#reasons), groups: [...this.#groups] }
    logEvent(this.#log, 'messages_lost', fields)
    this.#connections = 0
    this.#reasons.clear()
    this.#groups.clear()
    this.#lastAt = this.#now()
  }
}
