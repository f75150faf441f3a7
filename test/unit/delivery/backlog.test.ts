import t from 'tap'
import type { Backplane, Envelope, LogPage, LogPosition } from '../../../lib/backplane/backplane.ts'
import { GroupLogs } from '../../../lib/options/group-logs.ts'
import { logStart, formatPosition } from '../../../lib/backplane/position.ts'
import { LogCache } from '../../../lib/delivery/log-cache.ts'
import { Metrics } from '../../../lib/metrics.ts'
import { Backlog } from '../../../lib/delivery/backlog.ts'

const at = (offset: number): LogPosition => ({ epoch: 'e'.repeat(8), offset, nonce: offset })
const message = (offset: number): Envelope & { readonly position: LogPosition } => ({
  kind: 'message',
  target: { kind: 'group', name: 'g' },
  payload: Buffer.from(String(offset)),
  binary: false,
  except: [],
  origin: '',
  id: offset,
  position: at(offset)
} as unknown as Envelope & { readonly position: LogPosition })

/** What follows a position in a log of so many messages. */
function pageAfter (since: LogPosition, count: number): LogPage {
  const messages = Array.from({ length: count - since.offset }, (_, n) => message(since.offset + n + 1))
  return { gap: undefined, before: since, end: at(count), messages, more: false }
}

/** A backplane whose log is read when the test says so, and answered later. */
function setUp () {
  const recent = new LogCache()
  let reached = at(3)
  const reads: Array<(count: number) => void> = []
  const backplane = {
    history: async (
      _group: string, since: LogPosition
    ) => await new Promise<LogPage>(resolve => reads.push(count => resolve(pageAfter(since, count)))),
    position: () => reached
  } as unknown as Backplane
  const resume = new Backlog(
    backplane, recent, new GroupLogs({ log: { maxMessages: 100, ttlMs: 300_000 }, logs: undefined }), new Metrics()
  )
  return {
    reads,
    resume,
    live (offset: number): void {
      reached = at(offset)
      recent.push(message(offset))
    },
    since: async (offset: number, floor?: LogPosition) => {
      let page = await resume.replay('g', { since: formatPosition(at(offset)) }, floor)
      const { recovered, messages } = page
      const all = messages.map(({ position }) => position)
      for (let last = all.at(-1); page.more && last !== undefined; last = all.at(-1)) {
        page = await resume.next('g', last)
        all.push(...page.messages.map(({ position }) => position))
      }
      return { recovered, messages: all.map(({ offset }) => offset) }
    }
  }
}

const settled = async (): Promise<void> => await new Promise(resolve => setImmediate(resolve))

t.test('a herd is served by one read, whenever its clients come', async t => {
  const { reads, since } = setUp()
  const herd = Array.from({ length: 50 }, async () => await since(1))
  await settled()
  herd.push(...Array.from({ length: 50 }, async () => await since(2)))
  await settled()
  reads[0]?.(3)
  herd.push(since(1))
  const got = await Promise.all(herd)
  t.equal(reads.length, 1)
  t.strictSame(got[0], { recovered: true, messages: [2, 3] })
  t.strictSame(got[99], { recovered: true, messages: [3] })
  t.strictSame(got[100], { recovered: true, messages: [2, 3] })
})

t.test('a message that overtakes the answer to a read is not missed by who comes after it', async t => {
  const { reads, since, live } = setUp()
  const first = since(1)
  await settled()
  live(4)
  const second = since(1)
  await settled()
  reads[0]?.(3)
  t.strictSame(await first, { recovered: true, messages: [2, 3] }, 'it gets the rest live, as it was there before')
  await settled()
  reads[1]?.(4)
  t.strictSame(await second, { recovered: true, messages: [2, 3, 4] })
  t.strictSame(await since(1), { recovered: true, messages: [2, 3, 4] })
  t.strictSame(await since(3), { recovered: true, messages: [4] })
  live(5)
  t.strictSame(await since(3), { recovered: true, messages: [4, 5] })
  t.equal(reads.length, 2)
})

t.test('who was away for longer than the log reaches is told so from memory, once that holds as much as the log', async t => {
  const { reads, since, live } = setUp()
  const first = since(1)
  await settled()
  reads[0]?.(3)
  await first
  for (let offset = 4; offset <= 1_001; offset++) live(offset)
  t.equal((await since(1)).recovered, true, 'the latest 1,000 are kept')
  live(1_002)
  live(1_003)
  const late = await since(1, at(1))
  t.equal(late.recovered, false)
  t.strictSame([late.messages[0], late.messages.at(-1)], [4, 1_003], 'what is still there follows')
  t.strictSame(await since(3), { recovered: true, messages: Array.from({ length: 1_000 }, (_, n) => n + 4) })
  t.equal(reads.length, 1)
})

t.test('a position that the log does not hold is good for what came after the client joined, as far as it can prove that', async t => {
  const metrics = new Metrics()
  const kept = { before: at(10), end: at(15), more: false }
  const history = async (_group: string, since: LogPosition | undefined, limit: number): Promise<LogPage> => {
    const all = [11, 12, 13, 14, 15].map(message)
    if (since === undefined) return { ...kept, gap: undefined, before: at(15 - limit), messages: all.slice(-limit) }
    if (since.epoch !== at(1).epoch) return { ...kept, gap: since.epoch === '' ? 'trimmed' : 'epoch', messages: all }
    if (since.offset < 10) return { ...kept, gap: 'trimmed', messages: all }
    if (since.nonce !== since.offset) return { ...kept, gap: 'rewound', before: at(15), messages: [] }
    return { ...kept, gap: undefined, before: since, messages: all.slice(since.offset - 10) }
  }
  const backplane = { history, position: () => at(15) } as unknown as Backplane
  const backlog = new Backlog(
    backplane, new LogCache(), new GroupLogs({ log: { maxMessages: 100, ttlMs: 300_000 }, logs: undefined }), metrics
  )
  const given = async (since: LogPosition, options: { floor?: LogPosition, history?: number } = {}): Promise<unknown[]> => {
    const page = await backlog.replay('g', { since: formatPosition(since), history: options.history ?? 0 }, options.floor)
    return [page.recovered, page.reason, page.before?.offset, page.messages.map(({ position }) => position.offset)]
  }
  const otherLog = { epoch: 'f'.repeat(8), offset: 12, nonce: 12 }
  t.strictSame(await given(at(13)), [true, undefined, 13, [14, 15]], 'one that the log holds was given out')
  t.strictSame(await given(at(10)), [true, undefined, 10, [11, 12, 13, 14, 15]])
  t.strictSame(await given({ ...at(13), nonce: 99 }), [false, 'rewound', 15, []], 'a made-up one is none')
  t.equal(metrics.resumesRefused, 0)

  t.strictSame(await given(at(3)), [false, 'trimmed', 15, []])
  t.strictSame(await given(otherLog), [false, 'epoch', 15, []])
  t.strictSame(await given(logStart), [false, 'trimmed', 15, []])
  t.strictSame(await given(at(3), { history: 2 }), [false, 'trimmed', 13, [14, 15]], 'what anybody gets, who is new')
  t.equal(metrics.resumesRefused, 4)

  t.strictSame(await given(at(3), { floor: at(2) }), [false, 'trimmed', 10, [11, 12, 13, 14, 15]])
  t.strictSame(await given(logStart, { floor: logStart }), [false, 'trimmed', 10, [11, 12, 13, 14, 15]])
  t.strictSame(
    await given(otherLog, { floor: { ...otherLog, offset: 1 } }), [false, 'epoch', 10, [11, 12, 13, 14, 15]], 'this log began later'
  )
  t.strictSame(await given(at(3), { floor: at(13) }), [false, 'trimmed', 13, [14, 15]], 'nothing from before the client joined')
  t.strictSame(await given(logStart, { floor: at(13) }), [false, 'trimmed', 13, [14, 15]])
  t.equal(metrics.resumesRefused, 4)
})

t.test('what is remembered of a log that went another way since is of no use', t => {
  const recent = new LogCache()
  recent.enable()
  for (let offset = 1; offset <= 10; offset++) recent.push(message(offset))
  const other = { ...at(10), nonce: 999 }
  t.same(recent.after('g', at(8), at(10))?.messages.map(({ position }) => position.offset), [9, 10])
  t.same(
    recent.after('g', at(8), at(9))?.messages.map(({ position }) => position.offset), [9, 10],
    'more than this instance has delivered is told apart later'
  )
  t.equal(recent.after('g', at(8), other), undefined)
  t.equal(recent.after('g', at(10), other), undefined)
  t.equal(recent.after('g', other, at(10)), undefined)
  t.equal(recent.after('g', at(8), at(11)), undefined)
  t.end()
})
