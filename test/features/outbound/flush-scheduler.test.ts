import t from 'tap'
import { EventEmitter } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import type { WebSocket } from 'ws'
import { Metrics } from '../../../lib/metrics.ts'
import { Batch } from '../../../lib/connection/outbound/batch.ts'
import { FlushScheduler } from '../../../lib/connection/outbound/flush-scheduler.ts'
import { openWire } from '../../../lib/connection/outbound/ws-internals.ts'
import { silentLog } from '../../helpers/loggers.ts'
import { until } from '../../helpers/until.ts'

const limits = { maxBufferedBytes: 1_000, slowBufferedBytes: 1_000, flushIntervalMs: 0, limits: { bufferedBytes: undefined } }

function work (ms: number): void {
  const end = performance.now() + ms
  while (performance.now() < end);
}

const total = (list: readonly number[]): number => list.reduce((sum, one) => sum + one, 0)

t.test('thousands of sockets are written to in slices, between which the event loop goes on', async t => {
  const scheduler = new FlushScheduler(limits, new Metrics(), silentLog)
  const turns: number[] = []
  let most = 0
  let seen = 0
  let watching = true
  const look = (): void => {
    most = Math.max(most, turns.length - seen)
    seen = turns.length
    if (watching) setImmediate(look)
  }
  look()
  for (let n = 0; n < 3_000; n++) scheduler.add({ flushScheduled () { work(0.1); turns.push(n) } })
  await until(() => turns.length === 3_000)
  watching = false
  t.strictSame(turns, Array.from({ length: 3_000 }, (_, n) => n), 'each once, in order')
  t.ok(most < 100, `${most} of 3,000 in one turn of the event loop`)
})

t.test('a stream that throws does not keep the others from being written to', async t => {
  const scheduler = new FlushScheduler(limits, new Metrics(), silentLog)
  const turns: string[] = []
  const thrown = new Promise<Error>(resolve => process.once('uncaughtException', resolve))
  scheduler.add({ flushScheduled () { throw new Error('broken stream') } })
  scheduler.add({ flushScheduled () { turns.push('same round') } })
  t.match(await thrown, { message: 'broken stream' })
  await until(() => turns.length === 1)
  scheduler.add({ flushScheduled () { turns.push('later') } })
  await until(() => turns.length === 2)
  t.strictSame(turns, ['same round', 'later'])
})

t.test('who gets frames while others are written to comes after them', async t => {
  const scheduler = new FlushScheduler(limits, new Metrics(), silentLog)
  const turns: string[] = []
  const busy = { flushScheduled () { turns.push('busy') } }
  scheduler.add({ flushScheduled () { turns.push('first'); scheduler.add(busy) } })
  scheduler.add({ flushScheduled () { turns.push('second') } })
  await until(() => turns.length === 3)
  t.strictSame(turns, ['first', 'second', 'busy'])
})

t.test('with frames coming all the time half of the event loop is left to others, and what comes singly goes out at once', async t => {
  const scheduler = new FlushScheduler(limits, new Metrics(), silentLog)
  const passes: Array<{ readonly startedAt: number, endedAt: number }> = []
  let going = true
  const writers = Array.from({ length: 30 }, (_, n) => ({
    flushScheduled () {
      if (n === 0) passes.push({ startedAt: performance.now(), endedAt: 0 })
      work(0.1)
      const pass = passes.at(-1)
      if (pass) pass.endedAt = performance.now()
      if (going) scheduler.add(this)
    }
  }))
  for (const writer of writers) scheduler.add(writer)
  await until(() => passes.length > 20)
  going = false
  const [startedAt, endedAt] = [passes[0]?.startedAt ?? 0, passes[20]?.startedAt ?? 0]
  const lengths = passes.slice(0, 20).map(pass => pass.endedAt - pass.startedAt)
  const pausedMs = endedAt - startedAt - total(lengths)
  // A pass of 3 ms that takes longer than 5 was not given the whole core.
  const busyMs = total(lengths.map(ms => Math.min(ms, 5)))
  const share = busyMs / (busyMs + pausedMs)
  t.ok(share < 0.7, `it was busy for ${Math.round(share * 100)} % of the time`)
  // A pass is followed by a pause as long as the pass took, which on a busy machine is long.
  await sleep(30 + 2 * Math.max(...passes.map(pass => pass.endedAt - pass.startedAt)))
  let written = false
  scheduler.add({ flushScheduled () { written = true } })
  await new Promise(resolve => setImmediate(resolve))
  t.ok(written)
})

t.test('a batch puts its frames together once, also when others go on from it', async t => {
  const [a, b, c] = ['a', 'bb', 'ccc'].map(text => Buffer.from(text)) as [Buffer, Buffer, Buffer]
  const first = new Batch(undefined, a)
  t.equal(first.buffer, a, 'one frame is not copied')
  const second = new Batch(first, b)
  const third = new Batch(second, c)
  t.equal(second.buffer.toString(), 'abb')
  t.equal(second.buffer, second.buffer)
  t.equal(third.buffer.toString(), 'abbccc')
  t.equal(new Batch(second, a).buffer.toString(), 'abba')
  t.equal(third.bytes, 6)
})

t.test('a socket whose inside is not as it is known is left alone', async t => {
  const stream = Object.assign(new EventEmitter(), { write () {}, writableLength: 0 })
  const close = (): void => {}
  const good = (): { [name: string]: unknown } => ({ _socket: stream, _sender: { _socket: stream, close }, _extensions: {} })
  const open = (socket: object): unknown => openWire(socket as WebSocket, { beforeClose () {} })
  t.ok(open(good()))
  const deflate = (extension: unknown): object => ({ ...good(), _extensions: { 'permessage-deflate': extension } })
  t.match(open(deflate({ params: { server_max_window_bits: 12 }, _threshold: 100, _options: {} })), {
    deflate: { windowBits: 12, threshold: 100, options: {} }
  })
  t.match(open(deflate({ params: {}, _threshold: 100 })), { deflate: { windowBits: 15 } })
  const strange: object[] = [
    {},
    { ...good(), _socket: undefined },
    { ...good(), _socket: {} },
    { ...good(), _sender: undefined },
    { ...good(), _sender: { _socket: {}, close } },
    { ...good(), _sender: { _socket: stream } },
    { ...good(), _extensions: undefined },
    deflate({}),
    deflate({ params: { server_max_window_bits: '12' }, _threshold: 100 }),
    deflate({ params: {} })
  ]
  for (const [i, socket] of strange.entries()) t.equal(open(socket), undefined, `case ${i}`)
})
