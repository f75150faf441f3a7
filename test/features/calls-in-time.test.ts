import t from 'tap'
import Fastify from 'fastify'
import websocketGroups, { createPublisher, type Registry } from '../../plugin.ts'
import { redisCluster } from '../helpers/app.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { freePort } from '../helpers/ports.ts'
import { startRedisCluster } from '../helpers/redis-cluster.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'

noUnhandled(t)
const redis = await startRedis(t)

const id = 'AAAAAAAAAA.1'
const calls: Record<string, (registry: Registry) => Promise<unknown>> = {
  join: async registry => await registry.join(id, 'g'),
  leave: async registry => await registry.leave(id, 'g'),
  leaveAll: async registry => await registry.leaveAll(id),
  groups: async registry => await registry.groups(id),
  sendTo: async registry => await registry.sendTo(id, 'x'),
  broadcastToGroup: async registry => await registry.broadcastToGroup('g', 'x'),
  'broadcastToGroup, volatile': async registry => await registry.broadcastToGroup('g', 'x', { volatile: true }),
  broadcastToAll: async registry => await registry.broadcastToAll('x'),
  sendToUser: async registry => await registry.sendToUser('ann', 'x'),
  disconnect: async registry => await registry.disconnect(id),
  'disconnect of a user': async registry => await registry.disconnect({ userId: 'ann' }),
  block: async registry => await registry.block({ userId: 'ann' }, { forMs: 1_000 }),
  unblock: async registry => await registry.unblock({ userId: 'ann' }),
  groupCount: async registry => await registry.groupCount('g'),
  members: async registry => await registry.members('g'),
  history: async registry => await registry.history('g'),
  presence: async registry => await registry.presence('g'),
  'join of a user': async registry => await registry.join({ userId: 'ann' }, 'g'),
  'leave of a user': async registry => await registry.leave({ userId: 'ann' }, 'g'),
  'groups of a user': async registry => await registry.groups({ userId: 'ann' }),
  'broadcastToGroup, to none': async registry => await registry.broadcastToGroup([], 'x'),
  'broadcastToGroup, local': async registry => await registry.broadcastToGroup('g', 'x', { local: true }),
  'broadcastToGroup, with a report': async registry => await registry.broadcastToGroup([], 'x', { report: true }),
  'broadcastToAll, local': async registry => await registry.broadcastToAll('x', { local: true }),
  'sendToUser, local': async registry => await registry.sendToUser('ann', 'x', { local: true }),
  broadcastJson: async registry => await registry.broadcastJson('g', {}),
  groupList: async registry => await registry.groupList(),
  connectionCount: async registry => await registry.connectionCount(),
  userCount: async registry => await registry.userCount(),
  stream: async registry => registry.stream('g', 'one'),
  stopStream: async registry => await registry.stopStream('g', 'one'),
  readStream: async registry => await registry.readStream('g', 'one')
}
const callsOfInstances: typeof calls = {
  emit: async registry => await registry.instances.emit('hello', {}),
  ask: async registry => await registry.instances.ask('hello', {})
}

for (const [name, options] of [['Redis', { redis: redis.url }], ['memory', {}]] as const) {
  t.test(`calls before the application is ready and after it was closed have one answer each (${name})`, async t => {
    const app = Fastify()
    await app.register(websocketGroups, options)
    const all = Object.entries({ ...calls, ...callsOfInstances })
    for (const [call, run] of all) {
      await t.rejects(run(app.registry), { code: 'WSG_BACKPLANE_UNAVAILABLE', message: /wait for app\.ready\(\)/ }, call)
    }
    t.strictSame([app.registry.all(), app.registry.count(), app.registry.health().ready], [[], 0, false])
    await app.ready()
    await app.close()
    for (const [call, run] of all) await t.rejects(run(app.registry), { code: 'WSG_CLOSED' }, call)
    t.strictSame([app.registry.all(), app.registry.count(), app.registry.health().status], [[], 0, 'closing'])
  })
}

t.test('all calls of a publisher that was closed are refused', async t => {
  const publisher = createPublisher({ redis: redis.url })
  await publisher.groupCount('g')
  await publisher.close()
  for (const [call, run] of Object.entries(calls)) await t.rejects(run(publisher as unknown as Registry), { code: 'WSG_CLOSED' }, call)
})

t.test('close of a publisher waits for what was handed to it, and takes no more', async t => {
  const cluster = await redisCluster(t, redis)
  const instance = await cluster.start()
  const proxy = await startProxy(t, redis.port)
  proxy.delay(20)
  const publisher = createPublisher({ redis: proxy.url, operationTimeoutMs: 10_000 })
  await publisher.groupCount('late')
  const sent = Array.from({ length: 50 }, async (_, n) => await publisher.broadcastToGroup('late', String(n)))
  const closed = publisher.close()
  await t.rejects(publisher.broadcastToGroup('late', 'x'), { code: 'WSG_CLOSED' })
  await t.rejects(publisher.broadcastToAll('x'), { code: 'WSG_CLOSED' })
  await t.rejects(publisher.groupCount('late'), { code: 'WSG_CLOSED' })
  await Promise.all([closed, publisher.close()])
  t.equal((await Promise.all(sent)).length, 50)
  t.equal((await instance.registry.history('late', { limit: 1_000 })).messages.length, 50)
})

t.test('close of a publisher waits for calls that were made before it was connected, and for what they write', async t => {
  const cluster = await startRedisCluster(t, { masters: 1, replicas: 0 })
  for (const [name, url] of [['single', redis.url], ['cluster', cluster.nodes[0]?.url ?? '']] as const) {
    const publisher = createPublisher({ redis: url, operationTimeoutMs: 10_000 })
    const sent = Array.from({ length: 100 }, async (_, n) => await publisher.broadcastToGroup('early', String(n)))
    const closed = publisher.close()
    await t.rejects(publisher.broadcastToGroup('early', 'x'), { code: 'WSG_CLOSED' })
    await closed
    t.equal((await Promise.all(sent)).length, 100, name)
    await using reader = createPublisher({ redis: url })
    const { messages } = await reader.history('early', { limit: 1_000 })
    t.strictSame(messages.map(({ data }) => data), Array.from({ length: 100 }, (_, n) => String(n)), name)
  }
})

t.test('close of a publisher that cannot use Redis ends its calls in time, with the reason', async t => {
  await redis.admin.call('ACL', 'SETUSER', 'nothing', 'on', '>pw', '-@all', '+ping')
  const mute = await startProxy(t, redis.port)
  mute.blackhole(true)
  const machine = watchMachine(t)
  for (const [url, code, ms] of [
    [redis.url.replace('//', '//nothing:other@'), 'WSG_REDIS_REFUSED', 2_000],
    [redis.url.replace('//', '//nothing:pw@'), 'WSG_REDIS_REFUSED', 2_000],
    [`redis://127.0.0.1:${await freePort()}`, 'WSG_CLOSED', 2_000],
    [mute.url, /WSG_CLOSED|WSG_BACKPLANE_UNAVAILABLE/, 6_000]
  ] as const) {
    const publisher = createPublisher({ redis: url })
    machine.restart()
    const started = performance.now()
    const calls = [t.rejects(publisher.broadcastToGroup('g', 'x'), { code }), t.rejects(publisher.groupCount('g'), { code })]
    await publisher.close()
    await Promise.all(calls)
    machine.within(t, performance.now() - started, ms, 'close')
  }
})

t.test('a call to several channels of which one is forbidden sends nothing, and says so', async t => {
  await redis.admin.call('ACL', 'SETUSER', 'half', 'on', '>pw', '+@all', '~*', 'resetchannels', '&wsg:{0}:c:g:may*', '&wsg:{0}:c:g:group',
    '&wsg:{0}:c:u:*', '&wsg:{0}:c:all')
  const cluster = await redisCluster(t, redis)
  const instance = await cluster.start()
  const member = await instance.enter('may')
  await using publisher = createPublisher({ redis: redis.url.replace('//', '//half:pw@') })
  for (const volatile of [true, false]) {
    await t.rejects(publisher.broadcastToGroup(['may', 'not'], 'x', { volatile }), { code: 'WSG_BACKPLANE_UNAVAILABLE', message: /NOPERM/ })
  }
  await publisher.broadcastToGroup('may', 'last')
  t.equal(await member.client.next(), 'last')
  t.strictSame((await instance.registry.history('may')).messages.map(({ data }) => data), ['last'])
})
