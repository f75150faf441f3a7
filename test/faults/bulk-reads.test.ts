import t from 'tap'
import type { Redis } from 'ioredis'
import { logStart } from '../../lib/backplane/position.ts'
import type { RedisBackplane } from '../../lib/backplane/redis/index.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'
import { appendQuietly, startBackplane } from './log-rig.ts'

noUnhandled(t)

const stored = 40

/** A log that is read in many pages. */
async function fill (admin: Redis): Promise<void> {
  await Promise.all(Array.from({ length: stored }, async (_, n) => await appendQuietly(admin, 'log big', String(n).padEnd(50_000))))
}

async function readAll (backplane: RedisBackplane): Promise<string[]> {
  const texts: string[] = []
  for (let since = logStart, more = true; more;) {
    const page = await backplane.history('log big', since, 1_000)
    texts.push(...page.messages.map(({ payload }) => payload.toString('latin1', 0, 10).trim()))
    since = page.messages.at(-1)?.position ?? since
    more = page.more
  }
  return texts
}

const all = Array.from({ length: stored }, (_, n) => String(n))

t.test('much is read by a connection of its own, which goes with the instance', async t => {
  const redis = await startRedis(t)
  const { backplane } = await startBackplane(t, redis.url)
  t.equal(backplane.stats().redisConnections, 2)
  await backplane.history('log', logStart, 10)
  t.equal(backplane.stats().redisConnections, 2, 'little is read by the link')
  await fill(redis.admin)
  t.strictSame(await readAll(backplane), all)
  t.equal(backplane.stats().redisConnections, 3)
  await backplane.close()
  await until(async () => Number(/connected_clients:(\d+)/.exec(await redis.admin.info('clients'))?.[1]) === 1)
})

t.test('where Redis has no connection left, reads go by the link', async t => {
  const redis = await startRedis(t)
  const { backplane } = await startBackplane(t, redis.url)
  await fill(redis.admin)
  await redis.admin.config('SET', 'maxclients', 3)
  t.strictSame(await readAll(backplane), all)
  t.match(backplane.stats(), { redisConnections: 2, bulkReadsFailed: 0 })
  t.equal(backplane.state, 'up')
})

t.test('when the connection of the reads breaks, the reads go on, and nothing else notices', async t => {
  const redis = await startRedis(t)
  const { backplane, append } = await startBackplane(t, redis.url, { groups: ['log', 'log other'] })
  await fill(redis.admin)
  /** Of the normal clients it came last. */
  const ownId = async (): Promise<string> => {
    const lines = String(await redis.admin.call('CLIENT', 'LIST', 'TYPE', 'normal')).split('\n')
    const own = lines.filter(line => line.includes(' cmd=eval')).map(line => Number(/id=(\d+)/.exec(line)?.[1])).sort((a, b) => a - b)
    return String(own.at(-1))
  }
  await readAll(backplane)
  t.equal(backplane.stats().redisConnections, 3)
  for (let n = 0; n < 5; n++) {
    const reading = readAll(backplane)
    await redis.admin.call('CLIENT', 'KILL', 'ID', await ownId())
    t.strictSame(await reading, all)
    t.type((await append(['x'], { group: 'log other' }))[0], 'number')
  }
  t.match(backplane.stats(), { redisReconnects: 0, bulkReadsFailed: 0 })
  t.equal(backplane.state, 'up')
})

t.test('an answer that is larger than Redis sends to a client costs nobody else a connection', async t => {
  const redis = await startRedis(t)
  const { backplane, append } = await startBackplane(t, redis.url, { groups: ['log', 'log other'] })
  await appendQuietly(redis.admin, 'log big', 'x'.repeat(300_000))
  await redis.admin.config('SET', 'client-output-buffer-limit', 'normal 204800 0 0')
  for (let n = 0; n < 3; n++) {
    await t.rejects(backplane.history('log big', logStart, 10), { code: 'WSG_TIMEOUT' })
    t.type((await append(['x'], { group: 'log other' }))[0], 'number')
  }
  t.equal(backplane.stats().redisReconnects, 0)
  t.equal(backplane.state, 'up')
})

t.test('a list of members whose pages are larger than Redis sends costs the link one connection, and is read', async t => {
  const redis = await startRedis(t)
  await redis.admin.config('SET', 'client-output-buffer-limit', 'normal 204800 0 0')
  const { backplane } = await startBackplane(t, redis.url)
  const ids = Array.from({ length: 2_000 }, (_, n) => `instance00.${n}`)
  await redis.admin.hset('wsg:{0}:r:crowd', { '#': ids.length, instance00: ids.length })
  const record = JSON.stringify([0, null, null, 'x'.repeat(900)])
  await redis.admin.hset('wsg:{0}:m:crowd:instance00', Object.fromEntries(ids.map(id => [id, record])))
  await until(async () => await backplane.members('crowd').then(({ length }) => length === ids.length, () => false))
  t.ok(Number(backplane.stats().redisReconnects) <= 1)
})

t.test('after a failover by name the reads go to the server to which the link leads', async t => {
  const [first, second] = [await startRedis(t), await startRedis(t)]
  const proxy = await startProxy(t, first.port)
  const { backplane } = await startBackplane(t, proxy.url)
  await fill(first.admin)
  t.strictSame(await readAll(backplane), all)
  for (let n = 0; n < 3; n++) await appendQuietly(second.admin, 'log big', `second ${n}`)
  proxy.lead(second.port)
  proxy.cut()
  await until(() => backplane.state === 'up' && (backplane.stats().redisReconnects ?? 0) >= 2, { timeoutMs: 10_000 })
  t.strictSame(await readAll(backplane), ['second 0', 'second 1', 'second 2'])
})
