import { logStart } from '../../position.ts'
import type { GapReason, LogPage, LogPosition } from '../../backplane.ts'
import { decode, isLogged, positionOf, previousNonce } from '../envelope.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/link.ts'
import { remembered, type LogFollower } from './follower.ts'
import { readLog } from './scripts.ts'

const pageSize = 100
const maxForkSize = 10_000

const Status = { follows: 0, epoch: 2, rewound: 3, trimmed: 4, none: 5 } as const
const reasons: Readonly<Record<number, GapReason>> = { [Status.epoch]: 'epoch', [Status.rewound]: 'rewound', [Status.trimmed]: 'trimmed' }

export interface RedisLogPage extends LogPage {
  /** The last position that was read, which may be after the last of `messages`: what this version cannot decode has a place in the log, too. */
  readonly last: LogPosition
}

/** `since`: a position; `beginning`: from the earliest message that is kept; `undefined`: the latest ones. */
export async function readPage (link: Link, keys: Keys, group: string, since: LogPosition | undefined, limit: number): Promise<RedisLogPage> {
  const [status = Status.none, epoch = '', offset = 0, nonce = noNonce, entries = []] = await link.bytesScript(
    readLog, [keys.logMeta(group), keys.log(group)], [Buffer.from(since === undefined ? '$' : since.epoch, 'latin1'), since?.offset ?? 0, packNonce(since?.nonce ?? 0), limit]
  ) as [number?, Buffer?, number?, Buffer?, Buffer[]?]
  if (status === Status.none) {
    // No trace of a log that we had seen: its data is gone.
    const gap = since === undefined || since.epoch === '' ? undefined : 'epoch'
    return { gap, messages: [], before: logStart, end: logStart, last: logStart, more: false }
  }
  const top = { epoch: Buffer.from(epoch).toString('latin1'), offset, nonce: Buffer.from(nonce).readUInt32BE() }
  const messages = entries.map(bytes => decode(bytes)).filter(isLogged)
  const [first] = entries
  const latest = entries.at(-1)
  const end = latest === undefined ? top : positionOf(latest)
  const before = first === undefined ? top : { epoch: top.epoch, offset: positionOf(first).offset - 1, nonce: previousNonce(first) }
  return { gap: reasons[status], messages, before: before.offset === 0 ? logStart : before, end: top, last: end, more: end.offset < offset }
}

/** A page of what follows the position in the reader's log; `undefined`: the log changed between two readings of it. */
export async function readAfterFork (link: Link, keys: Keys, reader: LogFollower, since: LogPosition): Promise<RedisLogPage | undefined> {
  const page = await readPage(link, keys, reader.group, since, pageSize)
  if (page.gap !== 'rewound') return page
  // The log lost its latest messages and went on from an earlier one: what follows the newest message that we and the log have in common.
  const limit = Math.min(maxForkSize, remembered + Math.max(0, page.end.offset - since.offset))
  const latest = await readPage(link, keys, reader.group, undefined, limit)
  if (latest.end.epoch !== since.epoch) return undefined
  const { messages, before, last: end } = latest
  const first = reader.firstUnknown(messages.map(({ position }) => position))
  return { ...latest, gap: 'rewound', messages: messages.slice(first), before: first === 0 ? before : messages[first - 1]?.position ?? end, last: end, more: false }
}

export function packNonce (nonce: number): Buffer {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32BE(nonce)
  return bytes
}

export const noNonce = Buffer.alloc(4)
