import type { Test } from 'tap'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { startRedis } from '../../helpers/redis.ts'
import { unforgotten, type Store } from './store.ts'

/** One Redis that keeps its data. */
export async function startSingleStore (t: Test): Promise<Store> {
  const folder = await mkdtemp(join(tmpdir(), 'chaos-'))
  t.teardown(async () => await rm(folder, { recursive: true, force: true }))
  const redis = await startRedis(t, { appendonly: folder, args: ['--appendfsync', 'no'] })
  return {
    ports: [redis.port],
    optionFor: ([wire]) => wire?.url,
    channels: async () => await redis.channels(),
    settled: async living => await unforgotten(redis) === living,
    leftovers: async () => await redis.leftovers(),
    faults: {
      async redisStopped ({ random }) {
        redis.stop()
        await sleep(random.between(200, 2_500))
        redis.cont()
      },

      async redisKilledDataKept ({ random }) {
        await redis.kill()
        await sleep(random.between(0, 1_000))
        await redis.restart()
      },

      async redisKilledDataLost ({ crowd, random }) {
        crowd.oracle.dataLost()
        await redis.kill()
        for (const name of await readdir(folder)) await rm(join(folder, name), { recursive: true })
        await sleep(random.between(0, 500))
        await redis.restart()
      },

      async flushAll ({ crowd }) {
        crowd.oracle.dataLost()
        await redis.admin.flushall()
      },

      async dataLostBeforeReply ({ crowd, stack, random }) {
        // What was delivered already is stored anew.
        const wire = random.pick(random.pick(stack.instances).wires)
        await Promise.race([wire.loseReplyTo('evalsha'), sleep(1_000)])
        crowd.oracle.dataLost()
        await redis.admin.flushall()
        wire.keepReplies()
      },

      async scriptFlush () {
        for (let n = 0; n < 5; n++) {
          await redis.admin.script('FLUSH', 'SYNC')
          await sleep(20)
        }
      },

      async redisClientsKilled ({ random }) {
        await redis.admin.call('CLIENT', 'KILL', 'TYPE', random.pick(['pubsub', 'normal']), 'SKIPME', 'yes')
      }
    }
  }
}
