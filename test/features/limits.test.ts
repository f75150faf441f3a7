import t from 'tap'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createPublisher } from '../../plugin.ts'
import { onEveryCluster, redisCluster, type TestInstance } from '../helpers/app.ts'
import { upgradeStatus } from '../helpers/client.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startInstances, type Instance } from '../helpers/instance.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const machine = watchMachine(t)
const redis = await startRedis(t)

async function refusal ({ url }: { readonly url: string }, user: string): Promise<readonly [status: number, code: string | undefined]> {
  const { statusCode, body } = await upgradeStatus(`${url}/ws`, { headers: { authorization: `Bearer ${user}` } })
  return [statusCode, /"code":"(\w+)"/.exec(body)?.[1]]
}

const tooMany = [429, 'WSG_TOO_MANY_CONNECTIONS']

onEveryCluster(t, redis, 'a user\'s connections are limited over all instances, and counted exactly', async (t, cluster) => {
  const limits = { connectionsPerUser: 3 }
  const [a, b, c] = [await cluster.start({ limits }), await cluster.start({ limits }), await cluster.start({ limits })]
  const first = await a.open({ user: 'ann' })
  await b.open({ user: 'ann' })
  const third = await b.open({ user: 'ann' })
  for (const instance of [a, b, c]) t.strictSame(await refusal(instance, 'ann'), tooMany)
  await c.open({ user: 'bob' })
  first.client.terminate()
  await until(async () => (await refusal(c, 'ann'))[0] === 101)
  // That one was dropped at once; the place is free again.
  const fourth = await (async () => {
    for (;;) {
      try {
        return await c.open({ user: 'ann' })
      } catch {
        await sleep(10)
      }
    }
  })()
  t.strictSame(await refusal(a, 'ann'), tooMany)
  await third.client.close()
  await fourth.client.close()
  await until(() => b.registry.count() === 1 && c.registry.count() === 1)
  await b.close()
  await until(async () => (await refusal(a, 'ann'))[0] === 101)
})

t.test('the places of a user on an instance that is killed are free when its lease is over', async t => {
  const own = await startRedis(t)
  const leaseMs = 1_500
  const options = { limits: { connectionsPerUser: 2 }, leaseMs }
  const [victim, survivor] = await startInstances(t, 2, { redisUrl: own.url, options }) as [Instance, Instance]
  const urlOf = ({ port }: Instance): { url: string } => ({ url: `ws://127.0.0.1:${port}` })
  const open = async (instance: Instance): Promise<number> => {
    const { statusCode } = await upgradeStatus(`${urlOf(instance).url}/ws/-`, { headers: { authorization: 'Bearer ann' } })
    return statusCode
  }
  const { WebSocket } = await import('ws')
  const sockets = [1, 2].map(() => new WebSocket(`${urlOf(victim).url}/ws/-`, { headers: { authorization: 'Bearer ann' } }))
  // Both listen before the first one is waited for: either may be let in first.
  await Promise.all(sockets.map(async socket => await once(socket, 'message')))
  for (const socket of sockets) socket.on('error', () => {})
  t.equal(await open(survivor), 429)
  const began = performance.now()
  await victim.kill()
  await until(async () => await open(survivor) === 101, { timeoutMs: 60_000 })
  const tookMs = performance.now() - began
  // It renews its lease three times in the time of one.
  t.ok(tookMs > leaseMs / 3, `in again ${Math.round(tookMs)} ms after the kill, when its lease was over`)
  await until(async () => !(await own.keys()).includes('wsg:{0}:u:ann'))
})

t.test('while Redis is out an instance counts its own connections alone, and all are right when it is back', async t => {
  const own = await startRedis(t)
  const proxy = await startProxy(t, own.port)
  const limits = { connectionsPerUser: 3 }
  const cluster = await redisCluster(t, own, { redis: proxy.url, limits })
  const [a, b] = [await cluster.start(), await cluster.start()]
  await a.open({ user: 'ann' })
  await a.open({ user: 'ann' })
  await b.open({ user: 'ann' })
  t.strictSame(await refusal(b, 'ann'), tooMany)
  await proxy.refuse(true)
  proxy.cut()
  await until(() => a.registry.health().status === 'down' && b.registry.health().status === 'down')
  const extra = await b.open({ user: 'ann' })
  await b.open({ user: 'ann' })
  t.strictSame(await refusal(b, 'ann'), tooMany, 'its own three')
  t.ok(Number(b.registry.stats().userLimitsLocal) > 0)
  await own.admin.flushall()
  await proxy.refuse(false)
  await until(() => a.registry.health().status === 'up' && b.registry.health().status === 'up')
  await until(async () => (await own.admin.hvals('wsg:{0}:u:ann')).map(Number).reduce((sum, one) => sum + one, 0) === 5)
  t.strictSame(await refusal(a, 'ann'), tooMany)
  await extra.client.close()
  await until(() => b.registry.count() === 2)
  await until(async () => (await own.admin.hvals('wsg:{0}:u:ann')).map(Number).reduce((sum, one) => sum + one, 0) === 4)
  await cluster.close()
})

onEveryCluster(t, redis, 'block closes a user\'s connections on every instance, and keeps the user out', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const anns = [await a.open({ user: 'ann' }), await b.open({ user: 'ann' }), await b.enter('room', { user: 'ann' })]
  const bob = await b.open({ user: 'bob' })
  machine.restart()
  const began = performance.now()
  t.equal(await a.registry.block({ userId: 'ann' }, { forMs: 60_000 }), 3)
  for (const { client } of anns) t.strictSame(await client.closed, { code: 4403, reason: 'access was revoked' })
  machine.within(t, performance.now() - began, 1_000, 'all of them are closed')
  for (const instance of [a, b]) t.strictSame(await refusal(instance, 'ann'), [403, 'WSG_BLOCKED'])
  t.equal(bob.connection.closed, false)
  t.equal((await refusal(a, 'bob'))[0], 101)
  const late = await cluster.start()
  t.strictSame(await refusal(late, 'ann'), [403, 'WSG_BLOCKED'], 'an instance that starts later knows')
  await late.registry.unblock({ userId: 'ann' })
  for (const instance of [a, b, late]) t.equal((await refusal(instance, 'ann'))[0], 101)
  t.equal(await b.registry.block({ userId: 'bob' }, { forMs: 100 }), 1)
  await until(async () => (await refusal(a, 'bob'))[0] === 101)
  t.match(b.registry.stats(), { connectionsBlocked: 3 })
})

onEveryCluster(t, redis, 'a user who is unblocked right after a block is let in everywhere', async (t, cluster) => {
  const instances = [await cluster.start(), await cluster.start()] as const
  const { registry } = instances[0]
  await Promise.all([registry.block({ userId: 'ann' }, { forMs: 60_000 }), registry.unblock({ userId: 'ann' })])
  for (const instance of instances) t.equal((await refusal(instance, 'ann'))[0], 101)
})

t.test('the same with a publisher', async t => {
  const cluster = await redisCluster(t, redis)
  const instance = await cluster.start()
  await using publisher = createPublisher({ redis: redis.url })
  await Promise.all([publisher.block({ userId: 'ann' }, { forMs: 60_000 }), publisher.unblock({ userId: 'ann' })])
  t.equal((await refusal(instance, 'ann'))[0], 101)
})

onEveryCluster(t, redis, 'block with a token leaves the user\'s other tokens alone', async (t, cluster) => {
  const options = { authenticate: (token: string) => ({ userId: 'ann', jti: token }) }
  const [a, b] = [await cluster.start(options), await cluster.start(options)]
  const [one, other] = [await b.open({ user: 'one' }), await b.open({ user: 'other' })]
  t.equal(await a.registry.block({ tokenId: 'one' }, { forMs: 60_000 }), 1)
  t.match(await one.client.closed, { code: 4403 })
  t.strictSame(await refusal(b, 'one'), [403, 'WSG_BLOCKED'])
  t.equal(other.connection.closed, false)
  t.equal((await refusal(b, 'other'))[0], 101)
  await a.registry.unblock({ tokenId: 'one' })
})

t.test('what cannot be blocked is refused', async t => {
  const cluster = await redisCluster(t, redis)
  const { registry } = await cluster.start()
  for (const [target, forMs] of [
    [{ userId: '' }, 1], [{ userId: 'a'.repeat(256) }, 1], [{}, 1], [{ userId: 'ann', tokenId: '1' }, 1], [{ tokenId: 5 }, 1],
    [{ userId: 'ann' }, 0], [{ userId: 'ann' }, 1.5], [{ userId: 'ann' }, 2_592_000_001], [{ userId: 'ann' }, Infinity]
  ] as const) await t.rejects(registry.block(target as { userId: string }, { forMs }), { code: 'WSG_BLOCK_INVALID' })
  await cluster.close()
})

t.test('a block outlives a restart of Redis with its data, and reaches instances that were cut off when it was made', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'redis-aof-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const own = await startRedis(t, { appendonly: folder })
  const proxy = await startProxy(t, own.port)
  const cluster = await redisCluster(t, own)
  const [a, cutOff]: TestInstance[] = [await cluster.start(), await cluster.start({ redis: proxy.url })]
  if (a === undefined || cutOff === undefined) throw new Error('no instances')
  const ann = await cutOff.open({ user: 'ann' })
  await proxy.refuse(true)
  proxy.cut()
  await until(() => cutOff.registry.health().status === 'down')
  t.equal(await a.registry.block({ userId: 'ann' }, { forMs: 60_000 }), 0)
  t.equal(ann.connection.closed, false)
  await proxy.refuse(false)
  t.match(await ann.client.closed, { code: 4403 })

  await own.kill()
  await t.rejects(a.registry.block({ userId: 'bob' }, { forMs: 60_000 }), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
  t.strictSame(await refusal(a, 'bob'), [403, 'WSG_BLOCKED'], 'here it holds')
  await own.restart()
  await until(() => a.registry.health().status === 'up')
  const late = await cluster.start()
  t.strictSame(await refusal(late, 'ann'), [403, 'WSG_BLOCKED'])
  await until(async () => await a.registry.unblock({ userId: 'ann' }).then(() => true, () => false))
  await cluster.close()
})
