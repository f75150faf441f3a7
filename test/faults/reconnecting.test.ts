import t from 'tap'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { redisCluster, type TestInstance } from '../helpers/app.ts'
import { startInstance as startProcess } from '../helpers/instance.ts'
import { Local } from '../helpers/local-instance.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'
import { Wire } from './chaos/wire.ts'

noUnhandled(t)
const leaseMs = 6_000

t.test('an instance that reconnects is not gone: whoever asks it waits until it is back', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const cluster = await redisCluster(t, redis)
  const [a, b] = [await cluster.start(), await cluster.start({ redis: proxy.url })]
  const [eve, max] = [await b.enter('room', { user: 'eve' }), await b.enter('room', { user: 'max' })]
  const whileCut = async <Result>(call: () => Promise<Result>): Promise<Result> => {
    await proxy.refuse(true)
    proxy.cut()
    await until(() => b.registry.health().status === 'down')
    const answer = call()
    await proxy.refuse(false)
    return await answer
  }
  t.equal(await whileCut(async () => await a.registry.sendTo(max.id, 'late, not lost')), true)
  t.strictSame(await whileCut(async () => await a.registry.groups(max.id)), ['room'])
  t.match(await whileCut(async () => await a.registry.join(max.id, 'other')), { scope: 'cluster' })
  t.equal(await whileCut(async () => await a.registry.leave(max.id, 'other')), true)
  t.strictSame(await whileCut(async () => await a.registry.groups({ userId: 'max' })), ['room'])
  t.equal(await whileCut(async () => await a.registry.join({ userId: 'max' }, 'other')), 1)
  t.equal(await whileCut(async () => await a.registry.disconnect({ userId: 'eve' }, { code: 4403 })), 1)
  await eve.client.closed
  t.equal(await whileCut(async () => await a.registry.disconnect(max.id, { code: 4000 })), 1)
  await max.client.closed
  t.equal(await a.registry.sendTo(max.id, 'x'), false, 'an instance that is there says who is gone')
})

t.test('an instance that stays away is told apart from one that is gone, as long as its lease runs', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const cluster = await redisCluster(t, redis, { leaseMs, operationTimeoutMs: 600, joinTimeoutMs: 600 })
  const [a, b] = [await cluster.start(), await cluster.start({ redis: proxy.url })]
  const here = await a.enter('room', { user: 'eve' })
  const there = await b.enter('room', { user: 'eve' })
  await proxy.refuse(true)
  proxy.cut()
  await until(() => b.registry.health().status === 'down')
  // As long as Redis has its subscription, what is sent to it may have arrived.
  await until(async () => (await redis.channels()).every(channel => !channel.includes(b.id)))
  const unavailable = { code: 'WSG_BACKPLANE_UNAVAILABLE', message: new RegExp(b.id) }
  await Promise.all([
    t.rejects(a.registry.sendTo(there.id, 'x'), unavailable),
    t.rejects(a.registry.leave(there.id, 'room'), unavailable),
    t.rejects(a.registry.leaveAll(there.id), unavailable),
    t.rejects(a.registry.join(there.id, 'other'), unavailable),
    t.rejects(a.registry.groups(there.id), unavailable),
    t.rejects(a.registry.disconnect(there.id), unavailable),
    t.rejects(a.registry.disconnect({ userId: 'nobody' }), { ...unavailable, done: 0, missing: [b.id] })
  ])
  await t.rejects(a.registry.disconnect({ userId: 'eve' }), {
    code: 'WSG_TIMEOUT', message: /was done for 1 connections/, done: 1, missing: [b.id]
  }, 'what was done is counted, and who did not do it is named')
  await here.client.closed
  await t.rejects(b.registry.block({ userId: 'eve' }, { forMs: 60_000 }), { code: 'WSG_BACKPLANE_UNAVAILABLE', done: 1 })
  await there.client.closed
  const gone = async (): Promise<boolean> => await a.registry.sendTo(there.id, 'x').then(taken => !taken, () => false)
  await until(gone, { timeoutMs: 3 * leaseMs, what: 'the lease to be over' })
  t.equal(await a.registry.disconnect({ userId: 'eve' }), 0)
  await proxy.refuse(false)
})

t.test('of a user with a connection on an instance that hangs, all others are closed and counted, and the instance is named', async t => {
  const redis = await startRedis(t)
  const frozen = await startProcess(t, { redisUrl: redis.url })
  const cluster = await redisCluster(t, redis, { operationTimeoutMs: 1_500, joinTimeoutMs: 1_500 })
  const instances: TestInstance[] = [await cluster.start(), await cluster.start(), await cluster.start()]
  const [b, c, d] = instances as [TestInstance, TestInstance, TestInstance]
  const [onB, onC] = [await b.enter('room', { user: 'ann' }), await c.enter('room', { user: 'ann' })]
  process.kill(frozen.pid, 'SIGSTOP')
  t.teardown(() => { process.kill(frozen.pid, 'SIGCONT') })
  await t.rejects(d.registry.block({ userId: 'ann' }, { forMs: 60_000 }), { code: 'WSG_TIMEOUT', done: 2, missing: [frozen.id] })
  await Promise.all([onB.client.closed, onC.client.closed])
  await t.rejects(d.registry.sendTo(`${frozen.id}.1`, 'x'), { code: 'WSG_TIMEOUT' }, 'it took the request: nobody knows what it does')
})

t.test('who is blocked stays out when Redis restarts without its data, and who was let in stays in', async t => {
  const redis = await startRedis(t)
  const cluster = await redisCluster(t, redis)
  const [a, b] = [await cluster.start(), await cluster.start()] as [TestInstance, TestInstance]
  await a.registry.block({ userId: 'ann' }, { forMs: 600_000 })
  await a.registry.block({ userId: 'bob' }, { forMs: 600_000 })
  await redis.restart()
  const stored = async (): Promise<string[]> => (await redis.admin.zrange('wsg:{0}:blocked', '0', '-1')).sort()
  await until(async () => (await stored()).join() === ',u:ann,u:bob', { what: 'the blocks to be back' })
  const later = await cluster.start()
  await t.rejects(later.enter('room', { user: 'ann' }), 'an instance that started after it')
  t.equal(later.registry.stats().blocked, 2)

  await until(() => b.registry.health().status === 'up')
  await b.registry.unblock({ userId: 'bob' })
  await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await until(
    async () => a.registry.health().status === 'up' && await a.registry.groupCount('room').then(count => count === 0, () => false)
  )
  await a.enter('room', { user: 'bob' })
  await t.rejects(a.enter('room', { user: 'ann' }))
})

t.test('an instance says that it is up only when Redis has its members again', async t => {
  const redis = await startRedis(t)
  const wire = await Wire.start(redis.port)
  t.teardown(() => wire.close())
  const local = await new Local({ redis: `redis://127.0.0.1:${wire.port}` }).start(t)
  await local.join('lobby', 'a.1')
  for (let round = 0; round < 5; round++) {
    // The subscriptions are back at once, the lease is not.
    wire.delay('command', 20 * round)
    await redis.admin.flushall()
    wire.cut('command', 'subscribe')
    await until(() => local.backplane.state !== 'up')
    await until(() => local.backplane.state === 'up', { everyMs: 1 })
    t.equal(await redis.admin.hget(new Keys('wsg:').counts('lobby'), '#'), '1')
  }
})
