import t from 'tap'
import { redisBackplane } from '../helpers/local-instance.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { backplaneContract } from './suite.ts'

noUnhandled(t)
const redis = await startRedis(t)

backplaneContract({
  name: 'redis',
  test: async (name, run) => await t.test(name, async t => {
    await run()
    const logs = await redis.keys()
    t.same(
      logs.filter(key => !/^wsg:\{0\}:([hlkx]:|s[thx]:|(secret|blocked)$)/.test(key)), [],
      'no key is left but those of logs and streams, of who was put out, the secret and who is blocked'
    )
    for (const key of logs) t.ok(await redis.admin.pttl(key) > 0, 'which expire')
    await redis.admin.flushall()
    // Redis notices the end of a connection a moment after its client is done with it.
    await until(async () => (await redis.channels()).length === 0, { what: 'the last channel to go' })
    t.same(await redis.channels(), [], 'no channel is left')
  }),
  create: () => ({
    backplane: () => redisBackplane({ redis: redis.url, operationTimeoutMs: 5_000, joinTimeoutMs: 5_000, bootTimeoutMs: 20_000 })
  })
})
