import t from 'tap'
import type { LogLimits } from '../../../lib/backplane/backplane.ts'
import { MemoryLogs } from '../../../lib/backplane/memory/log.ts'
import { logStart } from '../../../lib/backplane/position.ts'
import { messageEnvelope } from '../../helpers/envelopes.ts'

const limits: LogLimits = { maxMessages: 100, maxBytes: 1_000_000, ttlMs: 60_000 }

function setUp (maxBytes = 15_600) {
  const clock = { now: 0 }
  const logs = new MemoryLogs({ maxBytes, now: () => clock.now })
  return {
    clock,
    logs,
    append: (group: string, text: string, more: Partial<LogLimits> = {}, key?: string) =>
      logs.append([{ group, log: { ...limits, ...more } }], messageEnvelope(text), key),
    texts: (group: string) => logs.read(group, logStart, 100).messages.map(({ payload }) => payload.toString())
  }
}

t.test('all logs together hold no more than they may: those that were quiet for the longest time make room', async t => {
  const { logs, append, texts } = setUp()
  for (const group of ['a', 'b', 'c']) append(group, 'x'.repeat(2_800))
  append('a', 'more')
  append('d', 'x'.repeat(2_800))
  t.strictSame(['a', 'b', 'c', 'd'].map(group => texts(group).length), [2, 0, 1, 1], 'a was used after b')
  t.ok((logs.stats().memoryLogBytes ?? Infinity) <= 15_600)
  append('e', 'x'.repeat(20_000))
  t.strictSame(['a', 'c', 'd', 'e'].map(group => texts(group).length), [0, 0, 0, 1], 'the latest message stays, however large it is')
  append('f', 'x')
  t.strictSame(['e', 'f'].map(group => texts(group).length), [0, 1])
})

t.test('whoever knows a position in a log that made room is told of the gap', async t => {
  const { logs, append } = setUp()
  const before = append('a', 'x'.repeat(6_000)).positions.get('a')
  append('b', 'x'.repeat(6_000))
  t.equal(logs.read('a', before, 10).gap, 'epoch')
  append('a', 'again')
  t.equal(logs.read('a', before, 10).gap, 'epoch')
})

t.test('a log ends when its time is over, whatever the times of others are', async t => {
  const { clock, logs, append, texts } = setUp()
  append('long', 'x', { ttlMs: 100_000 })
  append('short', 'x', { ttlMs: 1_000 })
  clock.now = 1_000
  t.strictSame([texts('long').length, texts('short').length], [1, 0])
  t.strictSame(logs.end('short'), logStart)
  clock.now = 100_000
  append('other', 'x')
  t.strictSame(logs.stats(), { memoryLogs: 1, memoryLogBytes: 2_006 })
})

t.test('small messages count for what they take in memory; a log of them keeps as many as it may', async t => {
  const { logs, append } = setUp(10_000_000)
  const most = { maxMessages: 1_000, maxBytes: 1_048_576 }
  for (let n = 0; n < 1_001; n++) append('a', 'x', most)
  t.equal(logs.read('a', logStart, 2_000).messages.length, 1_000)
  t.equal(logs.stats().memoryLogBytes, 1_000 + 1_000 * 1_002)
})

t.test('a message to several groups is stored in each, and once with a key', async t => {
  const { clock, logs } = setUp()
  const targets = [{ group: 'a', log: limits }, { group: 'b', log: undefined }, { group: 'c', log: limits }]
  const first = logs.append(targets, messageEnvelope('x'), 'key')
  t.strictSame([...first.positions.keys()], ['a', 'c'])
  t.strictSame(first.copies.map(({ target, position }) => [target.name, position]), [
    ['a', first.positions.get('a')], ['b', undefined], ['c', first.positions.get('c')]
  ])
  const again = logs.append(targets, messageEnvelope('x'), 'key')
  t.strictSame([again.duplicate, again.positions], [true, first.positions])
  clock.now = 300_001
  t.equal(logs.append(targets, messageEnvelope('x'), 'key').duplicate, false, 'the key is forgotten after five minutes')
})
