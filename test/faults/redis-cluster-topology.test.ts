// A Redis Cluster that changes its shape, or falls apart, while instances are at work.
import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Envelope, GapReason } from '../../lib/backplane/backplane.ts'
import { group, Local } from '../helpers/local-instance.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { slotOfGroup, startRedisCluster, type ClusterNode } from '../helpers/redis-cluster.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const cluster = await startRedisCluster(t, { replicas: 1 })
const log = { maxMessages: 10_000, maxBytes: 10_000_000, ttlMs: 60_000 }

/** Knows which gaps it was told of. */
class Witness extends Local {
  readonly gaps: GapReason[] = []
  override gap (_group: string, reason: GapReason): void { this.gaps.push(reason) }
  texts (name: string): string[] {
    return this.received.filter(({ target }) => target.name === name).map(({ payload }) => payload.toString())
  }
}

const start = async (more = {}): Promise<Witness> => await new Witness({
  redis: { cluster: [...cluster.addresses] }, whenDown: 'queue', operationTimeoutMs: 2_000, ...more
}).start(t)

const promoted = async ({ admin }: ClusterNode): Promise<unknown> =>
  await until(async () => (await admin.role() as unknown[])[0] === 'master', { timeoutMs: 20_000, what: 'the replica to take over' })

const plainEnvelope = ({ instanceId: origin }: Local, name: string, sequence: number, text: string): Envelope => {
  const nothing = { shared: false, except: [], command: '', binary: false } as const
  return { ...nothing, origin, sequence, kind: 'message', target: group(name), payload: Buffer.from(text) }
}

/** Appends `0`, `1`, … to each group until stopped. Resolves then with how many each got, and what failed. */
function load (one: Local, names: readonly string[], everyMs = 10): { stop: () => Promise<{ counts: number[], failures: unknown[] }> } {
  const stopping = new AbortController()
  const failures: unknown[] = []
  let sequence = 0
  const series = names.map(async name => {
    let n = 0
    while (!stopping.signal.aborted) {
      const envelope = plainEnvelope(one, name, ++sequence, String(n))
      await one.backplane.append([{ group: name, log }], envelope).then(() => { n++ }, error => failures.push(error))
      await sleep(everyMs)
    }
    return n
  })
  return {
    async stop () {
      stopping.abort()
      return { counts: await Promise.all(series), failures }
    }
  }
}

const numbers = (count: number): string[] => Array.from({ length: count }, (_, n) => String(n))

t.test('a master is added and gets slots, and one is emptied and removed, under load', async t => {
  const [a, b] = [await start(), await start()]
  const names = Array.from({ length: 12 }, (_, n) => `logged-shape-${n}`)
  for (const one of [a, b]) await one.enterAll(names)
  const running = load(a, names)
  const added = await cluster.add()
  const partitions = [...new Set(names.map(slotOfGroup))]
  for (const slot of partitions) await cluster.migrate(slot, added)
  await until(() => (a.backplane.stats().redisMasters ?? 0) === 4)
  t.strictSame(await b.counts(names), names.map(() => 2), 'the members moved, too')
  const first = await cluster.masterOf(0)
  for (const slot of partitions) await cluster.migrate(slot, first)
  await until(() => (a.backplane.stats().redisMasters ?? 0) === 3)
  await cluster.remove(added)
  await sleep(300)
  const { counts, failures } = await running.stop()
  t.strictSame(failures, [], 'no append failed')
  await until(() => b.received.length >= counts.reduce((sum, count) => sum + count, 0)).catch(() => {})
  t.strictSame(names.map(name => b.texts(name)), counts.map(numbers), 'each message once and in order')
  t.strictSame(b.gaps, [])
  t.strictSame(await b.counts(names), names.map(() => 2))
  await until(() => [a, b].every(({ backplane }) => backplane.state === 'up'))
})

t.test('a master that the others do not see for 5 s is replaced: nothing of a log is lost in silence', async t => {
  const [a, b] = [await start(), await start()]
  const victim = await cluster.masterOf(100)
  const names: string[] = []
  for (let n = 0; names.length < 8; n++) {
    const name = `logged-bus-${n}`
    if (await cluster.masterOf(slotOfGroup(name)) === victim) names.push(name)
  }
  for (const one of [a, b]) await one.enterAll(names)
  const running = load(a, names, 20)
  await sleep(300)
  const replica = await cluster.replicaOf(victim)
  cluster.isolate(victim, true)
  await promoted(replica)
  await sleep(3_000)
  t.strictSame(await a.counts(names), names.map(() => 2))
  t.equal(a.backplane.state, 'up', 'while the partition lasts')
  cluster.isolate(victim, false)
  await cluster.healthy()
  await sleep(300)
  const { counts, failures } = await running.stop()
  t.comment(`${failures.length} of ${counts.reduce((sum, count) => sum + count, 0)} appends failed`)
  await until(() => names.every((name, index) => b.texts(name).includes(String((counts[index] ?? 0) - 1)))).catch(() => {})
  const lost = names.flatMap((name, index) => numbers(counts[index] ?? 0).filter(text => !b.texts(name).includes(text)))
  t.ok(lost.length === 0 || b.gaps.length > 0, `${lost.length} lost, ${b.gaps.length} gaps`)
  const ascends = (texts: readonly string[]): boolean => {
    return texts.every((text, index) => index === 0 || Number(text) > Number(texts[index - 1]))
  }
  t.strictSame(names.filter(name => !ascends(b.texts(name))), [], 'none twice, and in order')
})

t.test('a master is killed, comes back, gets a slot, and its shard fails over, in a row', async t => {
  const [a, b] = [await start(), await start()]
  const names = Array.from({ length: 30 }, (_, n) => `logged-row-${n}`)
  for (const one of [a, b]) await one.enterAll(names)
  const running = load(a, names, 20)
  const victim = await cluster.masterOf(slotOfGroup('logged-row-0'))
  await victim.kill()
  await victim.restart()
  const other = await cluster.masterOf(16_383 - slotOfGroup('logged-row-0'))
  await until(async () => await cluster.migrate(slotOfGroup('logged-row-0'), other).then(() => true, () => false), { timeoutMs: 20_000 })
  await cluster.healthy()
  const master = await cluster.masterOf(slotOfGroup('logged-row-1'))
  await cluster.failover(await cluster.replicaOf(master))
  await until(() => [a, b].every(({ backplane }) => backplane.state === 'up'), { timeoutMs: 20_000 })
  await until(async () => await a.hasCounts(names, 2), { timeoutMs: 10_000 })
  b.received.length = 0
  await until(() => names.every(name => b.texts(name).length > 0), { what: 'messages in all groups' })
  const { counts } = await running.stop()
  await until(() => names.every((name, index) => b.texts(name).includes(String((counts[index] ?? 0) - 1))))
  const holed = names.filter(name => b.texts(name).some((text, index, [first]) => Number(text) !== Number(first) + index))
  t.strictSame(holed, [], 'each goes on without a hole')
})

t.test('a replica without the latest writes is promoted: what is lost is told, and nothing comes out of order', async t => {
  const [a, b] = [await start(), await start()]
  const name = 'logged-fork'
  await a.enterAll([name])
  await b.enterAll([name])
  let sequence = 0
  const append = async (text: string): Promise<void> => {
    await a.backplane.append([{ group: name, log }], plainEnvelope(a, name, ++sequence, text))
  }
  for (let n = 0; n < 5; n++) await append(`kept ${n}`)
  const master = await cluster.masterOf(slotOfGroup(name))
  const replica = await cluster.replicaOf(master)
  await master.admin.wait(1, 5_000)
  // From here on nothing reaches the replica, and nothing waits in its socket.
  replica.stop()
  await master.admin.call('CLIENT', 'KILL', 'TYPE', 'replica')
  await append('lost 0')
  await append('lost 1')
  await until(() => b.received.length === 7)
  await master.kill()
  replica.cont()
  await promoted(replica)
  await until(() => b.backplane.state === 'up', { timeoutMs: 20_000 })
  for (let n = 0; n < 3; n++) await append(`new ${n}`)
  await until(() => b.texts(name).includes('new 2'))
  t.strictSame(b.texts(name), [...numbers(5).map(n => `kept ${n}`), 'lost 0', 'lost 1', ...numbers(3).map(n => `new ${n}`)])
  t.strictSame(b.gaps, ['rewound'], 'told once')
  t.strictSame(await a.counts([name]), [2])
  await master.restart()
  await cluster.healthy()
})
