import t from 'tap'
import type { Backplane, LoggedEnvelope, LogPage, LogPosition } from '../../../lib/backplane/backplane.ts'
import { GroupLogs } from '../../../lib/options/group-logs.ts'
import { logStart, formatPosition } from '../../../lib/backplane/position.ts'
import { LogCache } from '../../../lib/delivery/log-cache.ts'
import { Metrics } from '../../../lib/metrics.ts'
import { Backlog } from '../../../lib/delivery/backlog.ts'
import { messageEnvelope } from '../../helpers/envelopes.ts'

const at = (offset: number): LogPosition => ({ epoch: 'e'.repeat(8), offset, nonce: offset })
const message = (offset: number): LoggedEnvelope => ({
  ...messageEnvelope(String(offset), { sequence: offset, target: { kind: 'group', name: 'g' } }), position: at(offset)
})

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
      let page = await resume.replay('g', { since: formatPosition(at(offset)) }, { floor })
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

t.test('how far a log reaches is asked of the log: others may keep more of it than this instance would', async t => {
  const { reads, since, live } = setUp()
  const first = since(1)
  await settled()
  reads[0]?.(3)
  await first
  for (let offset = 4; offset <= 1_001; offset++) live(offset)
  t.equal((await since(1)).recovered, true, 'the latest 1,000 are kept in memory')
  live(1_002)
  live(1_003)
  t.strictSame(await since(3), { recovered: true, messages: Array.from({ length: 1_000 }, (_, n) => n + 4) })
  t.equal(reads.length, 1)
  // Ten times as many as the settings of this instance say.
  const late = since(1, at(1))
  await settled()
  reads[1]?.(1_003)
  t.strictSame(await late, { recovered: true, messages: Array.from({ length: 1_002 }, (_, n) => n + 2) })
  t.equal(reads.length, 2)
})

t.test('a page that begins before the client can prove anything is cut there, and so are those that follow', async t => {
  const pages: Array<LogPosition | undefined> = []
  const all = Array.from({ length: 30 }, (_, n) => message(n + 11))
  /** Ten messages a page, from the 11th on. */
  const history = async (_group: string, since: LogPosition | undefined): Promise<LogPage> => {
    pages.push(since)
    const start = since === undefined || since.offset < 10 || since.epoch !== at(1).epoch ? 0 : since.offset - 10
    const gap = since === undefined || start > 0 ? undefined : since.epoch === at(1).epoch ? 'trimmed' as const : 'epoch' as const
    return { gap, before: at(start + 10), end: at(40), messages: all.slice(start, start + 10), more: start + 10 < all.length }
  }
  const given = async (since: LogPosition, floor: LogPosition): Promise<Array<number | undefined>> => {
    const backlog = new Backlog(
      { history, position: () => at(40) } as unknown as Backplane, new LogCache(),
      new GroupLogs({ log: { maxMessages: 100, ttlMs: 300_000 }, logs: undefined }), new Metrics()
    )
    let page = await backlog.replay('g', { since: formatPosition(since) }, { floor })
    t.equal(page.recovered, false)
    let last = page.before ?? logStart
    const offsets: Array<number | undefined> = []
    for (;;) {
      offsets.push(...page.messages.map(({ position }) => position.offset))
      last = page.messages.at(-1)?.position ?? last
      if (!page.more) return offsets
      page = await backlog.next('g', last)
      t.equal(page.recovered, true, 'what follows is told of no loss')
    }
  }
  const after = (offset: number): number[] => Array.from({ length: 40 - Math.max(10, offset) }, (_, n) => Math.max(10, offset) + n + 1)
  for (const floor of [2, 10, 15, 20, 25, 30, 33, 39, 40]) {
    t.strictSame(await given(at(1), at(floor)), after(floor), `trimmed, in the group since ${floor}`)
  }
  t.strictSame(await given({ ...at(7), epoch: 'before..' }, { ...at(5), epoch: 'before..' }), after(10), 'the log began after the floor')
  t.strictSame(await given({ ...at(7), epoch: 'before..' }, at(25)), after(25))
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
    const page = await backlog.replay('g', { since: formatPosition(since), history: options.history ?? 0 }, { floor: options.floor })
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

t.test('a client on a branch that the log lost gets what stands further on, if it can prove that it was in the group', async t => {
  /** The log lost what came after 5; 6 to 9 are new. */
  let end = 9
  const fresh = (offset: number): LogPosition => offset <= 5 ? at(offset) : { ...at(offset), nonce: 100 + offset }
  const reads: Array<LogPosition | undefined> = []
  const history = async (_group: string, since: LogPosition | undefined, limit: number): Promise<LogPage> => {
    reads.push(since)
    const all = Array.from({ length: end }, (_, n) => ({ ...message(n + 1), position: fresh(n + 1) }))
    if (since === undefined) {
      const start = Math.max(0, end - limit)
      return { gap: undefined, messages: all.slice(start), before: start === 0 ? logStart : fresh(start), end: fresh(end), more: false }
    }
    if (since.nonce === fresh(since.offset).nonce && since.offset <= end) {
      return { gap: undefined, messages: all.slice(since.offset), before: since, end: fresh(end), more: false }
    }
    const page: LogPage = { gap: 'rewound', messages: [], before: fresh(end), end: fresh(end), more: false }
    // The log grows between the two reads.
    if (end === 11) end = 12
    return page
  }
  const cache = new LogCache()
  const metrics = new Metrics()
  const backlog = new Backlog(
    { history, position: () => fresh(end) } as unknown as Backplane, cache,
    new GroupLogs({ log: { maxMessages: 100, ttlMs: 300_000 }, logs: undefined }), metrics
  )
  const given = async (since: LogPosition, floor?: LogPosition): Promise<unknown[]> => {
    const page = await backlog.replay('g', { since: formatPosition(since) }, { floor })
    return [page.recovered, page.reason, page.before?.offset, page.messages.map(({ position }) => position.offset)]
  }
  t.strictSame(await given(at(7)), [false, 'rewound', 9, []], 'a made-up position has another nonce, too')
  t.strictSame(await given(at(7), at(2)), [false, 'rewound', 7, [8, 9]], 'which of 6 and 7 it has seen cannot be told')
  t.strictSame(reads.splice(0), [at(7), at(7), undefined])
  t.strictSame(await given(at(7), at(2)), [false, 'rewound', 7, [8, 9]], 'the next one there is served from memory')
  t.strictSame(await given(at(7)), [false, 'rewound', 9, []])
  t.strictSame(reads.splice(0), [])
  t.strictSame(await given(at(12), at(2)), [false, 'rewound', 9, []], 'the log is not as far yet')
  t.strictSame(await given(at(7), { ...at(8), nonce: 7 }), [false, 'rewound', 8, [9]], 'nothing from before it joined')
  t.strictSame(
    await backlog.next('g', at(8)).then(({ reason, messages }) => [reason, messages.length]), ['rewound', 1], 'in mid-replay, too'
  )
  end = 11
  t.strictSame(await given(at(9), at(2)), [false, 'rewound', 9, [10, 11, 12]], 'the log grew between two reads')
  t.equal(metrics.resumesRefused, 0)
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
