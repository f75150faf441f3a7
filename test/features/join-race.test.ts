import t from 'tap'
import { onEveryCluster, onRedis, type Opened, type TestInstance } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const redis = await startRedis(t)

const races = 1_500
const lanes = 25

interface Side { readonly instance: TestInstance, readonly connections: Opened[] }

async function side (instance: TestInstance, connections = lanes): Promise<Side> {
  return { instance, connections: await Promise.all(Array.from({ length: connections }, async () => await instance.open())) }
}

// Deadlines that a busy machine does not reach: what is delivered by a policy for outages would not be a race won.
const patient = { operationTimeoutMs: 20_000, joinTimeoutMs: 20_000 }

/**
 * Joins groups that are new to the cluster, publishing from the other instance the moment each join resolves. Resolves with what did not
 * arrive.
 */
async function race (joining: Side, publisher: TestInstance, count: number, label: string): Promise<string[]> {
  await Promise.all(joining.connections.map(async ({ connection }, lane) => {
    for (let n = lane; n < count; n += joining.connections.length) {
      const group = `${label}-${n}`
      const { scope } = await joining.instance.registry.join(connection, group)
      const result = await publisher.registry.broadcastToGroup(group, group)
      if (scope !== 'cluster' || result.scope !== 'cluster') throw new Error(`${group}: joined ${scope}, published ${result.scope}`)
    }
  }))
  const missing = (): string[] => {
    const received = new Set<unknown>(joining.connections.flatMap(({ client }) => client.messages))
    return Array.from({ length: count }, (_, n) => `${label}-${n}`).filter(text => !received.has(text))
  }
  await until(() => missing().length === 0, { timeoutMs: 60_000 }).catch(() => {})
  // A close has two seconds to give all groups back, which are too few for so many on a busy machine.
  await Promise.all(joining.connections.map(async ({ connection }) => await joining.instance.registry.leaveAll(connection)))
  return missing()
}

onEveryCluster(t, redis, `of ${2 * races} messages published when a join elsewhere resolved, none is missed`, async (t, cluster) => {
  const [a, b] = [await side(await cluster.start(patient)), await side(await cluster.start(patient))]
  const missed = await Promise.all([race(b, a.instance, races, 'b'), race(a, b.instance, races, 'a')])
  t.strictSame(missed, [[], []])
})

onRedis(t, redis, 'none is missed when the instance that joins is far from Redis', async (t, cluster) => {
  const proxy = await startProxy(t, redis.port)
  const near = await cluster.start(patient)
  const far = await side(await cluster.start({ redis: proxy.url, ...patient }), 100)
  proxy.delay(20)
  t.strictSame(await race(far, near, 400, 'far'), [])
})

onRedis(t, redis, 'none is missed when only its subscriptions are slow', async (t, cluster) => {
  const proxy = await startProxy(t, redis.port)
  const near = await cluster.start(patient)
  const far = await side(await cluster.start({ redis: proxy.url, ...patient }), 100)
  proxy.delay(20, 'subscribers')
  t.strictSame(await race(far, near, 200, 'deaf'), [])
})

onRedis(t, redis, 'none is missed when the instance that publishes is far from Redis', async (t, cluster) => {
  const proxy = await startProxy(t, redis.port)
  const near = await side(await cluster.start(patient), 100)
  const far = await cluster.start({ redis: proxy.url, ...patient })
  proxy.delay(20)
  t.strictSame(await race(near, far, 200, 'near'), [])
})

onRedis(t, redis, 'none is missed when a group is joined again while its channel is being given up', async (t, cluster) => {
  const a = await cluster.start({ lingerMs: 0, ...patient })
  const b = await cluster.start({ lingerMs: 0, ...patient })
  const { client, connection } = await b.open()
  for (let round = 0; round < 1_000; round++) {
    await b.registry.join(connection, 'revolving')
    await a.registry.broadcastToGroup('revolving', String(round))
    const got = await client.next()
    if (got !== String(round)) throw new Error(`round ${round} got ${String(got)}`)
    // The pauses differ so that the next join meets the UNSUBSCRIBE before, on and after its way.
    void b.registry.leave(connection, 'revolving')
    for (let turn = 0; turn < round % 7; turn++) await new Promise(resolve => setImmediate(resolve))
  }
})

onRedis(t, redis, 'whoever is a member for the others also gets what is sent to the group', async (t, cluster) => {
  const proxy = await startProxy(t, redis.port)
  const a = await cluster.start(patient)
  const b = await side(await cluster.start({ redis: proxy.url, ...patient }))
  proxy.delay(10, 'subscribers')
  for (const [n, { connection, client }] of b.connections.entries()) {
    const group = `seen-${n}`
    const joined = b.instance.registry.join(connection, group)
    while (await a.registry.groupCount(group) === 0);
    await a.registry.broadcastToGroup(group, group)
    t.equal(await client.next(), group)
    await joined
  }
})
