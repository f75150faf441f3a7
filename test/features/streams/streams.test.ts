import t, { type Test } from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { createPublisher } from '../../../plugin.ts'
import { connect as connectClient, type ConnectOptions } from '../../../lib/client/index.ts'
import { streamsOf, type Streams, type StreamView } from '../../../lib/client/streams.ts'
import { memoryInstances, onEveryCluster, onRedis, type TestInstance } from '../../helpers/app.ts'
import { connect } from '../../helpers/client.ts'
import { watchMachine } from '../../helpers/machine.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { startRedis } from '../../helpers/redis.ts'
import { serve } from '../../helpers/service.ts'
import { until } from '../../helpers/until.ts'

noUnhandled(t)
const machine = watchMachine(t)
const redis = await startRedis(t)
// Streams outlive their instances.
t.beforeEach(async () => { await redis.admin.flushall() })

interface Reader {
  readonly streams: Streams
  /** All that was told of one stream. */
  readonly told: StreamView[]
  close (): void
}

async function read (
  t: Test, { url }: TestInstance, { quietMs = 10_000, ...options }: ConnectOptions & { quietMs?: number } = {}
): Promise<Reader> {
  const client = connectClient(`${url}/ws/lobby`, { WebSocket, backoff: { minMs: 10, maxMs: 20 }, ...options })
  t.teardown(() => client.close())
  const streams = streamsOf(client, { quietMs })
  const told: StreamView[] = []
  streams.on('stream', view => told.push(view))
  await until(() => client.groups.includes('lobby'))
  return { streams, told, close: () => client.close() }
}

const textOf = ({ streams }: Reader, id = 'r1'): string | undefined => streams.get('lobby', id)?.text

/** Each view begins with the text of the one before: nothing is lost, doubled or changed. */
function assertGrows (t: Test, { told }: Reader): void {
  for (const [index, { text }] of told.entries()) t.ok(text.startsWith(told[index - 1]?.text ?? ''), `view ${index}`)
}

onEveryCluster(t, redis, 'a text grows for all members, wherever they are and whenever they come', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const early = await read(t, a)
  const stream = a.registry.stream('lobby', 'r1', { owner: 'ann', meta: { model: 'large' }, flushMs: 10 })
  const words = Array.from({ length: 300 }, (_, n) => `wörd${n} 😀 `)
  for (const word of words.slice(0, 150)) {
    t.ok(stream.append(word))
    await sleep(1)
  }
  const late = await read(t, b)
  await until(() => textOf(late) !== undefined)
  const [first] = late.told
  t.ok((first?.text.length ?? 0) > 1_000, 'who comes late gets what there is at once')
  t.match(first, { state: 'open', meta: { model: 'large' } })
  for (const word of words.slice(150)) {
    stream.append(word)
    await sleep(1)
  }
  await stream.done({ tokens: 300 })
  t.equal(stream.state, 'done')
  t.notOk(stream.signal.aborted)
  for (const reader of [early, late]) {
    await until(() => reader.streams.get('lobby', 'r1')?.state === 'done')
    t.equal(textOf(reader), words.join(''))
    assertGrows(t, reader)
    t.match(reader.told.at(-1), { group: 'lobby', id: 'r1', result: { tokens: 300 }, meta: { model: 'large' }, error: undefined })
    t.equal(reader.streams.get('lobby', 'r1'), reader.streams.list('lobby')[0], 'the same object as long as nothing changes')
  }
  t.ok(early.told.length < 250, `pieces are gathered: ${early.told.length}`)
  const reloaded = await read(t, a)
  await until(() => reloaded.told.length > 0)
  t.strictSame(reloaded.told.map(({ text, state }) => [text, state]), [[words.join(''), 'done']], 'the whole text at once')
  t.match(
    await b.registry.readStream('lobby', 'r1'), { id: 'r1', owner: 'ann', text: words.join(''), state: 'done', result: { tokens: 300 } }
  )
  t.equal(await b.registry.readStream('lobby', 'none'), undefined)
  t.equal(stream.append('late'), false)
  await stream.fail(new Error('late'))
  t.equal(stream.state, 'done')
})

onEveryCluster(t, redis, 'the owner stops a stream from any instance, and nobody else but whom the route lets', async (t, cluster) => {
  const mayStop = ({ userId }: { userId: string | undefined }): boolean => userId === 'mod'
  const room = { auth: { required: false }, group: ({ room }: { room: string }) => room, mayStop }
  const routes: NonNullable<Parameters<typeof cluster.start>[0]>['routes'] = app => app.wsRoom('/by/:room', room)
  const [a, b] = [await cluster.start({ routes }), await cluster.start({ routes })]
  const at = { ...b, url: b.url }
  const [ann, eve] = [await read(t, at, { token: 'ann' }), await read(t, at, { token: 'eve' })]
  const outside = connectClient(`${b.url}/ws/other`, { WebSocket, token: 'ann' })
  t.teardown(() => outside.close())
  const begin = (id: string): ReturnType<typeof a.registry.stream> => {
    const stream = a.registry.stream('lobby', id, { owner: { userId: 'ann' } })
    stream.append('so far')
    return stream
  }
  const stream = begin('r1')
  await until(() => textOf(ann) === 'so far')
  await t.rejects(eve.streams.stop('lobby', 'r1'), { code: 'WSG_FORBIDDEN' })
  await t.rejects(streamsOf(outside).stop('lobby', 'r1'), { code: 'WSG_FORBIDDEN' }, 'not a member')
  t.notOk(stream.signal.aborted)
  t.equal(await ann.streams.stop('lobby', 'r1'), true)
  t.match(stream.signal, { aborted: true, reason: { code: 'WSG_STREAM_STOPPED' } })
  t.equal(stream.append(' and more'), false)
  for (const { streams } of [ann, eve]) await until(() => streams.get('lobby', 'r1')?.state === 'stopped')
  t.equal(textOf(eve), 'so far')
  t.equal(await ann.streams.stop('lobby', 'r1'), false, 'it has ended')
  t.equal(await ann.streams.stop('lobby', 'none'), false)

  const stops: Array<{ readonly tookMs: number, readonly deniedMs: number }> = []
  for (let n = 0; n < 21; n++) {
    const { id, signal } = begin(`timed ${n}`)
    await until(() => textOf(ann, id) === 'so far')
    machine.restart()
    const startedAt = performance.now()
    signal.addEventListener('abort', () => stops.push({ tookMs: performance.now() - startedAt, deniedMs: machine.deniedMs }))
    await ann.streams.stop('lobby', id)
  }
  const { tookMs = NaN, deniedMs = NaN } = stops.sort((a, b) => a.tookMs - a.deniedMs - b.tookMs + b.deniedMs)[10] ?? {}
  t.comment(`the producer, on another instance, hears of a stop after ${tookMs.toFixed(1)} ms`)
  t.ok(tookMs < 100 + deniedMs, `${tookMs} ms, of which the machine denied ${deniedMs}`)

  const second = begin('r2')
  const mod = connectClient(`${b.url}/by/lobby`, { WebSocket, token: 'mod' })
  t.teardown(() => mod.close())
  await until(() => mod.groups.length === 1)
  await until(async () => await b.registry.readStream('lobby', 'r2') !== undefined)
  t.equal(await streamsOf(mod).stop('lobby', 'r2'), true)
  t.ok(second.signal.aborted)
  const third = begin('r3')
  await until(async () => await b.registry.readStream('lobby', 'r3') !== undefined)
  t.equal(await b.registry.stopStream('lobby', 'r3'), true, 'the service may stop any')
  t.ok(third.signal.aborted)
  for (const client of [mod, outside]) client.close()
  for (const reader of [ann, eve]) reader.close()
})

onEveryCluster(t, redis, 'a stream that goes wrong ends, for its producer and for its readers', async (t, cluster) => {
  const a = await cluster.start()
  const reader = await read(t, a)
  const ended = async (id: string): Promise<StreamView | undefined> => await until(() => {
    const view = reader.streams.get('lobby', id)
    return view === undefined || view.state === 'open' ? undefined : view
  })
  const long = a.registry.stream('lobby', 'long', { maxBytes: 10 })
  t.ok(long.append('12345'))
  t.notOk(long.append('678901'))
  t.match(long.signal.reason, { code: 'WSG_STREAM_LIMIT' })
  t.match(await ended('long'), { state: 'failed', text: '12345', error: { code: 'WSG_STREAM_LIMIT' } })

  const idle = a.registry.stream('lobby', 'idle', { idleMs: 1_000 })
  t.match(await ended('idle'), { state: 'failed', error: { code: 'WSG_TIMEOUT' } })
  t.match(idle.signal.reason, { code: 'WSG_TIMEOUT' })

  const failing = a.registry.stream('lobby', 'failing')
  await failing.fail(Object.assign(new Error('the quota is used up'), { statusCode: 429, code: 'QUOTA' }))
  t.match(await ended('failing'), { state: 'failed', error: { code: 'QUOTA', message: 'the quota is used up' } })
  const secret = a.registry.stream('lobby', 'secret')
  await secret.fail(new Error('password=hunter2'))
  t.match(await ended('secret'), { error: { code: 'WSG_HANDLER_FAILED' } })
  t.notMatch(JSON.stringify(reader.told), /hunter2/)

  const open = a.registry.stream('lobby', 'open')
  t.throws(() => a.registry.stream('lobby', 'open'), { code: 'WSG_STREAM_TAKEN' })
  const b = await cluster.start()
  await until(async () => await b.registry.readStream('lobby', 'open') !== undefined)
  const taken = b.registry.stream('lobby', 'open')
  await until(() => taken.signal.aborted)
  t.match(taken.signal.reason, { code: 'WSG_STREAM_TAKEN' })
  await open.done()
  const again = b.registry.stream('lobby', 'open')
  again.append('of another')
  await again.done()
  await until(() => textOf(reader, 'open') === 'of another')

  const halves = a.registry.stream('lobby', 'halves')
  halves.append('a\ud83d')
  halves.append('\ude00b\udc00c\ud83d')
  await halves.done()
  t.equal((await ended('halves'))?.text, 'a😀b\ufffdc\ufffd')

  for (const [id, options] of [
    ['', {}], ['x'.repeat(129), {}], [7, {}], ['x', { flushMs: 1 }], ['x', { maxBytes: 2e6 }], ['x', { nope: 1 }]
  ] as const) {
    t.throws(() => a.registry.stream('lobby', id as string, options as object), { code: 'WSG_OPTION_INVALID' })
  }
  t.throws(() => a.registry.stream('', 'x'), { code: 'WSG_GROUP_NAME_INVALID' })
  t.throws(() => a.registry.stream('lobby', 'x', { meta: 1n }), { code: 'WSG_DATA_INVALID' })
  t.throws(() => a.registry.stream('lobby', 'x', { meta: 'x'.repeat(5_000) }), { code: 'WSG_DATA_INVALID' })
  t.throws(() => halves.append(7 as never), { code: 'WSG_DATA_INVALID' })
  for (let n = 0; n < 50; n++) a.registry.stream('lobby', `own${n}`, { owner: 'ann' })
  t.throws(() => a.registry.stream('lobby', 'own50', { owner: 'ann' }), { code: 'WSG_STREAM_LIMIT' })
  t.match(a.registry.stats(), { streams: 50, streamsRefused: 1 })
  const others = Array.from({ length: 60 }, (_, n) => a.registry.stream('lobby', `other${n}`))
  await until(() => others.some(({ signal }) => signal.aborted))
  t.match(others.find(({ signal }) => signal.aborted)?.signal.reason, { code: 'WSG_STREAM_LIMIT' }, 'the group has too many')
  reader.close()
})

onEveryCluster(t, redis, 'an instance that closes waits for its streams, and ends those that take too long', async (t, cluster) => {
  const [a, b] = [await cluster.start({ closeGraceMs: 2_000 }), await cluster.start()]
  const reader = await read(t, b)
  const [quick, slow] = [a.registry.stream('lobby', 'quick'), a.registry.stream('lobby', 'slow')]
  quick.append('one ')
  slow.append('so far')
  await until(() => textOf(reader, 'slow') === 'so far')
  const closing = a.close()
  await sleep(100)
  t.ok(quick.append('two'))
  await quick.done()
  await closing
  t.match(slow.signal.reason, { code: 'WSG_CLOSED' })
  t.throws(() => a.registry.stream('lobby', 'after'), { code: 'WSG_CLOSED' })
  await until(() => reader.streams.get('lobby', 'slow')?.state === 'failed')
  t.match(reader.streams.get('lobby', 'quick'), { state: 'done', text: 'one two' })
  t.match(reader.streams.get('lobby', 'slow'), { text: 'so far', error: { code: 'WSG_CLOSED' } })
  reader.close()
})

onEveryCluster(t, redis, 'a text can be read as long as it grows, and for keepMs after its end', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const stream = a.registry.stream('lobby', 'short', { keepMs: 1_000 })
  stream.append('so far')
  const read = async (): Promise<unknown> => await b.registry.readStream('lobby', 'short')
  await until(async () => await read() !== undefined)
  await sleep(1_500)
  t.match(await read(), { state: 'open', text: 'so far' }, 'however long the producer thinks')
  await stream.done()
  await until(async () => await read() === undefined)
  t.equal(stream.state, 'done')
})

onRedis(t, redis, 'a producer that vanished is noticed by whoever reads, and told to all', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const [one, other] = [await read(t, a, { quietMs: 200 }), await read(t, b, { quietMs: 60_000 })]
  const stream = b.registry.stream('lobby', 'r1', { idleMs: 60_000 })
  stream.append('so far')
  await until(() => textOf(one) === 'so far' && textOf(other) === 'so far')
  const [head = ''] = (await redis.keys()).filter(key => key.includes(':sh:'))
  await redis.admin.hset(head, 'beat', '1')
  for (const { streams } of [one, other]) await until(() => streams.get('lobby', 'r1')?.state === 'failed')
  t.match(other.streams.get('lobby', 'r1'), { text: 'so far', error: { code: 'WSG_STREAM_LOST' } })
  stream.append(' and more')
  await until(() => stream.signal.aborted)
  t.match(stream.signal.reason, { code: 'WSG_STREAM_LOST' }, 'a producer that wakes up later hears of it')
  for (const reader of [one, other]) reader.close()
})

onRedis(t, redis, 'a worker without sockets makes streams, which clients may stop', async (t, cluster) => {
  const a = await cluster.start()
  const reader = await read(t, a, { token: 'ann' })
  const publisher = createPublisher({ redis: redis.url })
  const stream = publisher.stream('lobby', 'r1', { owner: 'ann' })
  stream.append('from a worker')
  await until(() => textOf(reader) === 'from a worker')
  t.match(await publisher.readStream('lobby', 'r1'), { text: 'from a worker', state: 'open' })
  t.equal(await reader.streams.stop('lobby', 'r1'), true)
  t.match(stream.signal.reason, { code: 'WSG_STREAM_STOPPED' })
  const second = a.registry.stream('lobby', 'r2')
  await until(async () => await publisher.readStream('lobby', 'r2') !== undefined)
  t.equal(await publisher.stopStream('lobby', 'r2'), true)
  t.ok(second.signal.aborted)
  const third = publisher.stream('lobby', 'r3')
  await publisher.close()
  t.match(third.signal.reason, { code: 'WSG_CLOSED' })
  await until(() => reader.streams.get('lobby', 'r3')?.state === 'failed')
  reader.close()
})

t.test('a stream takes what a source yields, and ends as the source does, or before it', async t => {
  const { registry } = await memoryInstances(t).start()
  const ended: string[] = []
  async function * source (name: string, error?: Error): AsyncGenerator<string> {
    try {
      yield 'Hello'
      if (error !== undefined) throw error
      yield ', world'
    } finally {
      ended.push(name)
    }
  }
  t.equal(await registry.stream('lobby', 'whole').pipe(source('whole')), 'done')
  t.match(await registry.readStream('lobby', 'whole'), { text: 'Hello, world', state: 'done' })
  const quota = Object.assign(new Error('the quota is used up'), { statusCode: 429, code: 'QUOTA' })
  t.equal(await registry.stream('lobby', 'failing').pipe(source('failing', quota)), 'failed')
  t.match(await registry.readStream('lobby', 'failing'), { text: 'Hello', state: 'failed', error: { code: 'QUOTA' } })
  const stopped = registry.stream('lobby', 'stopped')
  await registry.stopStream('lobby', 'stopped')
  t.equal(await stopped.pipe(source('stopped')), 'stopped')
  t.strictSame(ended, ['whole', 'failing', 'stopped'], 'and no generator is left')
})

t.test('what mayStop fails with is logged, whatever its code, and the client learns nothing of it', async t => {
  const failure = Object.assign(new Error('connect ECONNREFUSED db.internal'), { code: 'ECONNREFUSED' })
  const { registry, url, logs } = await serve(t, {}, app => {
    app.wsRoom('/ws/:room', { auth: { required: false }, group: ({ room }) => room, mayStop: () => { throw failure } })
  })
  const client = connect(t, `${url}/ws/lobby`)
  await until(async () => await registry.groupCount('lobby') === 1)
  const stream = registry.stream('lobby', 'r1')
  await until(async () => await registry.readStream('lobby', 'r1') !== undefined)
  client.send('{"type":"wsg.stream.stop","id":1,"data":{"group":"lobby","id":"r1"}}')
  const answer = await client.nextWhere(message => String(message).includes('"type":"error"'))
  t.match(JSON.parse(String(answer)), { id: 1, code: 'WSG_HANDLER_FAILED' })
  t.notMatch(String(answer), /db\.internal/)
  t.match(logs.filter(({ event }) => event === 'message_handler_failed'), [{ name: 'wsg.stream.stop', err: { code: 'ECONNREFUSED' } }])
  await stream.done()
})
