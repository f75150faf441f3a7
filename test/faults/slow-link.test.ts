import t from 'tap'
import { logStart } from '../../lib/backplane/position.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { appendQuietly, startInstance } from './log-rig.ts'

const bytesPerSecond = 1_250_000

t.test('over a slow link all of a large log is read, while appends and beats go on', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const { backplane, append } = await startInstance(t, proxy.url, { groups: ['log other'] })
  const stored = 60
  for (let n = 0; n < stored; n++) await appendQuietly(redis.admin, 'log big', String(n).padEnd(100_000))
  // One that takes longer than the deadline of a call.
  await appendQuietly(redis.admin, 'log big', 'last'.padEnd(900_000))
  proxy.limit(bytesPerSecond)
  const reading = new AbortController()
  const results: Array<number | string> = []
  const appending = (async () => {
    while (!reading.signal.aborted) {
      results.push(...await append(['x'], { group: 'log other' }))
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  })()
  const texts: string[] = []
  try {
    for (let since = logStart, more = true; more;) {
      const page = await backplane.history('log big', since, 1_000)
      texts.push(...page.messages.map(({ payload }) => payload.toString('latin1', 0, 10).trim()))
      since = page.messages.at(-1)?.position ?? since
      more = page.more
    }
  } finally {
    reading.abort()
    await appending
  }
  t.strictSame(texts, [...Array.from({ length: stored }, (_, n) => String(n)), 'last'])
  t.strictSame(results, results.map((_, index) => index + 1), 'every append was stored once, at the first try')
  t.ok(results.length >= 10)
  t.equal(backplane.state, 'up')
  t.match(backplane.stats(), { redisReconnects: 0, bulkReadsFailed: 0, leasesLost: 0 })
})

t.test('repairs of many groups over a slow link end, and the link stays up', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const groups = Array.from({ length: 50 }, (_, n) => `log ${n}`)
  const { local, backplane } = await startInstance(t, proxy.url, { groups })
  for (const group of groups) for (let n = 0; n < 40; n++) await appendQuietly(redis.admin, group, String(n).padEnd(1_500))
  proxy.limit(bytesPerSecond)
  // The subscriptions alone break: what was missed is noticed when they are back.
  await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await until(() => local.received.length === 50 * 40, { timeoutMs: 60_000, what: 'all repairs' })
  await until(() => backplane.state === 'up', { timeoutMs: 60_000 })
  t.strictSame(local.gaps, [])
  t.match(backplane.stats(), { redisTimeouts: 0, bulkReadsFailed: 0, leasesLost: 0 })
})
