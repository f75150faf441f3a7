import type { FastifyBaseLogger } from 'fastify'
import { performance } from 'node:perf_hooks'
import { oncePerMinute } from '../../logging.ts'
import type { Asked, Connection, Registry } from '../../types.ts'
import { firstPage, orders, Overview, type Question } from './overview.ts'
import type { Report, Reporter } from './reporter.ts'

/** Two rounds are at least this many milliseconds apart for each instance, so that many instances are asked more rarely. */
const msPerInstance = 10
/** How long instances may take to answer, at least. A round is over sooner when all have answered. */
const answerMs = 2_000
/** After this many rounds without a viewer what instances said before is forgotten: a page that is loaded again comes sooner. */
const missedRounds = 4
const maxFindLength = 100

interface WatchOptions {
  readonly registry: Registry
  readonly reporter: Reporter
  /** The name under which instances ask each other, as secret as the key. Without it the page shows this instance alone. */
  readonly name: string | undefined
  /** Time between two rounds, as long as there are few instances (milliseconds). */
  readonly everyMs: number
  readonly log: FastifyBaseLogger
}

/** Asks all instances for their reports, in rounds, while somebody looks at the page of this instance, and sends the page what they say. */
export class Watch {
  readonly #options: WatchOptions
  #overview = new Overview()
  readonly #viewers = new Map<Connection, Question>()
  readonly #stopAnswering: (() => void) | undefined
  readonly #warnUnreported: (fields: object) => void
  #timer: NodeJS.Timeout | undefined
  #asking = false
  #askedAt = -Infinity
  #everyMs: number
  #summary = ''
  /** How many rounds there were: tells pages a new summary from the same one with another part of the list. */
  #rounds = 0

  constructor (options: WatchOptions) {
    this.#options = options
    this.#everyMs = options.everyMs
    const { registry, reporter, name, everyMs, log } = options
    this.#warnUnreported = oncePerMinute(log, 'dashboard_report_failed')
    // Several instances may ask, each for its viewers. They share a report, unless it is older than half a round.
    this.#stopAnswering = name === undefined ? undefined : registry.instances.on(name, () => reporter.latest(everyMs / 2))
  }

  /** Called when the connection of a page opens. */
  add (viewer: Connection): void {
    this.#viewers.set(viewer, firstPage)
    if (this.#asking) return
    const leftMs = this.#askedAt + this.#everyMs - performance.now()
    if (leftMs > 0) this.#show(viewer)
    // Who closed while nobody looked would be called silent.
    if (leftMs < -missedRounds * this.#everyMs) [this.#overview, this.#summary] = [new Overview(), '']
    // `remove` cleared the timer when the last viewer left, which may have been this page before it was loaded again.
    this.#plan(Math.max(0, leftMs))
  }

  remove (viewer: Connection): void {
    this.#viewers.delete(viewer)
    if (this.#viewers.size === 0) clearTimeout(this.#timer)
  }

  /** The page asks for another part of the list of instances. */
  turn (viewer: Connection, message: string): void {
    const question = parse(message)
    if (question === undefined) return
    this.#viewers.set(viewer, question)
    this.#show(viewer)
  }

  stop (): void {
    clearTimeout(this.#timer)
    this.#viewers.clear()
    this.#stopAnswering?.()
  }

  #plan (ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => { void this.#round() }, ms).unref()
  }

  /** Never rejects. */
  async #round (): Promise<void> {
    const { registry, name, everyMs, log } = this.#options
    this.#asking = true
    this.#askedAt = performance.now()
    try {
      const { replies, missing, scope }: Asked = name === undefined
        ? { replies: [], missing: 0 }
        : await registry.instances.ask(name, null, { timeoutMs: Math.max(answerMs, Math.ceil(this.#everyMs / 2)) })
      this.#everyMs = Math.max(everyMs, (replies.length + missing) * msPerInstance)
      // Without its backplane an instance knows of itself alone: the others stay on the page as they were.
      this.#take(replies, scope === 'local' ? undefined : missing)
    } catch (error) {
      log.debug({ err: error }, 'other instances could not be asked for their reports')
      this.#take([], undefined)
    } finally {
      this.#asking = false
    }
    for (const viewer of this.#viewers.keys()) this.#show(viewer)
    if (this.#viewers.size > 0) this.#plan(Math.max(0, this.#askedAt + this.#everyMs - performance.now()))
  }

  #take (replies: readonly unknown[], missing: number | undefined): void {
    const own = this.#report()
    // This instance counts as missing, once: if it was asked, it is among those that did not answer.
    if (own === undefined) this.#overview.take(replies, missing === undefined ? undefined : Math.max(missing, 1))
    else this.#overview.take([...replies, own], missing)
    // All viewers get the same summary; only their parts of the list differ.
    this.#summary = JSON.stringify(this.#overview.summary())
    this.#rounds++
  }

  /** Returns `undefined` when the report fails: `stats()` of a custom backplane may throw. */
  #report (): Report | undefined {
    const { reporter, everyMs } = this.#options
    try {
      return reporter.latest(everyMs / 2)
    } catch (error) {
      this.#warnUnreported({ err: error })
      return undefined
    }
  }

  #show (viewer: Connection): void {
    const question = this.#viewers.get(viewer)
    if (question === undefined || this.#summary === '') return
    const list = JSON.stringify(this.#overview.rows(question))
    viewer.send(`{"round":${this.#rounds},"everyMs":${this.#everyMs},"summary":${this.#summary},"list":${list}}`)
  }
}

/** Parses what a page asks for. Returns `undefined` for anything that a page does not send. */
function parse (message: string): Question | undefined {
  try {
    const { find, order, page } = (JSON.parse(message) ?? {}) as Partial<Question>
    if (typeof find !== 'string' || find.length > maxFindLength || !orders.some(one => one === order)) return undefined
    if (!Number.isSafeInteger(page) || Number(page) < 0) return undefined
    return { find, order, page } as Question
  } catch {
    return undefined
  }
}
