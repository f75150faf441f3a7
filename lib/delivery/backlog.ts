import type { Backplane, LoggedEnvelope, LogPage, LogPosition } from '../backplane/backplane.ts'
import { BoundedMap } from '../bounded-map.ts'
import { hasCode, WebsocketGroupsError } from '../errors.ts'
import type { GroupLogs } from '../options/group-logs.ts'
import { isLogStart, parsePosition, samePosition } from '../backplane/position.ts'
import type { Metrics } from '../metrics.ts'
import type { CachedLog, LogCache } from './log-cache.ts'
import type { JoinOptions, JoinResult } from '../types.ts'

/** What a connection gets when it joins, before anything live: one page of it. */
export interface BacklogPage extends Pick<JoinResult, 'recovered' | 'reason'> {
  /** Where `messages` begin; `undefined` when nobody knows. */
  readonly before: LogPosition | undefined
  readonly messages: readonly LoggedEnvelope[]
  /** Of the log that they are from, where it was read. A position at its beginning does not tell. */
  readonly epoch?: string
  /** Where that log ends, where it was read. */
  readonly end?: LogPosition
  /** Others follow: `next` reads them. */
  readonly more: boolean
}

const messagesPerPage = 1_000
const maxGone = 10_000
/** How often the first page is asked for when Redis works and does not answer in time. */
const attempts = 3

/**
 * Finds what a connection missed: in memory where that reaches back far enough, else by reads of the log, which all share who wait for the
 * same group.
 */
export class Backlog {
  readonly #backplane: Backplane
  readonly #cache: LogCache
  readonly #logs: GroupLogs
  readonly #metrics: Pick<Metrics, 'resumesRefused'>
  /** The read that is under way, by group. */
  readonly #reads = new Map<string, Promise<LogPage>>()
  /** Epochs that the log of a group had before the one that it has now, as the latest read found. */
  readonly #gone = new BoundedMap<string, { readonly epoch: string, readonly now: string }>({ maxWeight: maxGone })

  constructor (backplane: Backplane, cache: LogCache, logs: GroupLogs, metrics: Pick<Metrics, 'resumesRefused'>) {
    this.#backplane = backplane
    this.#cache = cache
    this.#logs = logs
    this.#metrics = metrics
  }

  isLogged (group: string): boolean {
    return this.#logs.of(group) !== undefined
  }

  /** This instance does not follow the log now: what is remembered of it may have been lost since. */
  forget (group: string): void {
    this.#cache.forget(group)
  }

  /**
   * Finds the first of what a connection is given. The instance is subscribed, and holds back for the connection what comes live. `floor`
   * is from where on the client can prove to have been in the group.
   * @throws {WebsocketGroupsError} WSG_POSITION_INVALID
   */
  async replay (group: string, { since, history = 0 }: JoinOptions, floor?: LogPosition): Promise<BacklogPage> {
    const position = since === undefined ? undefined : assertPosition(since)
    const logged = this.isLogged(group)
    if (logged && this.#backplane.localHistory !== true) this.#cache.enable()
    if (!logged) return unavailable(undefined, position)
    try {
      if (position === undefined) return await this.#newest(group, history)
      const page = await this.#firstPage(group, position)
      if (isProven(page, position)) return page
      if (floor !== undefined) return from(floor, page)
      // As for somebody who is new, but told that it is not what was asked for.
      this.#metrics.resumesRefused++
      const newest = await this.#newest(group, history)
      return { ...newest, ...this.#beyond(group, page, newest), recovered: false, reason: page.reason ?? 'unavailable' }
    } catch (error) {
      if (!hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT')) throw error
      return unavailable(this.#backplane.position(group), position)
    }
  }

  /**
   * Finds what follows a position that the connection has reached: `reason` says what is lost between.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  async next (group: string, since: LogPosition): Promise<BacklogPage> {
    for (;;) {
      const known = this.#remembered(group, since)
      if (known !== undefined) return known
      const reading = this.#reads.get(group)
      if (reading === undefined) break
      // What is read now may be what is looked for; else it is read next.
      await reading
    }
    const { gap, before, messages, end, more } = await this.#read(group, since, messagesPerPage)
    return { recovered: gap === undefined, ...(gap === undefined ? {} : { reason: gap }), before, messages, epoch: end.epoch, end, more }
  }

  /**
   * Where somebody new stands in a log that this instance has not noticed yet: at its end, not where the log before it was. What is told of
   * that loss now is then not told again.
   */
  #beyond (group: string, { reason, end }: BacklogPage, { messages }: BacklogPage): Pick<BacklogPage, 'before' | 'epoch'> | undefined {
    if (reason !== 'epoch' || end === undefined || messages.length > 0 || this.#backplane.position(group)?.epoch === end.epoch) {
      return undefined
    }
    return { before: end, epoch: end.epoch }
  }

  /** Redis that works may be late with much to do, and what is there still is not given up for that. */
  async #firstPage (group: string, since: LogPosition): Promise<BacklogPage> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.next(group, since)
      } catch (error) {
        if (attempt === attempts || !hasCode(error, 'WSG_TIMEOUT') || this.#backplane.state === 'down') throw error
      }
    }
  }

  #remembered (group: string, since: LogPosition): BacklogPage | undefined {
    const reached = this.#backplane.position(group)
    const missed = this.#cache.after(group, since, reached)
    if (missed !== undefined) return { recovered: true, before: since, ...missed }
    const all = this.#cache.all(group, reached)
    if (all === undefined || reached === undefined) return undefined
    // What is older than as many messages as the log keeps is in the log no more.
    const whole = all.whole || all.messages.length >= (this.#logs.of(group)?.maxMessages ?? Infinity)
    if (!whole || (since.epoch === reached.epoch && since.offset > endOf(all).offset)) return undefined
    // Another epoch may be a newer one, which this instance does not know of yet.
    const gone = this.#gone.get(group)
    if (!isLogStart(since) && since.epoch !== reached.epoch && (gone?.epoch !== since.epoch || gone.now !== reached.epoch)) return undefined
    return sliceAfter(all, reached.epoch, since)
  }

  /** What somebody gets who was never in the group. */
  async #newest (group: string, count: number): Promise<BacklogPage> {
    if (count === 0) return { before: this.#backplane.position(group), messages: [], more: false }
    for (;;) {
      const all = this.#cache.all(group, this.#backplane.position(group))
      if (all !== undefined && (all.messages.length >= count || all.whole)) {
        const start = Math.max(0, all.messages.length - count)
        return { before: all.messages[start - 1]?.position ?? all.before, messages: all.messages.slice(start), more: false }
      }
      const reading = this.#reads.get(group)
      if (reading === undefined) break
      await reading
    }
    const { messages, before, end: { epoch }, more } = await this.#read(group, undefined, count)
    return { before, messages, epoch, more }
  }

  /** One read per group at a time: whoever comes meanwhile waits, and finds in memory what it brought. */
  async #read (group: string, since: LogPosition | undefined, limit: number): Promise<LogPage> {
    const read = this.#backplane.history(group, since, limit)
    this.#reads.set(group, read)
    try {
      const page = await read
      const { gap, before, messages, more, end } = page
      if (gap === 'epoch' && since !== undefined) this.#gone.set(group, { epoch: since.epoch, now: end.epoch })
      const whole = since === undefined ? messages.length < limit && !more : isLogStart(since) || gap !== undefined
      if (gap !== 'rewound') this.#cache.fill(group, before, messages, whole || before.offset === 0)
      return page
    } finally {
      this.#reads.delete(group)
    }
  }
}

function unavailable (before: LogPosition | undefined, since: LogPosition | undefined): BacklogPage {
  return { before, messages: [], more: false, ...(since === undefined ? {} : { recovered: false, reason: 'unavailable' }) }
}

/**
 * Whether the page is for anybody who names this position: the log holds it, and its nonce cannot be guessed; or nothing is in the page, as
 * the log holds another message in its place.
 */
function isProven ({ recovered, reason }: BacklogPage, since: LogPosition): boolean {
  return reason === 'rewound' || (recovered === true && !isLogStart(since))
}

/** Without what is before the floor. A log with another epoch than the floor's began after it. */
function from (floor: LogPosition, page: BacklogPage): BacklogPage {
  const isBefore = ({ position }: LoggedEnvelope): boolean => position.epoch === floor.epoch && position.offset <= floor.offset
  const skipped = page.messages.findLast(isBefore)
  if (skipped === undefined) return page
  const messages = page.messages.filter(message => !isBefore(message))
  // The floor is further on than this page: the next one begins there.
  return { ...page, before: messages.length === 0 && page.more ? floor : skipped.position, messages }
}

/** What follows `since` in a whole log. */
function sliceAfter ({ messages, before }: CachedLog, epoch: string, since: LogPosition): BacklogPage {
  const lost = (reason: 'trimmed' | 'epoch'): BacklogPage => ({ recovered: false, reason, before, messages, more: false })
  if (isLogStart(since)) return before.offset === 0 ? { recovered: true, before, messages, more: false } : lost('trimmed')
  if (since.epoch !== epoch) return lost('epoch')
  if (since.offset < before.offset) return lost('trimmed')
  const index = messages.findLastIndex(({ position }) => position.offset <= since.offset)
  const there = messages[index]?.position ?? before
  if (samePosition(there, since)) return { recovered: true, before: since, messages: messages.slice(index + 1), more: false }
  // The log lost what stood there: which of its messages the client has seen cannot be told, and none is sent twice.
  return { recovered: false, reason: 'rewound', before: messages.at(-1)?.position ?? before, messages: [], more: false }
}

function endOf ({ messages, before }: CachedLog): LogPosition {
  return messages.at(-1)?.position ?? before
}

/** @throws {WebsocketGroupsError} WSG_POSITION_INVALID */
export function assertPosition (text: string): LogPosition {
  const position = parsePosition(text)
  if (position === undefined) throw new WebsocketGroupsError('WSG_POSITION_INVALID')
  return position
}
