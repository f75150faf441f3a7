import t from 'tap'
import { hashTags, partitionOf } from '../../lib/backplane/redis/hash-tags.ts'
import { RedisBackplane } from '../../lib/backplane/redis/index.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedisCluster } from '../helpers/redis-cluster.ts'
import { backplaneContract } from './suite.ts'

noUnhandled(t)
const cluster = await startRedisCluster(t)
const tags = new Set(hashTags(256))

backplaneContract({
  name: 'redis-cluster',
  partOf: group => partitionOf(group, 256),
  test: async (name, run) => await t.test(name, async t => {
    await run()
    const keys = await cluster.keys()
    const stays = (key: string): boolean => {
      const [, tag = '', kind = ''] = /^wsg:\{(\w+)\}:([hlkx]:|s[thx]:|(?:secret|blocked)$)/.exec(key) ?? []
      return key === 'wsg:{0}:names' || (tags.has(tag) && kind !== '')
    }
    t.same(
      keys.filter(key => !stays(key)), [],
      'no key is left but those of logs and streams, of who was put out, the secret, who is blocked, and how names are made'
    )
    for (const key of keys) t.ok(await cluster.timeToLive(key) > 0, 'which expire')
    await cluster.flush()
    t.same(await cluster.channels(), [], 'no channel is left')
  }),
  create: () => ({
    backplane: () => new RedisBackplane({
      redis: { cluster: [...cluster.addresses] },
      keyPrefix: 'wsg:',
      operationTimeoutMs: 5_000,
      joinTimeoutMs: 1_000,
      bootTimeoutMs: 5_000,
      leaseMs: 15_000,
      lingerMs: 100,
      whenDown: 'reject'
    })
  })
})
