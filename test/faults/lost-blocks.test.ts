// The list of blocks has a time to live, so Redis may evict it; what instances hold is put back.
import t from 'tap'
import { createPublisher } from '../../plugin.ts'
import { redisCluster, type RedisCluster, type TestInstance } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const leaseMs = 1_500
const list = 'wsg:{0}:blocked'
const forMs = 3_600_000

async function listed ({ redis }: RedisCluster): Promise<string[]> {
  return (await redis.admin.zrangebyscore(list, '-inf', '+inf')).filter(name => name !== '').sort()
}

/** Waits until an instance has so many blocks. */
async function knows (instances: readonly TestInstance[], blocked: number): Promise<void> {
  const all = (): boolean => instances.every(({ registry }) => registry.stats().blocked === blocked)
  await until(all, { timeoutMs: 10_000, what: `${blocked} blocks` })
}

/** Ends the connections to Redis, and waits until these instances have new ones. */
async function cut ({ redis }: RedisCluster, instances: readonly TestInstance[]): Promise<void> {
  const reconnects = (): number[] => instances.map(({ registry }) => registry.stats().redisReconnects ?? 0)
  const before = reconnects()
  await redis.admin.client('KILL', 'TYPE', 'NORMAL')
  const back = (): boolean => reconnects().every((count, at) => count > (before[at] ?? 0)) &&
    instances.every(({ registry }) => registry.health().status === 'up')
  await until(back, { timeoutMs: 10_000, what: 'new connections' })
}

t.test('a list of blocks that was evicted or deleted is put back within a beat, for instances that start later, too', async t => {
  const cluster = await redisCluster(t, undefined, { leaseMs })
  const [a, b] = [await cluster.start(), await cluster.start()]
  for (const userId of ['eve', 'ann', 'cid']) await a.registry.block({ userId }, { forMs })
  await a.registry.block({ tokenId: 'short' }, { forMs: 1 })
  await b.registry.unblock({ userId: 'ann' })
  for (let round = 0; round < 3; round++) {
    await cluster.redis.admin.del(list)
    await until(async () => (await listed(cluster)).length > 0, { timeoutMs: 10_000, what: 'the list to be back' })
    t.strictSame(await listed(cluster), ['u:cid', 'u:eve'], 'and not who was let in, nor what is over')
    const left = await cluster.redis.admin.pttl(list)
    t.ok(left > forMs - 60_000 && left <= forMs, 'it expires with its last block')
    await knows([a, b, await cluster.start()], 2)
  }
  await cluster.close()
})

for (const by of ['an instance', 'a publisher']) {
  t.test(`a block that ${by} makes after the list was lost costs nobody the blocks that were in it`, async t => {
    const cluster = await redisCluster(t, undefined, { leaseMs })
    const [a, b] = [await cluster.start(), await cluster.start()]
    await using publisher = createPublisher({ redis: cluster.redis.url })
    await a.registry.block({ userId: 'eve' }, { forMs })
    // The instances have seen the list.
    await new Promise(resolve => { setTimeout(resolve, leaseMs) })
    await cluster.redis.admin.del(list)
    await (by === 'a publisher' ? publisher : a.registry).block({ userId: 'bob' }, { forMs })
    const late = await cluster.start()
    await cut(cluster, [a, b, late])
    await knows([a, b, late], 2)
    await until(async () => (await listed(cluster)).join() === 'u:bob,u:eve', { timeoutMs: 10_000, what: 'both to be listed' })
    await knows([a, b, late, await cluster.start()], 2)
    await b.registry.unblock({ userId: 'eve' })
    await cut(cluster, [a, b, late])
    await new Promise(resolve => { setTimeout(resolve, leaseMs) })
    t.strictSame(await listed(cluster), ['u:bob'])
    await knows([a, b, late], 1)
    await cluster.close()
  })
}

t.test('the same where the first instance that heard of the block makes the next one at once', async t => {
  const cluster = await redisCluster(t, undefined, { leaseMs: 60_000 })
  const a = await cluster.start()
  await a.registry.block({ userId: 'eve' }, { forMs })
  await cluster.redis.admin.del(list)
  await a.registry.block({ userId: 'bob' }, { forMs })
  await until(async () => (await listed(cluster)).join() === 'u:bob,u:eve', { timeoutMs: 10_000, what: 'both to be listed' })
  await knows([a, await cluster.start()], 2)
  await cluster.close()
})
