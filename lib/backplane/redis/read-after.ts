import type { LogPosition } from '../backplane.ts'
import type { Keys } from './keys.ts'
import type { Link } from './link/link.ts'
import { readPage, type RedisLogPage } from './log/page.ts'
import { remembered, type LogFollower } from './log/follower.ts'

const pageSize = 100
const maxForkSize = 10_000

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
