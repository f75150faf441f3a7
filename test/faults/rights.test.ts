import t from 'tap'
import { readFileSync } from 'node:fs'
import { createPublisher } from '../../plugin.ts'
import { redisCluster, startInstance } from '../helpers/app.ts'
import { crowd } from '../helpers/crowd.ts'
import { documentedRights } from '../helpers/documented-rights.ts'
import { startInstance as startProcess } from '../helpers/instance.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis, type TestRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

const instanceRights = documentedRights('app')
const publisherRights = documentedRights('worker')
/** All works without them, as the page says. */
const optional = ['+info', '+evalsha', '+hscan']

const setUser = async ({ admin }: TestRedis, name: string, rights: readonly string[]): Promise<void> => {
  await admin.call('ACL', 'SETUSER', name, 'reset', 'on', '>pw', ...rights)
}
const urlOf = ({ url }: TestRedis, name: string): string => url.replace('//', `//${name}:pw@`)

t.test('the documented rights are enough for all that instances and publishers do', async t => {
  const redis = await startRedis(t)
  t.ok(instanceRights.length > 30 && publisherRights.length > 10, 'found the lines')
  await setUser(redis, 'app', instanceRights)
  await setUser(redis, 'worker', publisherRights)
  const leaseMs = 1_500
  const cluster = await redisCluster(t, redis, {
    redis: urlOf(redis, 'app'),
    leaseMs,
    outage: { boot: 'fail' },
    limits: { connectionsPerUser: 3 },
    log: { maxMessages: 3, ttlMs: 60_000 },
    logs: { 'none*': false }
  })
  const [a, b] = [await cluster.start(), await cluster.start()]
  const [ann, bob] = [await a.enter('room', { user: 'ann' }), await b.enter('room', { user: 'bob' })]
  await using publisher = createPublisher({ redis: urlOf(redis, 'worker'), log: { maxMessages: 3, ttlMs: 60_000 } })
  for (let n = 0; n < 8; n++) {
    await a.registry.broadcastToGroup('room', 'x'.repeat(n), { idempotencyKey: `a${n}` })
    await publisher.broadcastToGroup(['room', 'den'], String(n))
    await publisher.broadcastToGroup('room', String(n), { idempotencyKey: `p${n}` })
  }
  await publisher.broadcastToGroup(['none1', 'none2'], 'volatile')
  await publisher.broadcastToAll('all')
  await publisher.sendToUser('ann', 'user')
  t.equal((await publisher.history('room')).messages.length, 3)
  t.equal(await publisher.groupCount('room'), 2)
  t.equal((await publisher.members('room')).length, 2)
  t.equal((await a.registry.history('room')).messages.length, 3)
  t.equal((await a.registry.members('room')).length, 2)
  t.equal(await a.registry.sendTo(bob.id, 'x'), true)
  t.equal(await b.registry.sendTo('AAAAAAAAAA.1', 'x'), false)
  t.equal(await a.registry.block({ userId: 'bob' }, { forMs: 60_000 }), 1)
  await a.registry.unblock({ userId: 'bob' })
  const victim = await startProcess(t, { redisUrl: urlOf(redis, 'app'), options: { leaseMs } })
  await crowd(t, victim.port, ['room', 'alone'])
  await until(async () => await a.registry.groupCount('room') === 2)
  await victim.kill()
  await redis.admin.del(`wsg:{0}:i:${victim.id}`, 'wsg:{0}:live')
  await until(async () => await a.registry.groupCount('room') + await a.registry.groupCount('alone') === 1, { timeoutMs: 20 * leaseMs })
  await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await until(() => [a, b].every(({ registry }) => registry.health().status === 'up'))
  ann.client.terminate()
  t.strictSame([a, b].flatMap(({ registry }) => registry.health().problems), [])
  await Promise.all([a.close(), b.close()])
  const denied = await redis.admin.call('ACL', 'LOG') as unknown[]
  t.strictSame(denied.filter(entry => !/client\|set(info|name)/.test(String(entry))), [], 'Redis denied nothing')
})

t.test('with the further rights that are documented for them publishers ask instances, make streams and block', async t => {
  const redis = await startRedis(t)
  const page = readFileSync('docs/redis.md', 'utf8')
  const [toAsk, toUnblock] = ['+subscribe +unsubscribe +pubsub|numsub', '+zrem']
  for (const words of [toAsk, toUnblock]) t.ok(page.includes(`\`${words}\``), words)
  await setUser(redis, 'worker', [...publisherRights, ...toAsk.split(' ')])
  const a = await startInstance(t, { redis: redis.url })
  const ann = await a.enter('room', { user: 'ann' })
  await using publisher = createPublisher({ redis: urlOf(redis, 'worker') })
  t.equal(await publisher.sendTo(ann.id, 'x'), true)
  t.equal(await publisher.join({ userId: 'ann' }, 'den'), 1)
  t.equal(await publisher.leave({ userId: 'ann' }, 'den'), 1)
  t.strictSame([...await publisher.groupList()], ['room'])
  const stream = publisher.stream('room', 'r1')
  await stream.done('result')
  t.match(await publisher.readStream('room', 'r1'), { state: 'done', result: 'result' })
  t.equal(await publisher.block({ userId: 'ann' }, { forMs: 60_000 }), 1)
  await redis.admin.call('ACL', 'SETUSER', 'worker', toUnblock)
  await publisher.unblock({ userId: 'ann' })
  const denied = await redis.admin.call('ACL', 'LOG') as unknown[]
  t.strictSame(denied.filter(entry => !/client\|set(info|name)/.test(String(entry))), [], 'Redis denied nothing')
})

t.test('a publisher that was refused works as soon as it is given the right, by the same connection', async t => {
  const redis = await startRedis(t)
  await setUser(redis, 'worker', publisherRights.filter(word => word !== '+rpush'))
  await using publisher = createPublisher({ redis: urlOf(redis, 'worker') })
  const say = async (): Promise<string> => {
    return await publisher.broadcastToGroup('g', 'x').then(({ scope }) => scope, ({ code }) => code as string)
  }
  t.equal(await say(), 'WSG_REDIS_REFUSED')
  const connections = async (): Promise<string | undefined> => {
    return /total_connections_received:(\d+)/.exec(await redis.admin.info('stats'))?.[1]
  }
  const before = await connections()
  await redis.admin.call('ACL', 'SETUSER', 'worker', '+rpush')
  await until(async () => await say() === 'cluster')
  t.equal(await connections(), before)
})

t.test('each right that is taken away is named at boot', async t => {
  const redis = await startRedis(t)
  for (const right of instanceRights.filter(word => word.startsWith('+'))) {
    await setUser(redis, 'app', instanceRights.filter(word => word !== right))
    const booted = startInstance(t, { redis: urlOf(redis, 'app'), outage: { boot: 'fail' }, listen: false })
    if (optional.includes(right)) {
      t.equal((await booted).registry.health().status, 'up', `works without ${right}`)
      await (await booted).close()
    } else {
      const [command = ''] = right.slice(1).split('|')
      await t.rejects(booted, { code: 'WSG_REDIS_REFUSED', message: new RegExp(`\\b${command}\\b`, 'i') }, right)
    }
  }
  for (const pattern of instanceRights.filter(word => /^[~&]/.test(word))) {
    await setUser(redis, 'app', instanceRights.filter(word => word !== pattern))
    await t.rejects(startInstance(t, { redis: urlOf(redis, 'app'), listen: false }), { code: 'WSG_REDIS_REFUSED' }, pattern)
  }
  for (const right of publisherRights.filter(word => /^[+~&]/.test(word))) {
    await setUser(redis, 'worker', publisherRights.filter(word => word !== right))
    await using publisher = createPublisher({ redis: urlOf(redis, 'worker') })
    const call = publisher.broadcastToGroup('g', 'x')
    if (optional.includes(right)) t.equal((await call).scope, 'cluster', `a publisher works without ${right}`)
    else await t.rejects(call, { code: 'WSG_REDIS_REFUSED' }, `a publisher without ${right}`)
  }
})
