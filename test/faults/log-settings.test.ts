import t from 'tap'
import type { FastifyBaseLogger } from 'fastify'
import type { AppendTarget, LogLimits } from '../../lib/backplane/backplane.ts'
import { SettingsDifferences, packSettings, unpackSettings } from '../../lib/backplane/redis/log/settings.ts'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { envelope, logOf, startBackplane } from './log-rig.ts'

noUnhandled(t)
const keys = new Keys('wsg:')
const large: LogLimits = { maxMessages: 50, maxBytes: 1_000_000, ttlMs: 600_000 }
const small: LogLimits = { maxMessages: 5, maxBytes: 2_000_000, ttlMs: 60_000 }
const to = (log: LogLimits): AppendTarget[] => [{ group: 'log', log }]

t.test('a process with smaller settings trims nothing, and both sides name the group with both settings', async t => {
  const redis = await startRedis(t)
  const [instance, worker] = [await startBackplane(t, redis.url), await startBackplane(t, redis.url, { groups: [] })]
  for (let n = 0; n < 30; n++) await instance.backplane.append(to(large), envelope('log', String(n)))
  t.same(instance.backplane.problems, [])
  await worker.backplane.append(to(small), envelope('log', 'from the worker'))
  t.equal((await logOf(redis)).length, 31)
  t.ok(await redis.admin.pttl(keys.log('log')) > 500_000, 'nor shortens its time')
  const used = 'maxMessages: 50, maxBytes: 2000000, ttlMs: 600000'
  const expected = new RegExp(`group 'log' .*${used}.*counts.*maxMessages: 5, maxBytes: 2000000, ttlMs: 60000`)
  t.match(worker.backplane.problems, [expected])
  t.equal(worker.backplane.state, 'up', 'it is no trouble')
  await instance.backplane.history('log', undefined, 1)
  t.match(instance.backplane.problems, [expected], 'the others learn it when they read the log')
  const third = await startBackplane(t, redis.url)
  t.match(third.backplane.problems, [expected], 'or when they begin to follow it')
})

t.test('larger settings of one who does not come back count for a day', async t => {
  const redis = await startRedis(t)
  const { backplane } = await startBackplane(t, redis.url, { groups: [] })
  for (let n = 0; n < 20; n++) await backplane.append(to(large), envelope('log', String(n)))
  const used = await redis.admin.hgetBuffer(keys.logMeta('log'), 'c') as Buffer
  t.strictSame(used.subarray(0, 16), packSettings(large))
  const now = Number((await redis.admin.time())[0])
  const ago = async (seconds: number): Promise<void> => {
    used.writeUIntBE(now - seconds, 16, 6)
    await redis.admin.hset(keys.logMeta('log'), 'c', used)
  }
  await ago(80_000)
  await backplane.append(to({ ...small, maxBytes: large.maxBytes }), envelope('log', 'x'))
  t.equal((await logOf(redis)).length, 21)
  await ago(90_000)
  await backplane.append(to({ ...small, maxBytes: large.maxBytes }), envelope('log', 'x'))
  t.equal((await logOf(redis)).length, 5)
  t.strictSame((await redis.admin.hgetBuffer(keys.logMeta('log'), 'c'))?.subarray(0, 4), Buffer.from([0, 0, 0, 5]))
})

t.test('a log of large messages keeps its bytes also after it was bounded by its number alone', async t => {
  const redis = await startRedis(t)
  const { backplane } = await startBackplane(t, redis.url, { groups: [] })
  const log = { maxMessages: 10, maxBytes: 10_000, ttlMs: 60_000 }
  const append = async (size: number): Promise<void> => { await backplane.append(to(log), envelope('log', 'x'.repeat(size))) }
  const bytes = async (): Promise<number> => {
    return (await redis.admin.lrangeBuffer(keys.log('log'), 0, -1)).reduce((sum, { length }) => sum + length, 0)
  }
  for (let n = 0; n < 15; n++) await append(500)
  t.equal((await logOf(redis)).length, 10)
  t.equal(await redis.admin.hexists(keys.logMeta('log'), 'b'), 0)
  for (const size of [4_000, 4_000, 20, 20, 4_000, 20, 9_000, 100, 100]) {
    await append(size)
    const stored = await bytes()
    t.ok(stored <= 10_000, `${stored} bytes`)
    t.equal(Number(await redis.admin.hget(keys.logMeta('log'), 'b')), stored, 'it knows how many there are')
  }
  await append(30_000)
  t.same((await logOf(redis)).map(({ length }) => length), [30_000])
})

t.test('differences are forgotten after ten minutes, and counted where there are many', async t => {
  let now = 0
  const warnings: unknown[] = []
  const log = { warn: (fields: object) => { warnings.push(fields) } } as unknown as FastifyBaseLogger
  const differences = new SettingsDifferences(log, () => now)
  t.equal(differences.problem, undefined)
  const packed = Buffer.concat([packSettings(large), packSettings(small)])
  const difference = unpackSettings(packed)
  t.strictSame(difference, { used: large, smaller: small })
  t.equal(unpackSettings(Buffer.alloc(0)), undefined)
  if (difference === undefined) throw new Error('it is one')
  differences.add('a', difference)
  differences.add('a', difference)
  t.match(warnings, [{ group: 'a', used: large, smaller: small }], 'once in the log, too')
  t.match(differences.problem, /the log of group 'a' is published to with different settings/)
  differences.add('b', difference)
  t.match(differences.problem, /group 'b' \(and those of 1 more groups\)/)
  now = 600_001
  t.equal(differences.problem, undefined)
})
