import t from 'tap'
import { heard, redisCluster } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { appendQuietly } from './log-rig.ts'

noUnhandled(t)
const redis = await startRedis(t)
t.beforeEach(async () => { await redis.admin.flushall() })

/** One instance with the groups `g` and `h`, which have a log, and `v`, which has none. */
async function rig (t: Parameters<typeof redisCluster>[0]) {
  const cluster = await redisCluster(t, redis, { logs: { v: false } })
  const instance = await cluster.start()
  const both = await instance.enter('g')
  await instance.registry.join(both.connection, 'v')
  return { ...instance, both, onlyV: await instance.enter('v'), onlyG: await instance.enter('g') }
}

t.test('a message to a logged and to a volatile group stands at one place in both, while the log is repaired, too', async t => {
  for (const groups of [['g', 'v'], ['v', 'g'], ['v', 'g', 'h']]) {
    const { registry, both, onlyV, onlyG, close } = await rig(t)
    await registry.broadcastToGroup('g', 'g1')
    await appendQuietly(redis.admin, 'g', 'missed')
    const sent = [
      registry.broadcastToGroup('v', 'v1'), registry.broadcastToGroup(groups, 'to all'),
      registry.broadcastToGroup('v', 'v2'), registry.broadcastToGroup('g', 'g2')
    ]
    await Promise.all(sent)
    await until(() => [both, onlyV, onlyG].every((one, index) => heard(one).length === [6, 3, 4][index]))
    t.strictSame(heard(onlyG), ['g1', 'missed', 'to all', 'g2'], groups.join())
    t.strictSame([...heard(onlyV)].sort(), ['to all', 'v1', 'v2'])
    t.strictSame(heard(both).filter(text => heard(onlyG).includes(text)), heard(onlyG), 'in the order of the log')
    t.strictSame(heard(both).filter(text => heard(onlyV).includes(text)), heard(onlyV), 'and in that of the other group')
    t.equal(registry.stats().logsHeld, 0)
    await close()
    await redis.admin.flushall()
  }
})
