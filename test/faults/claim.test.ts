// All processes that use one Redis have to divide its keys alike: whoever would do it otherwise is kept out.
import t from 'tap'
import { createPublisher } from '../../plugin.ts'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { service } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const redis = await startRedis(t)
const { names } = new Keys('wsg:')
const refusal = {
  code: 'WSG_REDIS_UNSUPPORTED',
  message: /'wsg:\*' in another way \(schema 2, 1 partition, this process: schema 1, 1 partition\)/
}

t.beforeEach(async () => { await redis.admin.flushall() })

t.test('the first instance claims, the others agree, and the claim outlives them for a day', async t => {
  const [one, two] = [await service(t, { redis: redis.url }), await service(t, { redis: redis.url })]
  await Promise.all([one.app.ready(), two.app.ready()])
  t.equal(await redis.admin.get(names), 'schema 1, 1 partition')
  await Promise.all([one.app.close(), two.app.close()])
  const leftMs = await redis.admin.pttl(names)
  t.ok(leftMs > 86_000_000 && leftMs <= 86_400_000, `${leftMs} ms`)
})

t.test('an instance and a publisher that would divide them otherwise are refused, and leave nothing', async t => {
  await redis.admin.set(names, 'schema 2, 1 partition')
  const { app } = await service(t, { redis: redis.url })
  await t.rejects(Promise.resolve(app.ready()), refusal)
  await app.close()
  t.strictSame(await redis.admin.keys('*'), [names])
  const publisher = createPublisher({ redis: redis.url })
  t.teardown(async () => await publisher.close())
  await t.rejects(publisher.broadcastToGroup('room', 'x'), refusal)
  const apart = await service(t, { redis: redis.url, keyPrefix: 'other:' })
  await apart.app.ready()
  t.equal(apart.app.registry.health().status, 'up', 'with names of its own it may')
})

t.test('an instance that finds it out later is down, says why, and is up when the others are gone', async t => {
  const { app } = await service(t, { redis: redis.url })
  await app.ready()
  const { registry } = app
  t.equal(registry.health().status, 'up')
  await redis.admin.set(names, 'schema 2, 1 partition')
  await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await until(() => registry.health().problems.some(problem => refusal.message.test(problem)))
  t.equal(registry.health().status, 'down')
  await redis.admin.del(names)
  await until(() => registry.health().status === 'up')
  t.equal(await redis.admin.get(names), 'schema 1, 1 partition')
})
