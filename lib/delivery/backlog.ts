import type { Backplane, LoggedEnvelope, LogPage, LogPosition } from '../backplane/backplane.ts'
import { BoundedMap } from '../bounded-map.ts'
import { hasCode, WebsocketGroupsError } from '../errors.ts'
import type { GroupLogs } from '../options/group-logs.ts'
import { formatPosition, isLogStart, parsePosition } from '../backplane/position.ts'
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
  /** Positions, with their groups, in whose place a read found another message: memory may not have noticed yet, or may be wrong. */
  readonly #lost = new BoundedMap<string, true>({ maxWeight: maxGone })

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
      const page = await this.#firstPage(group, position, floor !== undefined)
      if (isProven(page, position)) return page
      if (floor !== undefined) return from(floor, page)
      if (page.reason === 'rewound') return { ...page, ...atEnd(page) }
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
   * Finds what follows a position that the connection has reached: `reason` says what is lost between. `proven`: the client was in the
   * group, so that it may have what stands further on than a position that the log does not hold.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  async next (group: string, since: LogPosition, proven = true): Promise<BacklogPage> {
    for (;;) {
      const known = this.#remembered(group, since)
      if (known !== undefined) return known
      const reading = this.#reads.get(group)
      if (reading === undefined) break
      // What is read now may be what is looked for; else it is read next.
      await reading
    }
    const page = await this.#read(group, since, messagesPerPage)
    if (page.gap !== 'rewound' || !proven) return toBacklogPage(page)
    this.#lost.set(lostKey(group, since), true)
    return await this.#afterFork(group, since, page)
  }

  /**
   * The log lost what stood at the position, and went on from an earlier one. Which of its messages up to there the client has seen cannot
   * be told; those further on are new to it.
   */
  async #afterFork (group: string, since: LogPosition, read: LogPage): Promise<BacklogPage> {
    let latest = read
    for (let attempt = 1; attempt <= attempts && latest.end.epoch === since.epoch && latest.end.offset > since.offset; attempt++) {
      const { end } = latest
      latest = await this.#read(group, undefined, end.offset - since.offset)
      // Else the log grew meanwhile: these begin too late.
      if (latest.end.offset <= end.offset) break
    }
    if (latest === read) return toBacklogPage(read)
    // It began anew: what was read last is no branch of the client's log.
    if (latest.end.epoch !== since.epoch) return toBacklogPage(await this.#read(group, since, messagesPerPage))
    return { ...toBacklogPage(latest), recovered: false, reason: 'rewound' }
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
  async #firstPage (group: string, since: LogPosition, proven: boolean): Promise<BacklogPage> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.next(group, since, proven)
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
    if (since.epoch === reached.epoch && since.offset >= all.before.offset) {
      return this.#lost.has(lostKey(group, since)) && since.offset <= endOf(all).offset ? afterLost(all, since) : undefined
    }
    // How much a log keeps is settled where it is kept: others may append to it with larger settings than ours.
    if (!all.whole) return undefined
    // Another epoch may be a newer one, which this instance does not know of yet.
    const gone = this.#gone.get(group)
    if (!isLogStart(since) && since.epoch !== reached.epoch && (gone?.epoch !== since.epoch || gone.now !== reached.epoch)) return undefined
    return allOf(all, since, reached.epoch)
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

/** Whether the page is for anybody who names this position: the log holds it, and its nonce cannot be guessed. */
function isProven ({ recovered }: BacklogPage, since: LogPosition): boolean {
  return recovered === true && !isLogStart(since)
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

/** All that a whole log has for somebody at this position, which is before all of it, or in an earlier log. */
function allOf ({ messages, before }: CachedLog, since: LogPosition, epoch: string): BacklogPage {
  if (isLogStart(since) && before.offset === 0) return { recovered: true, before, messages, more: false }
  const reason = isLogStart(since) || since.epoch === epoch ? 'trimmed' : 'epoch'
  return { recovered: false, reason, before, messages, more: false }
}

/** What stands further on than a position that the log lost. */
function afterLost (all: CachedLog, since: LogPosition): BacklogPage {
  const index = all.messages.findLastIndex(({ position }) => position.offset <= since.offset)
  const before = all.messages[index]?.position ?? all.before
  return { recovered: false, reason: 'rewound', before, messages: all.messages.slice(index + 1), end: endOf(all), more: false }
}

/** For somebody who may not have what the page holds. */
function atEnd ({ before, end, messages }: BacklogPage): Pick<BacklogPage, 'before' | 'messages' | 'more'> {
  return { before: end ?? messages.at(-1)?.position ?? before, messages: [], more: false }
}

function toBacklogPage ({ gap, before, messages, end, more }: LogPage): BacklogPage {
  return { recovered: gap === undefined, ...(gap === undefined ? {} : { reason: gap }), before, messages, epoch: end.epoch, end, more }
}

function lostKey (group: string, position: LogPosition): string {
  return `${formatPosition(position)} ${group}`
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
