import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { freePort } from '../helpers/ports.ts'
import { createPublisher } from '../../plugin.ts'
import { startRedis } from '../helpers/redis.ts'
t.test('x', async t => {
  const redis = await startRedis(t)
  const dead = await freePort()
  const base = process.getActiveResourcesInfo().sort().join()
  for (let n = 0; n < 150; n++) {
    const publisher = createPublisher({ redis: n % 3 === 0 ? `redis://127.0.0.1:${dead}` : redis.url })
    publisher.broadcastToGroup('g', 'x').catch(() => {})
    if (n % 5 === 1) setTimeout(() => { redis.admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes').catch(() => {}) }, n % 9).unref()
    const before = process.getActiveResourcesInfo().length
    await sleep(n % 12)
    await publisher.close()
  }
  await redis.kill()
  for (let n = 0; n < 50; n++) {
    await redis.restart()
    const publisher = createPublisher({ redis: redis.url })
    await publisher.broadcastToGroup('g', 'x')
    void redis.kill()
    await sleep(n % 13 * 10)
    await publisher.close()
  }
  await redis.restart()
  await sleep(1500)
  console.error(base, '|', process.getActiveResourcesInfo().sort().join(), await redis.admin.call('CLIENT', 'LIST'))
})
