import type { Backplane, GapReason, LoggedEnvelope, LogPage, LogPosition } from '../backplane/backplane.ts'
import { formatPosition, isLogStart, logStart } from '../backplane/position.ts'
import { assertPosition } from '../delivery/backlog.ts'
import type { ProofKeys } from '../delivery/resume-proofs.ts'
import { WebsocketGroupsError } from '../errors.ts'
import { assertGroupName } from '../group-name.ts'
import { checkCall } from '../options/calls.ts'
import { show } from '../options/rules.ts'
import type { History, HistoryOptions } from '../types.ts'

const defaultLimit = 100
const maxLimit = 10_000
/** The most bytes of messages in one result, whatever `limit` allows. */
const maxHistoryBytes = 4_194_304

interface Read {
  /** Oldest first. */
  readonly messages: readonly LoggedEnvelope[]
  readonly end: LogPosition
  readonly gap: GapReason | undefined
  readonly more: boolean
}

/** Reads what was broadcast to a group, page by page, forwards or backwards in time. */
export class GroupHistory {
  readonly #backplane: Pick<Backplane, 'history'>
  readonly #proofKeys: Pick<ProofKeys, 'proofs'>

  constructor (backplane: Pick<Backplane, 'history'>, proofKeys: Pick<ProofKeys, 'proofs'>) {
    this.#backplane = backplane
    this.#proofKeys = proofKeys
  }

  /** As `Registry.history`. */
  async read (group: string, options: HistoryOptions = {}): Promise<History> {
    assertGroupName(group)
    checkCall('history', options)
    const { since, before, limit = defaultLimit, reverse = false } = options
    if (!Number.isInteger(limit) || limit < 1) {
      throw new WebsocketGroupsError('WSG_OPTION_INVALID', `limit must be a positive integer, got ${show(limit)}`)
    }
    const from = since === undefined ? undefined : since === 'start' ? logStart : assertPosition(since)
    const to = before === undefined ? undefined : assertPosition(before)
    const most = Math.min(limit, maxLimit)
    const { messages, end, gap, more } = from !== undefined && !reverse
      ? await this.#forward(group, from, to, most)
      : await this.#backward(group, from, to, most)
    const read = messages.map(({ payload, binary, position, at = 0, from }) => {
      const data = binary ? payload : payload.toString()
      return { data, position: formatPosition(position), at, ...(from === undefined ? {} : { from }) }
    })
    // To resume from the start of an empty log, a client has to prove that it saw that log.
    const position = isLogStart(end) ? (await this.#proofKeys.proofs()).format(group, end) : formatPosition(end)
    return { messages: reverse ? read.reverse() : read, position, ...(gap === undefined ? {} : { gap }), more }
  }

  /** Reads from the earliest message after `since`. */
  async #forward (group: string, since: LogPosition, before: LogPosition | undefined, limit: number): Promise<Read> {
    const first = await this.#backplane.history(group, since, limit)
    const gap = before === undefined ? undefined : gapAt({ end: first.end, messages: [] }, before)
    if (gap !== undefined) return { messages: [], end: first.end, gap, more: false }
    const messages: LoggedEnvelope[] = []
    let [page, bytes] = [first, 0]
    for (;;) {
      for (const message of page.messages) {
        if (before !== undefined && !isBefore(message.position, before)) return { ...first, messages, more: false }
        messages.push(message)
        bytes += message.payload.length
      }
      const last = messages.at(-1)
      const full = messages.length >= limit || bytes >= maxHistoryBytes || last === undefined
      if (full || !page.more) {
        const isLast = before !== undefined && last !== undefined && last.position.offset + 1 >= before.offset
        return { ...first, messages, more: page.more && !isLast }
      }
      page = await this.#backplane.history(group, last.position, limit - messages.length)
      // The log was trimmed meanwhile. Return what there is: the next page reports the gap.
      if (page.gap !== undefined) return { ...first, messages, more: true }
    }
  }

  /** Reads up to the latest message before `before`. */
  async #backward (group: string, since: LogPosition | undefined, before: LogPosition | undefined, limit: number): Promise<Read> {
    const newest = before === undefined ? undefined : await this.#backplane.history(group, undefined, 1)
    const gap = newest === undefined || before === undefined ? undefined : gapAt(newest, before)
    if (newest !== undefined && gap !== undefined) return { messages: [], end: newest.end, gap, more: false }
    // How many of the latest messages are sure to contain the page. Read one more than asked for, to know whether there are older ones.
    const neededIn = ({ end }: LogPage): number => limit + 1 + (before === undefined ? 0 : end.offset - before.offset + 1)
    const read = async (count: number): Promise<LogPage> => await this.#backplane.history(group, undefined, count)
    let count = Math.min(newest === undefined ? limit + 1 : neededIn(newest), maxLimit)
    let first = await read(count)
    // Messages that were appended meanwhile pushed the wanted ones out of what was read: read more, and some in reserve, because appends go
    // on.
    for (let reserve = 0; neededIn(first) > count && count < maxLimit;) {
      reserve = 2 * Math.max(reserve, neededIn(first) - count)
      count = Math.min(neededIn(first) + reserve, maxLimit)
      first = await read(count)
    }
    const window = new Window(limit + 1)
    for (let page = first; ; page = await this.#backplane.history(group, window.seen ?? first.before, maxLimit)) {
      if (page !== first && page.gap !== undefined) break
      for (const message of page.messages) if (!window.push(message, since, before)) break
      if (!page.more || window.isOver) break
    }
    const found = window.messages
    const more = found.length > limit || window.cut
    const lower = since === undefined ? missingBefore(before, found) : (await this.#backplane.history(group, since, 1)).gap
    return { messages: found.slice(-limit), end: first.end, gap: lower, more }
  }
}

/** Keeps the latest of the messages that are pushed, as many as fit. */
class Window {
  /** The position of the latest message that was looked at. */
  seen: LogPosition | undefined
  /** Whether the messages that follow are newer than `before`. */
  isOver = false
  /** Whether messages were left out for their size. */
  cut = false
  readonly messages: LoggedEnvelope[] = []
  readonly #most: number
  #bytes = 0

  constructor (most: number) {
    this.#most = most
  }

  push (message: LoggedEnvelope, since: LogPosition | undefined, before: LogPosition | undefined): boolean {
    const { position, payload } = message
    this.seen = position
    if (before !== undefined && !isBefore(position, before)) {
      this.isOver = true
      return false
    }
    if (since !== undefined && position.epoch === since.epoch && position.offset <= since.offset) return true
    this.messages.push(message)
    this.#bytes += payload.length
    if (this.messages.length > this.#most) this.#drop()
    while (this.#bytes > maxHistoryBytes && this.messages.length > 1) {
      this.#drop()
      this.cut = true
    }
    return true
  }

  #drop (): void {
    this.#bytes -= this.messages.shift()?.payload.length ?? 0
  }
}

function isBefore (position: LogPosition, before: LogPosition): boolean {
  return position.epoch === before.epoch && position.offset < before.offset
}

/** Returns the gap of a page before a position where nothing was found: unless the log begins there, its messages were dropped. */
function missingBefore (before: LogPosition | undefined, found: readonly unknown[]): GapReason | undefined {
  return before !== undefined && found.length === 0 && before.offset > 1 ? 'trimmed' : undefined
}

/** Returns why nothing can be read before the position. */
function gapAt ({ end, messages }: Pick<LogPage, 'end' | 'messages'>, before: LogPosition): GapReason | undefined {
  if (isLogStart(before) || isLogStart(end) || before.epoch !== end.epoch) return 'epoch'
  if (before.offset > end.offset) return 'rewound'
  const [last] = messages
  return last?.position.offset === before.offset && last.position.nonce !== before.nonce ? 'rewound' : undefined
}
