import t from 'tap'
import { logStart } from '../../lib/backplane/position.ts'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'
import { envelope, startBackplane } from './log-rig.ts'

noUnhandled(t)

const keys = new Keys('wsg:')
const log = { maxMessages: 100, maxBytes: 100_000_000, ttlMs: 60_000 }

for (const limit of ['client-query-buffer-limit', 'proto-max-bulk-len']) {
  t.test(`a message beyond ${limit} is told to its sender, and costs nobody else anything`, async t => {
    const redis = await startRedis(t, { args: [`--${limit}`, '1048576'] })
    const { local, backplane, append } = await startBackplane(t, redis.url, { groups: ['log', 'plain'] })
    const others: Array<number | string> = []
    const stop = new AbortController()
    const busy = (async () => {
      while (!stop.signal.aborted) {
        others.push(...await append(['x']))
        await new Promise(resolve => setTimeout(resolve, 2))
      }
    })()
    const large = Buffer.alloc(1_500_000, 'x')
    const targets = [{ group: 'log large', log }]
    for (let n = 0; n < 3; n++) {
      await t.rejects(backplane.append(targets, envelope('log large', large)), { code: 'WSG_MESSAGE_TOO_LARGE', statusCode: 413 })
      await t.rejects(backplane.publish([{ kind: 'group', name: 'plain' }], envelope('plain', large)), { code: 'WSG_MESSAGE_TOO_LARGE' })
    }
    t.same((await backplane.append(targets, envelope('log large', 'small'))).positions.get('log large')?.offset, 1, 'nothing was stored')
    stop.abort()
    await busy
    t.same(others, others.map((_, index) => index + 1), 'every append of others was stored once, at the first try')
    t.match(backplane.stats(), { redisReconnects: 0, redisTimeouts: 0 })
    t.equal(backplane.state, 'up')
    await until(() => local.received.length === others.length)
  })
}

t.test('large messages that Redis takes go through, in their order, also over a slow link', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const { local, backplane, append } = await startBackplane(t, proxy.url)
  const texts = Array.from({ length: 4 }, (_, n) => String(n).padEnd(n % 2 === 0 ? 2_000_000 : 10))
  proxy.limit(4_000_000)
  t.same(await append(texts), [1, 2, 3, 4])
  t.equal(await backplane.publish([{ kind: 'group', name: 'log' }], envelope('log', Buffer.alloc(2_000_000))), 1)
  await until(() => local.received.length === 5, { timeoutMs: 20_000 })
  t.same(local.received.slice(0, 4).map(({ payload }) => payload.toString('latin1', 0, 1)), ['0', '1', '2', '3'])
  t.match(backplane.stats(), { redisReconnects: 0 })
})

t.test('with the longest deadline that the options allow large messages go through, and are read', async t => {
  const redis = await startRedis(t)
  const { backplane, append } = await startBackplane(t, redis.url, { operationTimeoutMs: 2_147_483_647 })
  t.same(await append(['x'.repeat(400_000)]), [1])
  t.equal(await backplane.publish([{ kind: 'group', name: 'log' }], envelope('log', Buffer.alloc(1_200_000))), 1)
  t.equal((await backplane.history('log', logStart, 10)).messages.length, 1)
})

t.test('a large message to forty groups is stored in all of them, or in none of them', async t => {
  const redis = await startRedis(t)
  const { backplane } = await startBackplane(t, redis.url, { groups: [], operationTimeoutMs: 5_000 })
  const groups = Array.from({ length: 40 }, (_, n) => `log ${n}`)
  const send = async (): Promise<number> => {
    return (await backplane.append(groups.map(group => ({ group, log })), envelope('log 0', Buffer.alloc(1_000_000)))).positions.size
  }
  const stored = async (): Promise<number[]> => await Promise.all(groups.map(async group => await redis.admin.llen(keys.log(group))))
  t.equal(await send(), groups.length)
  t.strictSame(await stored(), groups.map(() => 1))
  await redis.admin.flushall()
  await redis.admin.set(keys.log('log 33'), 'not a list')
  await t.rejects(send(), { code: 'WSG_BACKPLANE_UNAVAILABLE', message: /WRONGTYPE/ })
  await redis.admin.del(keys.log('log 33'))
  t.strictSame(await stored(), groups.map(() => 0), 'it was sent to nobody, as the error says')
})

t.test('large messages that wait for others fail together when Redis cannot be reached', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const { backplane } = await startBackplane(t, proxy.url, { operationTimeoutMs: 2_000 })
  proxy.limit(1_000_000)
  const outcomes: unknown[] = []
  for (let n = 0; n < 20; n++) {
    backplane.publish([{ kind: 'group', name: 'log' }], envelope('log', Buffer.alloc(2_000_000)))
      .then(() => outcomes.push('sent'), (error: { code: string }) => outcomes.push(error.code))
  }
  await until(() => proxy.links > 2)
  proxy.blackhole(true)
  await until(() => backplane.state !== 'up', { timeoutMs: 20_000 })
  // One after the other, each would wait for a connection for twice operationTimeoutMs: more than a minute.
  await until(() => outcomes.length === 20, { timeoutMs: 20_000 })
  t.strictSame(new Set(outcomes.slice(1)), new Set(['WSG_BACKPLANE_UNAVAILABLE']))
})

t.test('a connection that breaks under a large message says nothing about its size', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const { backplane, append } = await startBackplane(t, proxy.url)
  proxy.limit(2_000_000)
  const before = proxy.links
  const appending = append(['large'.padEnd(3_000_000)])
  await until(() => proxy.links > before)
  await new Promise(resolve => setTimeout(resolve, 300))
  proxy.limit(0)
  proxy.cut()
  const [outcome] = await appending
  t.not(outcome, 'WSG_MESSAGE_TOO_LARGE')
  await until(() => backplane.state === 'up', { timeoutMs: 20_000 })
  t.type((await append(['large again'.padEnd(3_000_000)]))[0], 'number')
})
