import t from 'tap'
import { crowd } from '../helpers/crowd.ts'
import { startInstance } from '../helpers/instance.ts'
import { slowdown } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

const connections = 200
const groupsEach = 100
/** Connections in no group. */
const nowhere = Array.from({ length: connections }, () => '-')
const roomy = { limits: false, maxGroupsPerConnection: 500 } as const

/** Twice the usual deadlines, as the proxy shares its process with the test: far less than all joins take together. */
const operationTimeoutMs = 1_000
const joinTimeoutMs = 2_000

for (const [name, delayMs] of [['a healthy Redis', 0], ['a Redis that is 40 ms away', 20]] as const) {
  t.test(`20,000 joins at once on ${name} all reach the cluster: their deadline is not for those before them`, async t => {
    const redis = await startRedis(t)
    const proxy = await startProxy(t, redis.port)
    const slower = slowdown()
    const deadlines = {
      operationTimeoutMs: Math.round(operationTimeoutMs * slower), joinTimeoutMs: Math.round(joinTimeoutMs * slower)
    }
    const instance = await startInstance(t, { redisUrl: proxy.url, options: { ...roomy, ...deadlines, outage: { join: 'reject' } } })
    await crowd(t, instance.port, nowhere)
    proxy.delay(delayMs)
    const startedAt = performance.now()
    t.same(await instance.ask('joinStorm', groupsEach, 'own'), { cluster: 20_000 }, 'each to a group of its own')
    t.same(await instance.ask('joinStorm', groupsEach, 'shared'), { cluster: 20_000 }, 'each to one of a hundred groups')
    t.comment(`both storms took ${Math.round(performance.now() - startedAt)} ms`)
    t.match(await instance.ask('stats'), { redisReconnects: 0, joinsLocal: 0, leasesLost: 0 })
    t.same([await instance.ask('groupCount', 'own 0 0'), await instance.ask('groupCount', 'shared 0')], [1, connections])
  })
}

t.test('when Redis hangs in the middle of a storm, every join is answered in time, and all are stored when it is back', async t => {
  const redis = await startRedis(t)
  const instance = await startInstance(t, { redisUrl: redis.url, options: roomy })
  await crowd(t, instance.port, nowhere)
  const joining = instance.ask('joinStorm', groupsEach, 'own')
  await until(async () => (await redis.channels()).length > 1_000, {
    everyMs: 1, timeoutMs: 30_000
  })
  redis.stop()
  const { cluster = 0, local = 0 } = await joining
  t.equal(cluster + local, 20_000)
  t.ok(local > 0)
  redis.cont()
  await until(async () => (await instance.ask('health')).status === 'up', { timeoutMs: 60_000 })
    .catch(async (cause: unknown) => { throw new Error(JSON.stringify(await instance.ask('health')), { cause }) })
  // The empty name marks the list as whole.
  const stored = (await redis.admin.smembers(`wsg:{0}:i:${instance.id}`)).filter(group => group !== '')
  t.equal(stored.length, 20_000)
})
