import type { Backplane, LoggedEnvelope, LogPage, LogPosition } from '../backplane/backplane.ts'
import { hasCode, WebsocketGroupsError } from '../errors.ts'
import type { GroupLogs } from '../options/group-logs.ts'
import { isLogStart, logStart, parsePosition, samePosition } from '../backplane/position.ts'
import type { Metrics } from '../metrics.ts'
import type { LogCache } from './log-cache.ts'
import type { JoinOptions, JoinResult } from '../types.ts'

/** What a connection gets when it joins, before anything live. */
export interface BacklogPage extends Pick<JoinResult, 'recovered' | 'reason'> {
  /** Where `messages` begin; `undefined` when nobody knows. */
  readonly before: LogPosition | undefined
  readonly messages: readonly LoggedEnvelope[]
  /** The epoch of the log that was read. A position at the beginning of a log does not tell. */
  readonly epoch?: string
}

const maxLogMessages = 10_000

/** Finds what a connection missed: in memory where that reaches back far enough, else by one read per group for all who wait for it. */
export class Backlog {
  readonly #backplane: Backplane
  readonly #cache: LogCache
  readonly #logs: GroupLogs
  readonly #metrics: Pick<Metrics, 'resumesRefused'>
  readonly #reads = new Map<string, Promise<LogPage>>()
  #count = 0

  constructor (backplane: Backplane, cache: LogCache, logs: GroupLogs, metrics: Pick<Metrics, 'resumesRefused'>) {
    this.#backplane = backplane
    this.#cache = cache
    this.#logs = logs
    this.#metrics = metrics
  }

  /** Reads of logs so far. */
  get reads (): number {
    return this.#count
  }

  isLogged (group: string): boolean {
    return this.#logs.of(group) !== undefined
  }

  /** This instance does not follow the log now: what is remembered of it may have been lost since. */
  forget (group: string): void {
    this.#cache.forget(group)
  }

  /**
   * Finds what a connection is given. The instance is subscribed, and holds back for the connection what comes live. `floor` is from where
   * on the client can prove to have been in the group.
   * @throws {WebsocketGroupsError} WSG_POSITION_INVALID
   */
  async replay (group: string, { since, history = 0 }: JoinOptions, floor?: LogPosition): Promise<BacklogPage> {
    const position = since === undefined ? undefined : assertPosition(since)
    const logged = this.isLogged(group)
    if (logged && this.#backplane.localHistory !== true) this.#cache.enable()
    if (!logged) return nothing(undefined, position)
    try {
      if (position === undefined) return await this.#newest(group, history)
      const page = await this.#since(group, position)
      if (isProven(page, position)) return page
      if (floor !== undefined) return from(floor, page)
      // As for somebody who is new, but told that it is not what was asked for.
      this.#metrics.resumesRefused++
      return { ...await this.#newest(group, history), recovered: false, reason: page.reason ?? 'unavailable' }
    } catch (error) {
      if (!hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT')) throw error
      return nothing(this.#backplane.position(group), position)
    }
  }

  async #since (group: string, since: LogPosition): Promise<BacklogPage> {
    const remembered = (): BacklogPage | undefined => this.#remembered(group, since)
    const known = remembered()
    if (known !== undefined) return known
    const reading = this.#reads.get(group)
    if (reading !== undefined) await reading
    const meanwhile = reading === undefined ? undefined : remembered()
    if (meanwhile !== undefined) return meanwhile
    const page = await this.#read(group)
    return { ...sliceAfter(page, since), epoch: page.end.epoch }
  }

  #remembered (group: string, since: LogPosition): BacklogPage | undefined {
    const reached = this.#backplane.position(group)
    const missed = this.#cache.after(group, since, reached)
    if (missed !== undefined) return { recovered: true, before: since, messages: missed }
    const all = this.#cache.all(group, reached)
    // What is older than as many messages as the log keeps is in the log no more.
    if (all === undefined || all.messages.length < (this.#logs.of(group)?.maxMessages ?? Infinity)) return undefined
    const isTrimmed = since.epoch === all.before.epoch && since.offset < all.before.offset
    return isTrimmed ? { recovered: false, reason: 'trimmed', before: all.before, messages: all.messages } : undefined
  }

  /** What somebody gets who was never in the group. */
  async #newest (group: string, history: number): Promise<BacklogPage> {
    return history > 0 ? await this.#latest(group, history) : { before: this.#backplane.position(group), messages: [] }
  }

  async #latest (group: string, count: number): Promise<BacklogPage> {
    // What a read that is under way brings may lack messages of the moment between it and this call.
    await this.#reads.get(group)
    const { messages, before, end: { epoch } } = await this.#read(group)
    const latest = messages.slice(-count)
    return { before: messages[messages.length - latest.length - 1]?.position ?? before, messages: latest, epoch }
  }

  /** One read for all who ask in the same moment. Whoever needs a newer read than the one that is under way waits for its end first. */
  #read (group: string): Promise<LogPage> {
    return this.#reads.get(group) ?? this.#begin(group)
  }

  #begin (group: string): Promise<LogPage> {
    this.#count++
    this.#cache.beginRead(group)
    const read = this.#backplane.history(group, logStart, maxLogMessages).then(page => {
      this.#cache.fill(group, page.before, page.messages)
      return page
    }).finally(() => {
      this.#cache.endRead(group)
      this.#reads.delete(group)
    })
    this.#reads.set(group, read)
    return read
  }
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
  return skipped === undefined ? page : { ...page, before: skipped.position, messages: page.messages.filter(message => !isBefore(message)) }
}

/** The log cannot be read, which is told to a client that asked for a position. */
function nothing (before: LogPosition | undefined, since: LogPosition | undefined): BacklogPage {
  return { before, messages: [], ...(since === undefined ? {} : { recovered: false, reason: 'unavailable' }) }
}

/** What follows `since` in a whole log. */
function sliceAfter ({ messages, before, end }: LogPage, since: LogPosition): BacklogPage {
  if (since.epoch === '') return { recovered: before.offset === 0, ...(before.offset === 0 ? {} : { reason: 'trimmed' }), before, messages }
  if (since.epoch !== end.epoch) return { recovered: false, reason: 'epoch', before, messages }
  if (samePosition(since, before)) return { recovered: true, before, messages }
  if (since.offset < before.offset) return { recovered: false, reason: 'trimmed', before, messages }
  const index = messages.findLastIndex(({ position }) => position.offset <= since.offset)
  const there = messages[index]?.position
  if (there !== undefined && samePosition(there, since)) return { recovered: true, before: since, messages: messages.slice(index + 1) }
  // The log lost what stood there: which of its messages the client has seen cannot be told, and none is sent twice.
  return { recovered: false, reason: 'rewound', before: end, messages: [] }
}

/** @throws {WebsocketGroupsError} WSG_POSITION_INVALID */
export function assertPosition (text: string): LogPosition {
  const position = parsePosition(text)
  if (position === undefined) throw new WebsocketGroupsError('WSG_POSITION_INVALID')
  return position
}
