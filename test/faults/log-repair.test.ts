import t from 'tap'
import type { Test } from 'tap'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { Link } from '../../lib/backplane/redis/link/link.ts'
import { PubSubProbe } from '../../lib/backplane/redis/link/subscriptions/pubsub-probe.ts'
import { Wire } from './chaos/wire.ts'
import { forkProgram } from '../helpers/child.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis, type TestRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import type { Assignment, Order, Report } from './many-logs.ts'
import { appendQuietly, logOf, startBackplane, type TestInstance } from './log-rig.ts'

noUnhandled(t)
const machine = watchMachine(t)
/** A replica is in sync at once, not after five seconds. */
const prompt = { args: ['--repl-diskless-sync-delay', '0'] }
const keys = new Keys('wsg:')
const texts = (count: number, prefix = ''): string[] => Array.from({ length: count }, (_, n) => `${prefix}${n}`)

async function startWire (t: Test, port: number): Promise<Wire> {
  const wire = await Wire.start(port)
  t.teardown(() => wire.close())
  return wire
}

async function startReplica (t: Test, master: TestRedis): Promise<{ readonly replica: TestRedis, readonly replication: Wire }> {
  // It writes what it gets from its master to disk: not into this folder, where the next server would load it.
  const folder = await mkdtemp(join(tmpdir(), 'replica-'))
  t.teardown(async () => await rm(folder, { recursive: true, force: true }))
  const [replica, replication] = [await startRedis(t, { args: ['--dir', folder] }), await startWire(t, master.port)]
  await replica.admin.replicaof('127.0.0.1', replication.port)
  await until(async () => /master_link_status:up/.test(await replica.admin.info('replication')), {
    timeoutMs: 15_000, what: 'the replica to be in sync'
  })
  return { replica, replication }
}

async function inStep ({ backplane, local }: TestInstance, redis: TestRedis): Promise<void> {
  const [epoch, offset] = await redis.admin.hmgetBuffer(keys.logMeta('log'), 'e', 's')
  const end = `${epoch?.toString('latin1')} ${offset?.toString()}`
  const at = (): string => `${backplane.position('log')?.epoch} ${backplane.position('log')?.offset}`
  await until(() => at() === end && backplane.state === 'up', {
    timeoutMs: 10_000, what: `${offset?.toString()} to be delivered, and not only ${local.received.length}`
  })
}

t.test('what was published while the subscribe link was down comes first, whether that link broke or went silent', async t => {
  const redis = await startRedis(t)
  const wire = await startWire(t, redis.port)
  const [near, far] = [await startBackplane(t, redis.url), await startBackplane(t, wire.url)]
  await near.append(texts(10))
  await until(() => far.local.received.length === 10)
  wire.blackhole('subscribe')
  await near.append(texts(250, 'unheard '))
  wire.lift()                                               // the connection lost bytes: it is reset
  await near.append(texts(10, 'after '))
  await inStep(far, redis)
  t.same(far.local.events, near.local.events)
  t.equal(far.local.received.length, 270)
  for (let n = 0; n < 20; n++) {
    wire.cut('subscribe')
    await near.append(texts(20, `${n}:`))
    wire.cut(n % 2 === 0 ? 'subscribe' : 'command')
  }
  await inStep(far, redis)
  t.same(far.local.events, await logOf(redis))
  t.same(far.local.gaps, [])
})

for (const [which, alsoNext] of [['its successor is in use', false], ['both links are back at once', true]] as const) {
  t.test(`a silent subscribe link still gives what was on its way and the log has no more, when ${which}`, async t => {
    const redis = await startRedis(t)
    const wire = await startWire(t, redis.port)
    const [near, far] = [await startBackplane(t, redis.url), await startBackplane(t, wire.url)]
    await near.append(texts(5), { keep: 5 })
    await until(() => far.local.received.length === 5)
    wire.pause(true, alsoNext)
    // Sent together: on a busy machine, 900 calls in turn can outlast the silent link, which is closed soon after its successor is up.
    await near.append(texts(900, 'on its way '), { keep: 5 })
    await until(() => wire.links('subscribe') === 2, { what: 'the silent link to be replaced' })
    // The log was read, and does not have what is missing.
    if (!alsoNext) await until(() => far.backplane.stats().repairsPending === 1 && (far.backplane.stats().bulkReads ?? 0) > 0)
    t.equal(far.local.received.length, 5)
    wire.pause(false)
    await near.append(['by both'], { keep: 5 })
    await inStep(far, redis)
    t.strictSame(far.local.events, near.local.events)
    t.strictSame(far.local.gaps, [])
  })
}

t.test('a message that the transport swallowed comes before the next one', async t => {
  const redis = await startRedis(t)
  const one = await startBackplane(t, redis.url)
  for (let n = 0; n < 30; n++) {
    await appendQuietly(redis.admin, 'log', `${n} swallowed`)
    await one.append([`${n}`])
  }
  await inStep(one, redis)
  t.same(one.local.events, texts(30).flatMap(n => [`${n} swallowed`, n]))
})

t.test('a log that keeps less than was missed, and one that began anew: one gap each, then what is there', async t => {
  const redis = await startRedis(t)
  const wire = await startWire(t, redis.port)
  const [near, far] = [await startBackplane(t, redis.url), await startBackplane(t, wire.url)]
  await near.append(texts(5), { keep: 20 })
  await until(() => far.local.received.length === 5)
  wire.blackhole('subscribe')
  for (const text of texts(50, 'much ')) await near.append([text], { keep: 20 })
  wire.lift()
  await inStep(far, redis)
  t.same(far.local.events, [...texts(5), 'gap: trimmed to 35', ...texts(50, 'much ').slice(30)])
  await redis.restart()
  await until(() => far.local.gaps.length === 2 && near.local.gaps.length === 1)
  await until(() => near.backplane.state === 'up')
  await near.append(texts(3, 'new '))
  await inStep(far, redis)
  t.same(far.local.events.slice(-4), ['gap: epoch to 0', ...texts(3, 'new ')])
  t.same(near.local.events.slice(-4), ['gap: epoch to 0', ...texts(3, 'new ')])
  await redis.admin.flushall()
  await near.append(texts(3, 'newer '))
  await inStep(far, redis)
  t.same([...far.local.gaps, ...near.local.gaps].map(({ reason }) => reason), ['trimmed', 'epoch', 'epoch', 'epoch', 'epoch'])
  t.same(far.local.events.slice(-3), texts(3, 'newer '))
})

t.test('a failover that lost messages, whose offsets are handed out again: one gap, what is new, nothing twice', async t => {
  for (const published of [0, 1, 2, 3]) {
    const master = await startRedis(t, prompt)
    const wires = [await startWire(t, master.port), await startWire(t, master.port)]
    const instances = await Promise.all(wires.map(async wire => await startBackplane(t, wire.url)))
    const [one, two] = instances as [TestInstance, TestInstance]
    await one.append(texts(103))
    const { replica, replication } = await startReplica(t, master)
    replication.blackhole()
    t.same(await one.append(['lost 104', 'lost 105']), [104, 105])
    await until(() => instances.every(({ local }) => local.received.length === 105))
    await master.kill()
    await replica.admin.replicaof('NO', 'ONE')
    // Before anyone is back: nobody sees these live.
    const fresh = texts(published, 'new ')
    for (const text of fresh) await appendQuietly(replica.admin, 'log', text)
    for (const wire of wires) await wire.lead(replica.port)
    await until(() => instances.every(({ local }) => local.gaps.length === 1), { timeoutMs: 60_000 })
    await until(() => instances.every(({ backplane }) => backplane.state === 'up'), { timeoutMs: 60_000 })
    await two.append(['after'])
    for (const instance of instances) {
      await inStep(instance, replica)
      t.same(
        instance.local.events.slice(103), ['lost 104', 'lost 105', 'gap: rewound to 103', ...fresh, 'after'],
        `${published} published meanwhile`
      )
    }
  }
})

t.test('a replica that lags is not taken for a log that lost messages', async t => {
  const master = await startRedis(t, prompt)
  const wire = await startWire(t, master.port)
  const [near, far] = [await startBackplane(t, master.url), await startBackplane(t, wire.url)]
  await near.append(texts(10))
  const { replica, replication } = await startReplica(t, master)
  replication.blackhole()
  await near.append(texts(10, 'later '))
  await inStep(far, master)
  // A name that leads to a demoted master, or to a reader's endpoint: the command link moves, the subscribe link stays.
  wire.target = replica.port
  wire.cut('command')
  await near.append(texts(5, 'latest '))
  await until(() => far.backplane.stats().repairsPending === 1, { timeoutMs: 60_000, what: 'the repair to wait' })
  await until(async () => /errorstat_READONLY/.test(await replica.admin.info('errorstats')), { what: 'the replica to have been asked' })
  t.same(far.local.gaps, [])
  await wire.lead(master.port)
  await inStep(far, master)
  t.same(far.local.events, near.local.events)
})

t.test('a subscribe link that answers and hears nothing is replaced', async t => {
  const [master, other] = [await startRedis(t), await startRedis(t)]
  const wire = await startWire(t, other.port)
  let ups = 0
  const command = new Link(master.url, 'command', 500)
  const subscribe = new Link(wire.url, 'subscribe', 500)
  subscribe.on({ up: () => { ups++ } })
  t.teardown(async () => await Promise.all([command.close(), subscribe.close()]))
  await until(() => command.up && subscribe.up)
  let subscribed = false
  const probe = new PubSubProbe(command, subscribe, { has: () => subscribed }, 'own', 20)
  t.teardown(() => probe.close())
  let heard = 0
  subscribe.onMessage((_, bytes) => { if (probe.received(bytes)) heard++ })
  await new Promise(resolve => setTimeout(resolve, 300))
  t.equal(ups, 1, 'without the subscription nothing can come, and nothing is concluded')
  subscribed = true
  await subscribe.redis.subscribe('own')
  wire.target = master.port
  await until(() => ups === 2, { what: 'a new connection' })
  await subscribe.redis.subscribe('own')
  await until(() => heard > 2)
  t.equal(ups, 2, 'and that one is kept')
  // While the command link is away nothing is known of the other.
  await master.kill()
  await until(() => !command.up)
})

t.test('20,000 groups after a link loss: a moment, whether they missed something or not', async t => {
  const redis = await startRedis(t)
  const wire = await startWire(t, redis.port)
  const groups = 20_000
  const assignment: Assignment = { near: redis.url, far: wire.url, groups }
  const child = forkProgram(fileURLToPath(new URL('many-logs.ts', import.meta.url)), [JSON.stringify(assignment)])
  t.teardown(() => child.kill('SIGKILL'))
  const answer = async (): Promise<Report> => (await once(child, 'message') as [Report])[0]
  const ask = async (order: Order = {}): Promise<Report> => {
    const answered = answer()
    child.send(order)
    return await answered
  }
  const cpuMs = async (): Promise<number> => {
    const info = await redis.admin.info('cpu')
    return 1000 * [...info.matchAll(/^used_cpu_(?:sys|user)_main_thread:(\S+)/gm)].reduce((sum, [, seconds]) => sum + Number(seconds), 0)
  }
  await answer()
  await ask({ everyNth: 1 })
  let expected = groups
  await until(async () => (await ask()).received === expected, { timeoutMs: 60_000, what: 'the first messages to arrive' })
  for (const [what, everyNth] of [
    ['missed nothing', undefined], ['one message missed in each', 1], ['one message missed in every tenth', 10]
  ] as const) {
    wire.blackhole('subscribe')
    if (everyNth !== undefined) {
      await ask({ everyNth })
      expected += groups / everyNth
    }
    const before = { redisMs: await cpuMs(), ownMs: (await ask()).cpuMs }
    machine.restart()
    const startedAt = performance.now()
    wire.lift()
    wire.cut('subscribe')
    await until(async () => (await ask()).state !== 'up', { everyMs: 1 })
    let late = 0
    let last = await ask()
    await until(async () => {
      last = await ask()
      late = Math.max(late, last.lateMs)
      return last.state === 'up'
    }, { timeoutMs: 60_000, everyMs: 1, what: 'all groups to be repaired' })
    const tookMs = performance.now() - startedAt
    const usedMs = Math.round(await cpuMs() - before.redisMs)
    t.comment(`20,000 groups, ${what}: ${Math.round(tookMs)} ms, ${usedMs} ms of Redis, ` +
      `${last.cpuMs - before.ownMs} ms of the instance, event loop at most ${late} ms late`)
    t.equal(last.received, expected)
    t.equal(last.gaps, 0)
    machine.within(t, tookMs, 10_000, 'repaired')
  }
})
