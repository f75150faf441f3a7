import t from 'tap'
import type { Backplane, Envelope, LogPage, LogPosition } from '../../../lib/backplane/backplane.ts'
import { GroupLogs } from '../../../lib/options/group-logs.ts'
import { logStart, formatPosition } from '../../../lib/backplane/position.ts'
import { LogCache } from '../../../lib/delivery/log-cache.ts'
import { Metrics } from '../../../lib/metrics.ts'
import { Backlog } from '../../../lib/delivery/backlog.ts'

const at = (offset: number): LogPosition => ({ epoch: 'e'.repeat(8), offset, nonce: offset })
const message = (offset: number): Envelope & { readonly position: LogPosition } => ({
  kind: 'message', target: { kind: 'group', name: 'g' }, payload: Buffer.from(String(offset)), binary: false, except: [], origin: '', id: offset, position: at(offset)
} as unknown as Envelope & { readonly position: LogPosition })

/** A backplane whose log is read when the test says so, and answered later. */
function setUp () {
  const recent = new LogCache()
  let reached = at(3)
  const reads: Array<(page: LogPage) => void> = []
  const backplane = {
    history: async () => await new Promise<LogPage>(resolve => reads.push(resolve)),
    position: () => reached
  } as unknown as Backplane
  const resume = new Backlog(backplane, recent, new GroupLogs({ log: { maxMessages: 100, ttlMs: 300_000 }, logs: undefined }), new Metrics())
  return {
    reads,
    resume,
    live (offset: number): void {
      reached = at(offset)
      recent.push(message(offset))
    },
    page: (count: number): LogPage => ({ before: logStart, end: at(count), messages: Array.from({ length: count }, (_, i) => message(i + 1)), more: false } as unknown as LogPage),
    since: async (offset: number, floor?: LogPosition) => {
      const { recovered, messages } = await resume.replay('g', { since: formatPosition(at(offset)) }, floor)
      return { recovered, messages: messages.map(({ position }) => position.offset) }
    }
  }
}

const settled = async (): Promise<void> => await new Promise(resolve => setImmediate(resolve))

t.test('a herd is served by one read, whenever its clients come', async t => {
  const { reads, page, since } = setUp()
  const herd = Array.from({ length: 50 }, async () => await since(1))
  await settled()
  herd.push(...Array.from({ length: 50 }, async () => await since(2)))
  await settled()
  reads[0]?.(page(3))
  herd.push(since(1))
  const got = await Promise.all(herd)
  t.equal(reads.length, 1)
  t.strictSame(got[0], { recovered: true, messages: [2, 3] })
  t.strictSame(got[99], { recovered: true, messages: [3] })
  t.strictSame(got[100], { recovered: true, messages: [2, 3] })
})

t.test('a message that overtakes the answer to a read is not missed by who comes after it', async t => {
  const { reads, page, since, live } = setUp()
  const first = since(1)
  await settled()
  live(4)
  const second = since(1)
  await settled()
  reads[0]?.(page(3))
  t.strictSame(await first, { recovered: true, messages: [2, 3] }, 'it gets the rest live, as it was there before')
  t.strictSame(await second, { recovered: true, messages: [2, 3, 4] })
  t.strictSame(await since(3), { recovered: true, messages: [4] })
  live(5)
  t.strictSame(await since(3), { recovered: true, messages: [4, 5] })
  t.equal(reads.length, 1)
})

t.test('who was away for longer than the log reaches is told so from memory, once that holds as much as the log', async t => {
  const { reads, page, since, live } = setUp()
  const first = since(1)
  await settled()
  reads[0]?.(page(3))
  await first
  for (let offset = 4; offset <= 128; offset++) live(offset)
  t.equal((await since(1)).recovered, true, 'all 128 are kept')
  live(129)
  live(130)
  const late = await since(1, at(1))
  t.equal(late.recovered, false)
  t.strictSame([late.messages[0], late.messages.at(-1)], [3, 130], 'what is still there follows')
  t.strictSame(await since(2), { recovered: true, messages: Array.from({ length: 128 }, (_, n) => n + 3) })
  t.equal(reads.length, 1)
})

t.test('a position that the log does not hold is good for what came after the client joined, as far as it can prove that', async t => {
  const metrics = new Metrics()
  const log: LogPage = { gap: undefined, before: at(10), end: at(15), messages: [11, 12, 13, 14, 15].map(message), more: false }
  const backplane = { history: async () => log, position: () => log.end } as unknown as Backplane
  const backlog = new Backlog(backplane, new LogCache(), new GroupLogs({ log: { maxMessages: 100, ttlMs: 300_000 }, logs: undefined }), metrics)
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
  t.strictSame(await given(otherLog, { floor: { ...otherLog, offset: 1 } }), [false, 'epoch', 10, [11, 12, 13, 14, 15]], 'this log began later')
  t.strictSame(await given(at(3), { floor: at(13) }), [false, 'trimmed', 13, [14, 15]], 'nothing from before the client joined')
  t.strictSame(await given(logStart, { floor: at(13) }), [false, 'trimmed', 13, [14, 15]])
  t.equal(metrics.resumesRefused, 4)
})

t.test('what is remembered of a log that went another way since is of no use', t => {
  const recent = new LogCache()
  recent.enable()
  for (let offset = 1; offset <= 10; offset++) recent.push(message(offset))
  const other = { ...at(10), nonce: 999 }
  t.same(recent.after('g', at(8), at(10))?.map(({ position }) => position.offset), [9, 10])
  t.same(recent.after('g', at(8), at(9))?.map(({ position }) => position.offset), [9, 10], 'more than this instance has delivered is told apart later')
  t.equal(recent.after('g', at(8), other), undefined)
  t.equal(recent.after('g', at(10), other), undefined)
  t.equal(recent.after('g', other, at(10)), undefined)
  t.equal(recent.after('g', at(8), at(11)), undefined)
  t.end()
})
