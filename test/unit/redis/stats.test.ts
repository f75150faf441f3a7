import t from 'tap'
import { sumStats } from '../../../lib/backplane/redis/stats.ts'

t.test('figures of several parts are added up; of ages, and of what the partitions of a master all count, the largest is told', async t => {
  const parts = [{ redisTimeouts: 1, leaseAgeMs: 30, redisEvictedKeys: 9 }, { redisTimeouts: 2, leaseAgeMs: 70, redisEvictedKeys: 9 }]
  t.strictSame(sumStats(parts), { redisTimeouts: 3, leaseAgeMs: 70, redisEvictedKeys: 9 })
  t.strictSame(sumStats([]), {})
})
