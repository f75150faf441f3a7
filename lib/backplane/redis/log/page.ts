import { isLogStart, logStart, samePosition } from '../../position.ts'
import { maxPageBytes, type GapReason, type LogPage, type LogPosition } from '../../backplane.ts'
import { decode, isLogged, positionOf, previousNonce } from '../envelope.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { remembered, type LogFollower } from './follower.ts'
import { readLog } from './read-script.ts'
import { unpackSettings, type Difference } from './settings.ts'

const pageSize = 100
const maxForkSize = 10_000
/** The size of a message's header in a log. Headers are enough to find where two branches of the log part. */
const headerBytes = 24
/** How many bytes of a log Redis looks through in one call for such headers. */
const maxScanBytes = 4_194_304

const Status = { follows: 0, epoch: 2, rewound: 3, trimmed: 4, none: 5 } as const
const reasons: Readonly<Record<number, GapReason>> = { [Status.epoch]: 'epoch', [Status.rewound]: 'rewound', [Status.trimmed]: 'trimmed' }

export interface RedisLogPage extends LogPage {
  /**
   * The last position that was read, which may lie after the last of `messages`: a message that this version cannot decode has a place in
   * the log, too.
   */
  readonly last: LogPosition
  /** Settings of the log that differ between processes. */
  readonly difference?: Difference | undefined
}

interface Entries {
  readonly gap: GapReason | undefined
  /** The end of the log. */
  readonly top: LogPosition
  readonly entries: readonly Buffer[]
  readonly more: boolean
  readonly difference: Difference | undefined
}

/** Reads what follows `since`; with `logStart`, from the earliest message that is kept; without a position, the latest messages. */
export async function readPage (
  link: Link, keys: Keys, group: string, since: LogPosition | undefined, limit: number
): Promise<RedisLogPage> {
  const read = await readEntries(link, keys, group, since, limit)
  if (read === undefined) {
    // A reader with a position saw a log here: its data is gone.
    const gap = since === undefined || since.epoch === '' ? undefined : 'epoch'
    return { gap, messages: [], before: logStart, end: logStart, last: logStart, more: false }
  }
  const { gap, top, entries, more, difference } = read
  const messages = entries.map(bytes => decode(bytes)).filter(isLogged)
  const latest = entries.at(-1)
  const last = latest === undefined ? top : positionOf(latest)
  // A page of messages that this version cannot decode would look like the end of the log.
  if (more && messages.length === 0) {
    const next = await readPage(link, keys, group, last, limit)
    return next.gap === undefined ? { ...next, gap } : next
  }
  return { gap, messages, before: positionBefore(entries, top), end: top, last, more, difference }
}

/** Reads a page of what follows the position in the follower's log; `undefined`: the log changed between two reads. */
export async function readAfterFork (link: Link, keys: Keys, follower: LogFollower, since: LogPosition): Promise<RedisLogPage | undefined> {
  const page = await readPage(link, keys, follower.group, since, pageSize)
  if (page.gap !== 'rewound') return page
  // The log lost its latest messages and went on from an earlier one: read what follows the newest message that the follower and the log
  // have in common.
  const limit = Math.min(maxForkSize, remembered + Math.max(0, page.end.offset - since.offset))
  const places = await readPlaces(link, keys, follower.group, limit)
  if (places === undefined || places.end.epoch !== since.epoch) return undefined
  const { before, positions, end } = places
  const first = follower.firstUnknown(positions)
  const fork = first === 0 ? before : positions[first - 1] ?? end
  // The follower is on the same branch, but nothing can be read after its position: another program wrote to the log.
  if (samePosition(fork, since)) return { gap: 'trimmed', messages: [], before: end, end, last: end, more: false }
  return { gap: 'rewound', messages: [], before: fork, end, last: fork, more: first < positions.length }
}

/** Reads the positions of a log's latest messages, without the messages; `undefined`: the log is gone, or changed meanwhile. */
async function readPlaces (
  link: Link, keys: Keys, group: string, limit: number
): Promise<{ readonly before: LogPosition, readonly positions: readonly LogPosition[], readonly end: LogPosition } | undefined> {
  const positions: LogPosition[] = []
  let before: LogPosition | undefined
  for (;;) {
    const read = await readEntries(link, keys, group, positions.at(-1), limit, headerBytes)
    if (read === undefined || read.gap !== undefined) return undefined
    before ??= positionBefore(read.entries, read.top)
    for (const entry of read.entries) positions.push(positionOf(entry))
    if (!read.more || read.entries.length === 0) return { before, positions, end: read.top }
  }
}

/** Returns `undefined` when there is no log. With `cut`, returns only that many bytes of each message. */
async function readEntries (
  link: Link, keys: Keys, group: string, since: LogPosition | undefined, limit: number, cut = 0
): Promise<Entries | undefined> {
  const position = [Buffer.from(since === undefined ? '$' : since.epoch, 'latin1'), since?.offset ?? 0, packNonce(since?.nonce ?? 0)]
  const read = async (alone: boolean): Promise<Reply> => await link.bulk.read(async bytes => {
    const most = cut > 0 ? maxScanBytes : Math.min(bytes, maxPageBytes)
    return await link.bulkScript(readLog, [keys.logMeta(group), keys.log(group)], [...position, limit, most, alone ? 1 : 0, cut]) as Reply
  }, sizeOf, alone)
  let reply = await read(false)
  // The next message alone is larger than what may be read beside other bulk reads.
  if (reply[5] === 1 && reply[4]?.length === 0) reply = await read(true)
  const [status = Status.none, epoch = '', offset = 0, nonce, entries = [], more = 0, differ] = reply
  if (status === Status.none) return undefined
  const top = { epoch: Buffer.from(epoch).toString('latin1'), offset, nonce: unpackNonce(nonce) }
  const own = entries.filter(entry => standsIn(entry, top))
  let gap = reasons[status]
  // Another program wrote to the list.
  if (gap === undefined && since !== undefined && own.length < entries.length && !follow(own, since)) gap = 'trimmed'
  return { gap, top, entries: own, more: more === 1 && own.length > 0, difference: unpackSettings(differ) }
}

/** Whether the entry is a message, of any kind, of the log that ends at `top`, and not something that another program put there. */
function standsIn (entry: Buffer, top: LogPosition): boolean {
  if (entry.length < headerBytes) return false
  const { epoch, offset } = positionOf(entry)
  return epoch === top.epoch && offset > 0 && offset <= top.offset
}

/**
 * Whether bytes that this version cannot decode are a message of the log that was delivered up to this position: then a read of what
 * follows the position finds them there.
 */
export function isInLog (bytes: Buffer, position: LogPosition | undefined): boolean {
  if (position === undefined || bytes.length < headerBytes) return false
  const { epoch, offset } = positionOf(bytes)
  return isLogStart(position) ? offset === 1 && previousNonce(bytes) === 0 : epoch === position.epoch
}

/** Whether these are the messages after that position, with none missing between them. */
function follow (entries: readonly Buffer[], since: LogPosition): boolean {
  let { offset, nonce } = since
  return entries.every(entry => {
    const position = positionOf(entry)
    const next = position.offset === offset + 1 && previousNonce(entry) === nonce;
    ({ offset, nonce } = position)
    return next
  })
}

type Reply = [number?, Buffer?, number?, Buffer?, Buffer[]?, number?, Buffer?]

function sizeOf ([,,,, entries = [], more = 0]: Reply): { readonly bytes: number, readonly full: boolean } {
  return { bytes: entries.reduce((sum, { length }) => sum + length, 0), full: more === 1 }
}

function positionBefore ([first]: readonly Buffer[], top: LogPosition): LogPosition {
  if (first === undefined) return top
  const offset = positionOf(first).offset - 1
  return offset === 0 ? logStart : { epoch: top.epoch, offset, nonce: previousNonce(first) }
}

function packNonce (nonce: number): Buffer {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32BE(nonce)
  return bytes
}

/** Reads a nonce; 0, which no message has, for anything else. */
export function unpackNonce (bytes: Uint8Array | null | undefined): number {
  return bytes?.length === 4 ? Buffer.from(bytes).readUInt32BE() : 0
}
