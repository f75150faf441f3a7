import t from 'tap'
import type { LoggedEnvelope, LogPage } from '../../../lib/backplane/backplane.ts'
import { GroupHistory } from '../../../lib/groups/history.ts'
import { formatPosition } from '../../../lib/backplane/position.ts'

// A log whose end moves with each read, as one does that others append to faster than a page can be read.
function busyLog (messages: number, perRead: (reads: number) => number) {
  let end = messages
  const counts: number[] = []
  const positionOf = (offset: number) => ({ epoch: 'abcdefgh', offset, nonce: offset % 65_536 })
  const history = async (_group: string, since: { readonly offset: number } | undefined, limit: number): Promise<LogPage> => {
    counts.push(limit)
    end += perRead(counts.length)
    const from = since === undefined ? Math.max(0, end - limit) : since.offset
    const found = Array.from({ length: Math.min(limit, end - from) }, (_, index): LoggedEnvelope => {
      return { payload: Buffer.from(`m${from + index + 1}`), binary: false, position: positionOf(from + index + 1) } as LoggedEnvelope
    })
    const more = from + found.length < end
    return { messages: found, before: positionOf(from), end: positionOf(end), more, gap: undefined }
  }
  return { history: new GroupHistory({ history }, { proofs: async () => { throw new Error('not wanted') } }), counts, positionOf }
}

for (const [what, perRead] of Object.entries({
  'three with each read': () => 3, 'more than a page': () => 40, 'more with each read': (reads: number) => reads * 5
})) {
  t.test(`a page before a position is whole while others append ${what}`, async (t) => {
    const { history, counts, positionOf } = busyLog(500, perRead)
    const before = formatPosition(positionOf(400))
    const page = await history.read('g', { before, limit: 20 })
    t.strictSame(page.messages.map(({ data }) => data), Array.from({ length: 20 }, (_, index) => `m${380 + index}`))
    t.match(page, { more: true, gap: undefined })
    t.ok(counts.length <= 8, `${counts}`)
    const first = await history.read('g', { before: formatPosition(positionOf(11)), limit: 20, reverse: true })
    t.match([first.messages.length, first.messages[0]?.data, first.more], [10, 'm10', false])
  })
}
