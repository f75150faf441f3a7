import t from 'tap'
import { createPublisher, memoryCluster } from '../../plugin.ts'
import { onEveryCluster, redisCluster, startInstance, type Opened, type TestInstance } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const redis = await startRedis(t)
const filler = 'x'.repeat(10_000)

/** Lets a client stop to read, and fills what the kernel holds for it. */
async function clog ({ registry }: TestInstance, { client, id }: Opened): Promise<void> {
  client.ws.pause()
  await until(() => {
    for (let n = 0; n < 50; n++) registry.get(id)?.send(filler)
    return registry.stats().slowConnections === 1
  })
}

onEveryCluster(t, redis, 'a report has the recipients of all instances, and how many of them are slow', async (t, cluster) => {
  const [a, b, c] = [await cluster.start(), await cluster.start(), await cluster.start()]
  const [ann, lazy] = [await a.enter('room', { user: 'ann' }), await b.enter('room', { user: 'bob' })]
  await b.enter('room')
  await c.enter('elsewhere')
  const report = async (options: object, group: string | string[] = 'room'): Promise<unknown> => {
    return (await c.registry.broadcastToGroup(group, 'x', { report: true, ...options })).report
  }
  t.strictSame(await report({}), { recipients: 3, slow: 0, missing: 0 })
  await clog(b, lazy)
  const framesDropped = (): number => b.registry.stats().framesDropped ?? 0
  const before = framesDropped()
  t.strictSame(await report({ volatile: true }), { recipients: 3, slow: 1, missing: 0 })
  t.equal(framesDropped() - before, 1, 'the message was not sent to those who are slow')
  t.strictSame(await report({}, ['room', 'elsewhere', 'nobody']), { recipients: 4, slow: 1, missing: 0 })
  t.strictSame(await report({ except: [lazy.id, ann.connection] }), { recipients: 1, slow: 0, missing: 0 })
  t.strictSame(await report({ except: { userId: 'bob' } }), { recipients: 2, slow: 0, missing: 0 })
  t.strictSame(await report({ local: true }), { recipients: 0, slow: 0, missing: 0 })
  t.strictSame(await report({}, 'nobody'), { recipients: 0, slow: 0, missing: 0 })
  t.strictSame(await report({}, []), { recipients: 0, slow: 0, missing: 0 })
  t.match(await c.registry.broadcastToAll('x', { report: true }), { report: { recipients: 4, slow: 1, missing: 0 } })
  t.match(await c.registry.sendToUser('bob', 'x', { report: true }), { report: { recipients: 1, slow: 1, missing: 0 } })
  const groups = ['room']
  const called = c.registry.broadcastToGroup(groups, 'x', { report: true })
  groups[0] = ''
  t.match(await called, { report: { recipients: 3 } }, 'a list of groups may be used again once the call returned')
  t.notOk('report' in await c.registry.broadcastToGroup('room', 'x'), 'who does not ask is told nothing')
  if (cluster.name === 'redis') {
    await using publisher = createPublisher({ redis: redis.url })
    t.match(await publisher.broadcastToGroup('room', 'x', { report: true }), { report: { recipients: 3, slow: 1, missing: 0 } })
    const options = { report: true, local: true }
    const nobody = { scope: 'local', localRecipients: 0, instances: 0, report: { recipients: 0, slow: 0, missing: 0 } }
    const { position } = await publisher.history('room')
    t.strictSame(await publisher.broadcastToGroup('room', 'x', options), nobody, 'a publisher has no connections of its own')
    t.strictSame(await publisher.broadcastToAll('x', options), nobody)
    t.strictSame(await publisher.sendToUser('bob', 'x', options), nobody)
    t.equal((await publisher.history('room')).position, position)
  }
  lazy.client.ws.terminate()
})

t.test('an instance that does not answer is missing from the report, which comes all the same', async (t) => {
  const shared = memoryCluster()
  const silent = shared.backplane()
  const publish = silent.publish.bind(silent)
  silent.publish = async (targets, envelope) => envelope.kind === 'reply' ? await new Promise(() => {}) : await publish(targets, envelope)
  const [a, b] = [await startInstance(t, { backplane: shared.backplane() }), await startInstance(t, { backplane: silent })]
  await a.enter('room')
  await b.enter('room')
  const { report } = await a.registry.broadcastToGroup('room', 'x', { report: true })
  t.strictSame(report, { recipients: 1, slow: 0, missing: 1 })
})

t.test('while Redis is out, the report is of this instance', async (t) => {
  const { redis, start } = await redisCluster(t)
  const { registry, enter } = await start()
  await enter('room')
  await redis.kill()
  await until(() => registry.health().status === 'down')
  const { report, scope } = await registry.broadcastToGroup('room', 'x', { volatile: true, report: true })
  t.strictSame([scope, report], ['local', { recipients: 1, slow: 0, missing: 1 }])
})
