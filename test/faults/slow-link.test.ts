import t from 'tap'
import { logStart } from '../../lib/backplane/position.ts'
import type { Member } from '../../lib/types.ts'
import { openFramed } from '../features/framed/framed-client.ts'
import { Local } from '../helpers/local-instance.ts'
import { slowdown, watchMachine } from '../helpers/machine.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { startRedis } from '../helpers/redis.ts'
import { serve, type Served } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'
import { appendQuietly, startBackplane, type TestInstance } from './log-rig.ts'

const bytesPerSecond = 1_250_000
const machine = watchMachine(t)

t.test('over a slow link all of a large log is read, while appends and beats go on', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const { backplane, append } = await startBackplane(t, proxy.url, { groups: ['log other'] })
  const stored = 60
  for (let n = 0; n < stored; n++) await appendQuietly(redis.admin, 'log big', String(n).padEnd(100_000))
  // One that takes longer than the deadline of a call.
  await appendQuietly(redis.admin, 'log big', 'last'.padEnd(900_000))
  proxy.limit(bytesPerSecond)
  const reading = new AbortController()
  const results: Array<number | string> = []
  const appending = (async () => {
    while (!reading.signal.aborted) {
      results.push(...await append(['x'], { group: 'log other' }))
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  })()
  const texts: string[] = []
  try {
    for (let since = logStart, more = true; more;) {
      const page = await backplane.history('log big', since, 1_000)
      texts.push(...page.messages.map(({ payload }) => payload.toString('latin1', 0, 10).trim()))
      since = page.messages.at(-1)?.position ?? since
      more = page.more
    }
  } finally {
    reading.abort()
    await appending
  }
  t.strictSame(texts, [...Array.from({ length: stored }, (_, n) => String(n)), 'last'])
  t.strictSame(results, results.map((_, index) => index + 1), 'every append was stored once, at the first try')
  t.ok(results.length >= 10)
  t.equal(backplane.state, 'up')
  t.match(backplane.stats(), { redisReconnects: 0, bulkReadsFailed: 0, leasesLost: 0 })
})

t.test('repairs of many groups over a slow link end, and the link stays up', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const groups = Array.from({ length: 50 }, (_, n) => `log ${n}`)
  const { local, backplane } = await startBackplane(t, proxy.url, { groups })
  for (const group of groups) for (let n = 0; n < 40; n++) await appendQuietly(redis.admin, group, String(n).padEnd(1_500))
  proxy.limit(bytesPerSecond)
  // The subscriptions alone break: what was missed is noticed when they are back.
  await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await until(() => local.received.length === 50 * 40, { timeoutMs: 60_000, what: 'all repairs' })
  await until(() => backplane.state === 'up', { timeoutMs: 60_000 })
  t.strictSame(local.gaps, [])
  t.match(backplane.stats(), { redisTimeouts: 0, bulkReadsFailed: 0, leasesLost: 0 })
})

/** How long broadcasts to another group take meanwhile until they are stored and members have them: the median (ms). */
async function pace ({ append, local }: TestInstance, until: AbortSignal) {
  const tookMs: number[] = []
  let heard = (): void => {}
  const deliver = local.deliver.bind(local)
  local.deliver = envelope => {
    deliver(envelope)
    if (envelope.target.name === 'log other') heard()
  }
  while (!until.aborted) {
    const startedAt = performance.now()
    const delivered = new Promise<void>(resolve => { heard = resolve })
    const [offset] = await append(['x'], { group: 'log other' })
    if (typeof offset !== 'number') throw new Error(`not appended: ${offset}`)
    await delivered
    tookMs.push(performance.now() - startedAt)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
  return { count: tookMs.length, median: tookMs.sort((a, b) => a - b)[tookMs.length >> 1] ?? 0 }
}

for (const [name, rate, groupCount, shared, turnBytes] of [
  ['100 Mbit/s', 12_500_000, 100, false], ['10 Mbit/s', 1_250_000, 20, false], ['100 Mbit/s for all connections', 12_500_000, 100, true],
  ['10 Mbit/s for all connections', 1_250_000, 20, true], ['10 Mbit/s for all connections in turns of 16 KB', 1_250_000, 20, true, 16_384]
] as const) {
  t.test(`at ${name} a repair of ${groupCount} groups uses the link well, and broadcasts to another group go on beside it`, async t => {
    const redis = await startRedis(t)
    const proxy = await startProxy(t, redis.port)
    const groups = Array.from({ length: groupCount }, (_, n) => `log ${n}`)
    const instance = await startBackplane(t, proxy.url, { groups: [...groups, 'log other'] })
    const { local, backplane } = instance
    const size = 1_500
    for (const group of groups) {
      await Promise.all(Array.from({ length: 100 }, async (_, n) => await appendQuietly(redis.admin, group, String(n).padEnd(size))))
    }
    proxy.limit(rate, shared, turnBytes)
    const usual = new AbortController()
    setTimeout(() => usual.abort(), 500)
    const before = await pace(instance, usual.signal)
    const repairing = new AbortController()
    const pacing = pace(instance, repairing.signal)
    machine.restart()
    const startedAt = performance.now()
    await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
    let own = false
    const delivered = (): number => local.received.filter(({ payload }) => payload.length === size).length
    await until(() => {
      own ||= backplane.stats().redisConnections === 3
      return delivered() === groupCount * 100
    }, { timeoutMs: 120_000, everyMs: 20, what: 'all repairs' })
    const tookMs = performance.now() - startedAt
    repairing.abort()
    const during = await pacing
    const bytes = backplane.stats().bulkBytes ?? 0
    const { deniedMs } = machine
    const answerBytes = bytes / (backplane.stats().bulkReads ?? 0)
    const share = bytes / (rate * tookMs / 1_000)
    t.comment(`${name}: ${Math.round(tookMs)} ms, ${Math.round(100 * share)} % of the link, ` +
      `broadcasts ${before.median.toFixed(1)} ms before and ${during.median.toFixed(1)} ms meanwhile (${during.count}), ` +
      `${Math.round(answerBytes)} bytes an answer`)
    t.ok(own, 'by a connection of its own')
    // A faster link waits for this machine, not the machine for the link.
    if (rate < 10_000_000) {
      // What is read in turns is so small that the next request is a fifth of the time under way.
      machine.within(t, tookMs, bytes / ((turnBytes === undefined ? 0.8 : 0.6) * rate) * 1_000, 'the link is used')
      const limit = 2 * before.median + 5 + deniedMs / during.count
      t.ok(during.median < limit, `broadcasts take ${before.median} ms, and ${during.median} ms meanwhile`)
    }
    // The turn of another connection would take as long as any answer up to that size, but others wait for half of it on average.
    // On a busy machine answers wait for this process, which looks like a longer way to Redis: there, larger answers are right.
    if (turnBytes !== undefined) t.ok(answerBytes < turnBytes / 2 * (1 + deniedMs / tookMs), 'answers are smaller than a turn')
    t.ok(bytes < 1.2 * groupCount * 100 * size, 'hardly anything was read twice')
    t.strictSame(local.gaps, [])
    t.match(backplane.stats(), { redisTimeouts: 0, bulkReadsFailed: 0, leasesLost: 0 })
  })
}

t.test('over a slow link long member lists come in pages, once for all who ask, and others go on', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const instance = await startBackplane(t, proxy.url, { groups: ['log other'] })
  const { backplane } = instance
  const count = 2_000
  for (const id of ['instance01', 'instance02']) {
    const fields = Array.from(
      { length: count }, (_, n) => [`${id}.${n}`, JSON.stringify([0, `user ${n}`, null, { name: 'x'.repeat(900) }])]
    )
    await redis.admin.hset(`wsg:{0}:m:big:${id}`, Object.fromEntries(fields) as Record<string, string>)
    await redis.admin.hset('wsg:{0}:r:big', { [id]: count, '#': 2 * count })
  }
  proxy.limit(4 * bytesPerSecond)
  const reading = new AbortController()
  const pacing = pace(instance, reading.signal)
  const lists = await Promise.all(Array.from({ length: 8 }, async () => await backplane.members('big')))
  reading.abort()
  const { count: appended } = await pacing
  for (const list of lists) t.equal(new Set(list.map(({ connectionId }) => connectionId)).size, 2 * count)
  t.ok(appended > 10)
  t.match(backplane.stats(), { redisTimeouts: 0, redisReconnects: 0, bulkReadsFailed: 0 })
  t.ok((backplane.stats().bulkBytes ?? 0) < 3 * 2 * count * 1_000, 'two reads for eight who asked')
  t.ok((backplane.stats().bulkReads ?? 0) > 20, 'in pages')
})

t.test('over a slow link long streams of tokens are read in parts, while appends to another group go on', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const instance = await startBackplane(t, proxy.url, { groups: ['log other'] })
  const { backplane } = instance
  // The end of a part may come in the midst of a character.
  const store = async (id: number, epoch: string, characters: number): Promise<void> => {
    await redis.admin.multi().set(`wsg:{0}:st:3:big:${id}`, 'x' + '\u{1f600}'.repeat(characters))
      .hset(`wsg:{0}:sh:3:big:${id}`, { epoch, head: '{"by":"x"}', state: 'done', end: '{}', beat: '1' }).exec()
  }
  const count = 6
  for (let id = 0; id < count; id++) await store(id, 'first', 250_000)
  proxy.limit(bytesPerSecond)
  const reading = new AbortController()
  const pacing = pace(instance, reading.signal)
  const reads = Array.from({ length: count }, async (_, id) => await backplane.streams.read({ group: 'big', id: String(id) }, 0))
  await until(() => (backplane.stats().bulkReads ?? 0) > 2 * count, { what: 'two parts of each' })
  await store(0, 'second', 100_000)
  await store(1, 'first', 10)
  const streams = await Promise.all(reads)
  reading.abort()
  const { count: appended } = await pacing
  const texts = streams.map(stream => [stream?.epoch, stream?.bytes, stream?.text.toString().replaceAll('\u{1f600}', '').length])
  const [replaced, shortened, ...others] = texts
  t.strictSame(replaced, ['second', 400_001, 1], 'what took its place meanwhile')
  t.strictSame(shortened, ['first', 41, 1], 'what is left of it')
  t.strictSame(others, others.map(() => ['first', 1_000_001, 1]))
  t.ok(streams.every(stream => stream?.text.length === stream?.bytes))
  t.ok(appended > 10)
  t.match(backplane.stats(), { redisTimeouts: 0, redisReconnects: 0, bulkReadsFailed: 0 })
})

t.test('without the right to read pages of a hash member lists are read whole', async t => {
  const redis = await startRedis(t)
  await redis.admin.call('ACL', 'SETUSER', 'narrow', 'on', '>secret', '~*', '&*', '+@all', '-hscan')
  const { backplane } = await startBackplane(t, redis.url.replace('//', '//narrow:secret@'))
  await redis.admin.hset('wsg:{0}:m:big:instance01', { 'instance01.1': '[0,"user",null]' })
  await redis.admin.hset('wsg:{0}:r:big', { instance01: 1, '#': 1 })
  t.same(await backplane.members('big'), [{ connectionId: 'instance01.1', instanceId: 'instance01', userId: 'user', joinedAt: 0 }])
})

t.test('over a slow link thousands of members with as much information as they may have are stored at the first try', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const local = await new class extends Local {
    override member (group: string, connectionId: string): Member | undefined {
      const member = super.member(group, connectionId)
      return member === undefined ? undefined : { ...member, userId: '"'.repeat(255), info: 'x'.repeat(1_022) }
    }
    // Some two fifths of it are for the link; the rest is the work of this machine.
  }({ redis: proxy.url, operationTimeoutMs: Math.round(500 * slowdown()) }).start(t)
  proxy.limit(bytesPerSecond)
  await Promise.all(Array.from({ length: 2_000 }, async (_, n) => await local.join('room', `${local.instanceId}.${n}`)))
  t.equal(await local.backplane.count('room'), 2_000)
  t.match(local.backplane.stats(), { redisTimeouts: 0, redisReconnects: 0, leasesLost: 0 })
})

t.test('over a slow link clients that resume in many groups at once are given all that they missed', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const routes = (app: Served['app']): void => app.wsRoom('/:room', { auth: false })
  const [near, far] = [await serve(t, { redis: redis.url }, routes), await serve(t, { redis: proxy.url }, routes)]
  const rooms = Array.from({ length: 30 }, (_, n) => `room-${n}`)
  const texts = Array.from({ length: 50 }, (_, n) => String(n).padEnd(1_500))
  const since = await Promise.all(rooms.map(async room => (await near.registry.broadcastToGroup(room, 'known')).position))
  for (const text of texts) await Promise.all(rooms.map(async room => await near.registry.broadcastToGroup(room, text)))
  proxy.limit(bytesPerSecond)
  await Promise.all(rooms.map(async (room, index) => {
    const client = await openFramed(t, `${far.url}/${room}`, { hello: { resume: { [room]: since[index] } } })
    t.match(await client.nextOf('joined'), { recovered: true }, room)
    await client.nextOf('message', { data: texts.at(-1) })
    t.strictSame(client.frames.filter(({ type }) => type === 'message').map(({ data }) => data), texts, `${room}: each once, in order`)
  }))
  t.match(far.registry.stats(), { bulkReadsFailed: 0, redisTimeouts: 0, redisReconnects: 0 })
})

t.test('over a slow link large messages are stored at the first try, and small ones do not wait behind them', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const instance = await startBackplane(t, proxy.url, { groups: ['log other'] })
  const { backplane, append } = instance
  proxy.limit(bytesPerSecond)
  const sending = new AbortController()
  const pacing = pace(instance, sending.signal)
  const texts = ['a', 'b', 'c'].map(letter => letter.padEnd(900_000))
  t.strictSame(await append(texts), [1, 2, 3])
  sending.abort()
  const { count } = await pacing
  t.ok(count > 10, `${count} other messages were stored meanwhile`)
  t.match(backplane.stats(), { redisTimeouts: 0, redisReconnects: 0, appendRetries: 0 })
  t.equal(backplane.state, 'up')
})
