// However a Redis Cluster changes its shape, its memberships are exact 2 s after another server became the owner of their slots.
import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { Local } from '../helpers/local-instance.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { slotOfGroup, startRedisCluster, type ClusterNode } from '../helpers/redis-cluster.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const cluster = await startRedisCluster(t, { replicas: 1 })
const machine = watchMachine(t)
const exactMs = 2_000

const start = async (): Promise<Local> => await new Local({
  redis: { cluster: [...cluster.addresses] }, whenDown: 'queue', operationTimeoutMs: 2_000
}).start(t)
const [a, b, witness] = [await start(), await start(), await start()]
const names = Array.from({ length: 120 }, (_, n) => `exact-${n}`)
for (const one of [a, b]) await one.enterAll(names)
const members = new Map(names.map(name => [name, 2]))

const exact = async (): Promise<boolean> => await witness.counts(names).then(
  counts => counts.every((count, index) => count === members.get(names[index] ?? '')), () => false
)

const slot = slotOfGroup('exact-0')
const many = [...new Set(names.slice(0, 40).map(slotOfGroup))]

const otherMaster = async (): Promise<ClusterNode> => {
  const [owner, first] = [await cluster.masterOf(slot), await cluster.masterOf(100)]
  return owner === first ? await cluster.masterOf(16_000) : first
}

const moveMany = async (to: ClusterNode): Promise<void> => {
  for (const one of many) await cluster.migrate(one, to)
}

/** Resolves as soon as the replica is the master. */
const failover = async (...how: string[]): Promise<void> => {
  await cluster.healthy()
  const { admin } = await cluster.replicaOf(await cluster.masterOf(slot))
  await admin.call('CLUSTER', 'FAILOVER', ...how)
  await until(async () => (await admin.role() as unknown[])[0] === 'master', { timeoutMs: 20_000, everyMs: 5 })
}

let number = 0
/** Connections join groups, one after another, until stopped. */
function join (): { stop: () => Promise<void> } {
  const stopping = new AbortController()
  const joining: Array<Promise<void>> = []
  const done = (async () => {
    while (!stopping.signal.aborted) {
      const name = names[++number % names.length] ?? ''
      const one = number % 2 === 0 ? a : b
      members.set(name, (members.get(name) ?? 0) + 1)
      // One that fails for the moment is made up for.
      joining.push(one.join(name, `${one.instanceId}.${number}`).catch(() => {}))
      await sleep(2)
    }
    await Promise.all(joining)
  })()
  return {
    async stop () {
      stopping.abort()
      await done
    }
  }
}

let added: ClusterNode | undefined
const changes: ReadonlyArray<readonly [what: string, change: () => Promise<void>]> = [
  ['a slot moved', async () => { await cluster.migrate(slot, await otherMaster()) }],
  ['many slots moved', async () => { await moveMany(await otherMaster()) }],
  ['a master was added and got slots', async () => { await moveMany(added = await cluster.add()) }],
  ['a master was emptied and removed', async () => {
    await moveMany(await cluster.masterOf(100))
    if (added !== undefined) await cluster.remove(added)
  }],
  ['a failover by consent', async () => { await failover() }],
  ['a forced failover', async () => { await failover('FORCE') }],
  ['a failover without a vote', async () => { await failover('TAKEOVER') }]
]

for (const [what, change] of changes) {
  t.test(`${what} while members come`, async t => {
    const coming = join()
    await change()
    const changedAt = performance.now()
    machine.restart()
    const stopped = coming.stop()
    await until(exact, { timeoutMs: 20_000, everyMs: 5, what: 'memberships to be exact' })
    machine.within(t, performance.now() - changedAt, exactMs, 'memberships are exact')
    await stopped
    // The one that looks may be cut off from the old master a moment later than the others.
    await until(() => [a, b, witness].every(({ backplane }) => backplane.state === 'up'), { timeoutMs: 10_000 })
    await until(exact, { timeoutMs: 10_000, what: 'memberships to be exact in the end' })
  })
}
