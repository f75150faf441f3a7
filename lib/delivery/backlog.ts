import type { Backplane, LoggedEnvelope, LogPage, LogPosition, Revocation } from '../backplane/backplane.ts'
import { BoundedMap } from '../bounded-map.ts'
import { hasCode, isOutage, WebsocketGroupsError } from '../errors.ts'
import type { GroupLogs } from '../options/group-logs.ts'
import { formatPosition, isLogStart, parsePosition } from '../backplane/position.ts'
import type { Metrics } from '../metrics.ts'
import type { CachedLog, LogCache } from './log-cache.ts'
import type { Standing } from './revocations.ts'
import type { JoinOptions, JoinResult } from '../types.ts'

/** One page of what a connection gets before any live message when it joins. */
export interface BacklogPage extends Pick<JoinResult, 'recovered' | 'reason'> {
  /** Where `messages` begin; `undefined` when nobody knows. */
  readonly before: LogPosition | undefined
  readonly messages: readonly LoggedEnvelope[]
  /** The epoch of the log, where the log was read. A position at its beginning does not tell the epoch. */
  readonly epoch?: string
  /** The end of that log, where the log was read. */
  readonly end?: LogPosition
  /** Whether more pages follow: `next` reads them. */
  readonly more: boolean
  /**
   * Where the client says that it is; set when the log could not be read and this instance is further back, or in another log of the group.
   * Nothing proves the claim, so it only ever keeps messages from this client.
   */
  readonly claimed?: LogPosition | undefined
}

const messagesPerPage = 1_000
const maxGone = 10_000
/** How often the first page is read when Redis works but does not answer in time. */
const attempts = 3

/**
 * Finds what a connection missed: in memory where that reaches back far enough, else by reading the log. All who wait for the same group
 * share a read.
 */
export class Backlog {
  readonly #backplane: Backplane
  readonly #cache: LogCache
  readonly #logs: GroupLogs
  readonly #metrics: Pick<Metrics, 'resumesRefused'>
  /** The read that is under way, by group. */
  readonly #reads = new Map<string, Promise<LogPage>>()
  /** Epochs that the log of a group had before its present one, as the latest read found. */
  readonly #gone = new BoundedMap<string, { readonly epoch: string, readonly now: string }>({ maxWeight: maxGone })
  /** Positions, by group, where a read found another message: memory may not have noticed yet, or may be wrong. */
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

  /** This instance no longer follows the log: what it remembers of the log may be lost by now. */
  forget (group: string): void { this.#cache.forget(group) }

  /** As `LogCache.lostPlace`. */
  lostPlace (group: string, position: LogPosition): LogPosition | undefined { return this.#cache.lostPlace(group, position) }

  /** As `LogCache.returnOf`. */
  returnOf (group: string, meanwhile: string, epoch: string): LogPosition | undefined {
    return this.#cache.returnOf(group, meanwhile, epoch)
  }

  /**
   * Finds the first page for a connection. The instance is subscribed, and holds live messages back for the connection.
   * @throws {WebsocketGroupsError} WSG_POSITION_INVALID
   */
  async replay (group: string, { since, history = 0 }: JoinOptions, { floor, revoked }: Standing = {}): Promise<BacklogPage> {
    const position = since === undefined ? undefined : assertPosition(since)
    const logged = this.isLogged(group)
    if (logged && this.#backplane.localHistory !== true) this.#cache.enable()
    if (!logged) return unavailable(undefined, position)
    if (revoked === 'unknown') return unavailable(this.#backplane.position(group), position)
    try {
      if (position === undefined) return await this.#newest(group, history)
      const page = await this.#firstPage(group, position, floor !== undefined)
      if (isProven(page, position, revoked)) return page
      if (floor !== undefined) return from(floor, page)
      if (page.reason === 'rewound') return { ...page, ...atEnd(page) }
      // Returns what a newcomer gets, with the reason why it is not what was asked for.
      this.#metrics.resumesRefused++
      const newest = await this.#newest(group, history)
      return { ...newest, ...this.#beyond(group, page, newest), recovered: false, reason: page.reason ?? 'unavailable' }
    } catch (error) {
      if (!isOutage(error)) throw error
      return unavailable(this.#backplane.position(group), position)
    }
  }

  /**
   * Finds what follows a position that the connection has reached; `reason` says what is lost in between. `proven`: the client was in the
   * group, so it may have later messages even where the log no longer holds its position.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  async next (group: string, since: LogPosition, proven = true): Promise<BacklogPage> {
    const returned = this.#cache.returnOf(group, since.epoch, this.#backplane.position(group)?.epoch)
    if (returned !== undefined) {
      // What the log holds up to there was given to the client or is older than its membership, or the client was told of the loss.
      const page = await this.next(group, returned, proven)
      return page.recovered === true ? { ...page, recovered: false, reason: 'epoch' } : page
    }
    for (;;) {
      const known = this.#remembered(group, since)
      if (known !== undefined) return known
      const reading = this.#reads.get(group)
      if (reading === undefined) break
      // The read under way may bring what is needed; if not, the log is read again.
      await reading
    }
    const page = await this.#read(group, since, messagesPerPage)
    if (page.gap !== 'rewound' || !proven) return toBacklogPage(page)
    this.#lost.set(lostKey(group, since), true)
    return await this.#afterFork(group, since, page)
  }

  /**
   * The log lost the message at this position and went on from an earlier one. Nobody can tell which messages up to that offset the client
   * has seen; those beyond it are new to the client.
   */
  async #afterFork (group: string, since: LogPosition, read: LogPage): Promise<BacklogPage> {
    let latest = read
    for (let attempt = 1; attempt <= attempts && latest.end.epoch === since.epoch && latest.end.offset > since.offset; attempt++) {
      const { end } = latest
      latest = await this.#read(group, undefined, end.offset - since.offset)
      // Done unless the log grew meanwhile: then the messages begin too late.
      if (latest.end.offset <= end.offset) break
    }
    if (latest === read) return toBacklogPage(read)
    // The log began anew: the last read shows no branch of the client's log.
    if (latest.end.epoch !== since.epoch) return toBacklogPage(await this.#read(group, since, messagesPerPage))
    return { ...toBacklogPage(latest), recovered: false, reason: 'rewound' }
  }

  /**
   * Where a newcomer stands in a log that this instance has not noticed yet: at its end, not where the log before it was. A loss that the
   * client is told about now is then not reported again.
   */
  #beyond (group: string, { reason, end }: BacklogPage, { messages }: BacklogPage): Pick<BacklogPage, 'before' | 'epoch'> | undefined {
    if (reason !== 'epoch' || end === undefined || messages.length > 0 || this.#backplane.position(group)?.epoch === end.epoch) {
      return undefined
    }
    return { before: end, epoch: end.epoch }
  }

  /** Redis may be busy and answer late: try again before messages that are still there are given up. */
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
    // Only the log itself tells how much it keeps: other processes may append to it with larger settings than ours.
    if (!all.whole) return undefined
    // Another epoch may be a newer one that this instance does not know yet.
    const gone = this.#gone.get(group)
    if (!isLogStart(since) && since.epoch !== reached.epoch && (gone?.epoch !== since.epoch || gone.now !== reached.epoch)) return undefined
    return allOf(all, since, reached.epoch)
  }

  /** Returns the page of a client that was never in the group. */
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

  /** Reads a group once at a time: callers that come meanwhile wait, and find the result in memory. */
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

/** The log cannot be read. `before`: how far this instance is. */
function unavailable (before: LogPosition | undefined, since: LogPosition | undefined): BacklogPage {
  const page = { before, messages: [], more: false }
  if (since === undefined) return page
  const isFurther = before !== undefined && !isLogStart(since) && (since.epoch !== before.epoch || since.offset > before.offset)
  return { ...page, recovered: false, reason: 'unavailable', ...(isFurther ? { claimed: since } : {}) }
}

/**
 * Whether the client may have the page because it names this position: the log holds the position, its nonce cannot be guessed, and the
 * client was not put out of the group since. One that was put out during an earlier log of the group was let in again since.
 */
function isProven ({ recovered }: BacklogPage, since: LogPosition, revoked: Revocation | undefined): boolean {
  if (recovered !== true || isLogStart(since)) return false
  if (revoked === undefined) return true
  const { position } = revoked
  return position !== undefined && (position.epoch !== since.epoch || since.offset > position.offset)
}

/** Returns the page without the messages before the floor. A log with another epoch than the floor's began after the floor. */
function from (floor: LogPosition, page: BacklogPage): BacklogPage {
  const isBefore = ({ position }: LoggedEnvelope): boolean => position.epoch === floor.epoch && position.offset <= floor.offset
  const skipped = page.messages.findLast(isBefore)
  if (skipped === undefined) return page
  const messages = page.messages.filter(message => !isBefore(message))
  // The floor is further on than this page: the next one begins there.
  return { ...page, before: messages.length === 0 && page.more ? floor : skipped.position, messages }
}

/** Returns everything that a whole log holds, for a client at a position before all of the log, or in an earlier log. */
function allOf ({ messages, before }: CachedLog, since: LogPosition, epoch: string): BacklogPage {
  if (isLogStart(since) && before.offset === 0) return { recovered: true, before, messages, more: false }
  const reason = isLogStart(since) || since.epoch === epoch ? 'trimmed' : 'epoch'
  return { recovered: false, reason, before, messages, more: false }
}

/** Returns the messages after a position whose message the log lost. */
function afterLost (all: CachedLog, since: LogPosition): BacklogPage {
  const index = all.messages.findLastIndex(({ position }) => position.offset <= since.offset)
  const before = all.messages[index]?.position ?? all.before
  return { recovered: false, reason: 'rewound', before, messages: all.messages.slice(index + 1), end: endOf(all), more: false }
}

/** Returns what a client gets when it may not have the messages of the page: the end of the log. */
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
