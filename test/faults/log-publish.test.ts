import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Appended, AppendTarget, LogLimits, LogPosition } from '../../lib/backplane/backplane.ts'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { encodeParts } from '../../lib/backplane/redis/envelope.ts'
import { encodeAppend } from '../../lib/backplane/redis/log/append-call.ts'
import { randomNonce } from '../../lib/backplane/redis/log/random.ts'
import { append } from '../../lib/backplane/redis/log/scripts.ts'
import { drawId } from '../../lib/ids.ts'
import { Wire } from './chaos/wire.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { envelope, logOf, Recorder, startBackplane } from './log-rig.ts'

noUnhandled(t)
const machine = watchMachine(t)
const keys = new Keys('wsg:')
const settings = { maxMessages: 10_000, maxBytes: 1_073_741_824, ttlMs: 60_000 }
const logged = (group: string, more: Partial<LogLimits> = {}): AppendTarget[] => [{ group, log: { ...settings, ...more } }]
const at = ({ positions }: Appended): LogPosition | undefined => [...positions.values()][0]
const texts = (count: number, prefix = ''): string[] => Array.from({ length: count }, (_, n) => `${prefix}${n}`)

t.test('replies that are lost after the call was carried out: each message once, in order, and nobody hears of it', async t => {
  const redis = await startRedis(t)
  const wire = await Wire.start(redis.port)
  t.teardown(() => wire.close())
  // With the other policy those that come while the link is down would be refused.
  const { append, local } = await startBackplane(t, wire.url, { policy: 'queue' })
  const results: Array<Promise<Array<number | string>>> = []
  for (let n = 0; n < 20; n++) {
    const lost = wire.loseReplyTo('evalsha')
    results.push(append(texts(100, `${n}:`)))
    await lost
    results.push(append(texts(10, `${n}:after `)))
    await until(() => wire.links('command') > 0)
    if (n % 2 === 0) wire.cut('command')
    await Promise.all(results)
  }
  const outcomes = (await Promise.all(results)).flat()
  t.same(outcomes.filter(one => typeof one === 'string'), [], 'every call succeeded')
  const expected = Array.from({ length: 20 }, (_, n) => [...texts(100, `${n}:`), ...texts(10, `${n}:after `)]).flat()
  t.same(await logOf(redis), expected)
  t.same(outcomes, expected.map((_, n) => n + 1), 'with the offsets they have')
  await until(() => local.received.length === expected.length)
  t.same(local.events, expected)
})

t.test('SCRIPT FLUSH under load: each message once, in order', async t => {
  const redis = await startRedis(t)
  const { append, local, backplane } = await startBackplane(t, redis.url)
  const flushing = new AbortController()
  t.teardown(() => flushing.abort())
  const flush = (async () => { while (!flushing.signal.aborted) await redis.admin.script('FLUSH', 'SYNC') })()
  const expected = Array.from({ length: 100 }, (_, n) => texts(30, `${n}:`)).flat()
  const results: Array<Promise<Array<number | string>>> = []
  for (let start = 0; start < expected.length; start += 30) {
    results.push(append(expected.slice(start, start + 30)))
    await new Promise(resolve => setImmediate(resolve))
  }
  t.same((await Promise.all(results)).flat(), expected.map((_, n) => n + 1))
  await until(() => local.received.length === expected.length)
  flushing.abort()
  await flush
  t.same(local.events, expected)
  t.same(await logOf(redis), expected)
  t.equal(backplane.stats().appendsWaiting, 0)
})

t.test('a message whose sender heard that it was not sent is never stored; a hang is over for all in time', async t => {
  const redis = await startRedis(t)
  const { append, local, backplane } = await startBackplane(t, redis.url)
  await append(['first'])
  redis.stop()
  machine.restart()
  const startedAt = performance.now()
  const results: Array<Promise<Array<string | number>>> = []
  const sent: string[] = []
  for (let n = 0; n < 40; n++) {
    const some = texts(100, `${n}:`)
    sent.push(...some)
    results.push(append(some))
    await sleep(50)
  }
  const outcomes = (await Promise.all(results)).flat()
  machine.within(t, performance.now() - startedAt, 4_000, `all settled within ${Math.round(performance.now() - startedAt)} ms`)
  t.same([...new Set(outcomes)].sort(), ['WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT'])
  redis.cont()
  await until(() => backplane.state === 'up')
  await append(['last'])
  await until(() => local.events.at(-1) === 'last')
  const stored = await logOf(redis)
  t.same(stored, local.events, 'who was there got what is stored')
  t.equal(new Set(stored).size, stored.length, 'nothing twice')
  const refused = new Set(sent.filter((_, n) => outcomes[n] === 'WSG_BACKPLANE_UNAVAILABLE'))
  t.same(stored.filter(text => refused.has(text)), [])
  const order = new Map(sent.map((text, n) => [text, n]))
  const numbers = stored.slice(1, -1).map(text => order.get(text) ?? -1)
  t.same(numbers, [...numbers].sort((a, b) => a - b), 'in order')
})

t.test('the queue keeps the order through an outage, says so, and is bounded by count and bytes', async t => {
  const redis = await startRedis(t)
  const { append, local, backplane } = await startBackplane(t, redis.url, { policy: 'queue' })
  await append(['first'])
  // Otherwise this instance knows nothing of the log that is lost, and of no gap.
  await until(() => local.received.length === 1)
  await redis.kill()
  await until(() => backplane.state === 'down')
  const queued = Promise.all(texts(1_000).map(async text => await backplane.append(logged('log'), envelope('log', text))))
  await t.rejects(backplane.append(logged('log'), envelope('log', 'one too many')), { code: 'WSG_QUEUE_FULL' })
  await t.rejects(backplane.append(logged('log other'), envelope('log other', 'in any group')), { code: 'WSG_QUEUE_FULL' })
  await redis.restart()
  const results = await queued
  t.ok(results.every(({ queued }) => queued))
  t.same(results.map(one => at(one)?.offset), texts(1_000).map((_, n) => n + 1))
  t.same(await logOf(redis), texts(1_000))
  await until(() => local.received.length === 1_001)
  t.same(local.events.slice(2), texts(1_000), 'after the gap that the empty Redis means')
  t.same(local.events.slice(0, 2), ['first', 'gap: epoch to 0'])
  // Otherwise it may be down still, and not again.
  await until(() => backplane.state === 'up')
  await redis.kill()
  await until(() => backplane.state === 'down')
  const large = Promise.all(texts(3).map(async text => await backplane.append(logged('log'), envelope('log', text + 'x'.repeat(300_000)))))
  await t.rejects(backplane.append(logged('log'), envelope('log', 'x'.repeat(300_000))), { code: 'WSG_QUEUE_FULL' })
  await redis.restart()
  t.equal((await large).length, 3)
})

t.test('the queue is bounded by age, each message by its own', async t => {
  const redis = await startRedis(t)
  const { append, backplane } = await startBackplane(t, redis.url, { policy: 'queue' })
  await redis.kill()
  await until(() => backplane.state === 'down')
  machine.restart()
  const startedAt = performance.now()
  const early = append(['early 1', 'early 2'])
  await sleep(1_500)
  const late = append(['late 1', 'late 2'])
  t.same(await early, ['WSG_BACKPLANE_UNAVAILABLE', 'WSG_BACKPLANE_UNAVAILABLE'])
  const waitedMs = performance.now() - startedAt
  t.ok(waitedMs > 4_900, `given up after ${Math.round(waitedMs)} ms`)
  machine.within(t, waitedMs, 6_400, 'given up before the late ones are as old')
  await redis.restart()
  t.same(await late, [1, 2])
  t.same(await logOf(redis), ['late 1', 'late 2'])
})

t.test('a key stores a message once, also when the reply to the first call was lost', async t => {
  const redis = await startRedis(t)
  const wire = await Wire.start(redis.port)
  t.teardown(() => wire.close())
  const { backplane, append } = await startBackplane(t, wire.url)
  await append(['before'])
  const lost = wire.loseReplyTo('evalsha')
  const call = async () => await backplane.append(logged('log'), envelope('log', 'pay'), 'order 17')
  const first = call()
  await lost
  t.equal((await first).duplicate, false, 'a retry of its own is no duplicate')
  t.equal(at(await first)?.offset, 2)
  t.strictSame(await call(), { ...await first, duplicate: true, queued: false })
  t.match(await Promise.all([call(), append(['after']), call()]), [{ duplicate: true }, [3], { duplicate: true }])
  t.same(await logOf(redis), ['before', 'pay', 'after'])
})

t.test('messages to changing groups go together in few calls, and replies that are lost change nothing', async t => {
  const redis = await startRedis(t)
  const wire = await Wire.start(redis.port)
  t.teardown(() => wire.close())
  const names = ['log a', 'log b', 'log c', 'log d']
  const { backplane, local } = await startBackplane(t, wire.url, { policy: 'queue', groups: [...names, 'plain'] })
  const targets = [
    ['log a'], ['log a', 'log b'], ['log b', 'log a'], ['log b'], ['log c', 'plain', 'log a'], ['log d'], ['log d', 'log c'],
    ['plain', 'log d']
  ]
  const sent: Array<{ readonly text: string, readonly to: readonly string[], readonly stored: Promise<Appended> }> = []
  for (let round = 0; round < 8; round++) {
    const lost = wire.loseReplyTo('evalsha')
    for (let n = 0; n < 50; n++) {
      const [text, to] = [`${round}:${n}`, targets[(n * 7 + round) % targets.length] ?? []]
      const groups = to.flatMap(group => group === 'plain' ? [{ group, log: undefined }] : logged(group))
      sent.push({ text, to, stored: backplane.append(groups, { ...envelope('', text), sequence: sent.length, shared: to.length > 1 }) })
    }
    await lost
    await until(() => wire.links('command') > 0)
    await Promise.all(sent.map(async ({ stored }) => await stored))
  }
  const logs = new Map<string, string[]>()
  for (const name of names) {
    logs.set(name, await logOf(redis, name))
    t.same(logs.get(name), sent.filter(({ to }) => to.includes(name)).map(({ text }) => text), `${name} has each message once, in order`)
  }
  for (const { text, to, stored } of sent) {
    const { positions } = await stored
    const wrong = to.filter(name => name !== 'plain' && logs.get(name)?.[(positions.get(name)?.offset ?? 0) - 1] !== text)
    if (wrong.length > 0 || positions.has('plain')) t.fail(`${text} does not stand in ${wrong.join()} where its sender was told`)
  }
  t.ok((backplane.stats().appendBatches ?? 0) < sent.length / 4, `${backplane.stats().appendBatches} calls for ${sent.length} messages`)
  const copies = sent.reduce((sum, { to }) => sum + to.length, 0)
  await until(() => local.received.length === copies)
  for (const name of [...names, 'plain']) {
    const received = local.received.filter(({ target }) => target.name === name).map(({ payload }) => payload.toString())
    t.same(received, sent.filter(({ to }) => to.includes(name)).map(({ text }) => text), `members of ${name} got each once, in order`)
  }
})

t.test('messages of one turn to many groups leave in a few writes', async t => {
  const redis = await startRedis(t)
  const { backplane } = await startBackplane(t, redis.url)
  const groups = texts(100, 'log ')
  const burst = async (): Promise<void> => {
    await Promise.all(groups.map(async group => await backplane.append(logged(group), envelope(group, 'x'.repeat(50)))))
  }
  const reads = async (): Promise<number> => Number(/total_reads_processed:(\d+)/.exec(await redis.admin.info('stats'))?.[1])
  await burst()
  const before = await reads()
  for (let n = 0; n < 10; n++) await burst()
  const perBurst = (await reads() - before) / 10
  // About 500 bytes each, of which Redis reads 16 KiB at once.
  t.ok(perBurst <= 10, `${perBurst} reads for a hundred messages`)
})

t.test('an instance that comes back under its old id is not taken for a repetition of itself', async t => {
  const redis = await startRedis(t)
  const local = new Recorder()
  const first = await startBackplane(t, redis.url, { local })
  await first.append(texts(5))
  await first.backplane.close()
  const second = await startBackplane(t, redis.url, { local })
  t.same(await second.append(['back', 'again']), [6, 7])
  t.equal((await logOf(redis)).length, 7)
})

/** What the script keeps of a publisher: the sequence of its last message, the offset of that, the time in seconds. */
function record (sequence: number, offset: number, at: number): Buffer {
  const bytes = Buffer.alloc(18)
  for (const [n, value] of [sequence, offset, at].entries()) bytes.writeUIntBE(value, 6 * n, 6)
  return bytes
}

t.test('what a log knows of its publishers is pruned, and its keys expire, but not before it is idle', async t => {
  const redis = await startRedis(t)
  const { append: publish, backplane } = await startBackplane(t, redis.url)
  const now = Math.floor(Date.now() / 1000)
  for (let n = 0; n < 200; n++) {
    const publisher = drawId()
    const message = { ...encodeParts(envelope('log', 'x'), false), targets: logged('log'), sequence: 1, nonce: randomNonce() }
    const { keys: names, args } = encodeAppend(keys, { publisher, key: undefined, messages: [message] })
    await redis.admin.eval(append.lua, names.length, ...names, ...args)
    if (n < 190) await redis.admin.hset(keys.logMeta('log'), `p${publisher}`, record(1, n + 1, now - 1_000))
  }
  t.equal(await redis.admin.hlen(keys.logMeta('log')), 205)
  await publish(texts(300))
  t.equal(await redis.admin.hlen(keys.logMeta('log')), 5 + 10 + 1, 'those of today stay')
  const groups = Array.from({ length: 2_000 }, (_, n) => `log ${n}`)
  await Promise.all(groups.map(async group => await publish(['x'], { group })))
  t.equal(backplane.stats().appendsWaiting, 0)
  const eternal: string[] = []
  for (const key of await redis.keys()) if (/:[hl]:/.test(key)) eternal.push(...await redis.admin.pttl(key) > 0 ? [] : [key])
  t.same(eternal, [])
})

t.test('a log with a few messages leaves nothing soon after them, and its meta outlives them until then', async t => {
  const redis = await startRedis(t)
  const { backplane } = await startBackplane(t, redis.url)
  const rare = async () => await backplane.append(logged('log rare', { ttlMs: 20 }), envelope('log rare', 'x'))
  await rare()
  await until(async () => await redis.admin.exists(keys.log('log rare')) === 0)
  t.ok(await redis.admin.pttl(keys.logMeta('log rare')) < 3_600_000, 'an hour later nothing is left')
  await redis.admin.pexpire(keys.logMeta('log rare'), 60_000)
  t.equal(at(await rare())?.offset, 2, 'or the next message would look like a loss')
  t.ok(await redis.admin.pttl(keys.logMeta('log rare')) > 1_700_000, 'it was prolonged')
  for (let n = 3; n <= 16; n++) await rare()
  t.ok(await redis.admin.pttl(keys.logMeta('log rare')) > 600_000_000, 'a longer log is worth more')
})

t.test('close settles what waits', async t => {
  const redis = await startRedis(t)
  const { append, backplane } = await startBackplane(t, redis.url, { policy: 'queue' })
  redis.stop()
  const results = append(texts(200))
  await sleep(100)
  machine.restart()
  const startedAt = performance.now()
  await backplane.close()
  const outcomes = await results
  machine.within(t, performance.now() - startedAt, 3_000, 'after two seconds, not when the messages are too old')
  t.ok(outcomes.every(one => ['WSG_TIMEOUT', 'WSG_CLOSED'].includes(String(one))), [...new Set(outcomes)].join())
  redis.cont()
})

t.test('the log of a group whose messages are rare, but kept for long, does not lose its meta', async t => {
  const redis = await startRedis(t)
  const { backplane } = await startBackplane(t, redis.url)
  const left = async (group: string, ttlMs: number): Promise<number> => {
    const append = async () => await backplane.append(logged(group, { ttlMs }), envelope(group, 'x'))
    for (let n = 0; n < 20; n++) await append()
    await redis.admin.pexpire(keys.logMeta(group), 1_000)
    await append()
    return await redis.admin.pttl(keys.logMeta(group))
  }
  t.ok(await left('rare', 86_400_000) > 86_400_000)
  t.ok(await left('busy', 60_000) <= 1_000, 'it is not prolonged by each message where sixteen of them fit into its time')
})
