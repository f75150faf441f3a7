import { setTimeout as sleep } from 'node:timers/promises'
import type { Random } from '../chaos/random.ts'
import type { LinkKind } from '../chaos/wire.ts'
import type { Crowd } from './crowd.ts'
import type { Instance, Stack } from './stack.ts'

export interface Stage { readonly stack: Stack, readonly crowd: Crowd, readonly random: Random }
type Fault = (stage: Stage) => Promise<void>

const kinds: ReadonlyArray<readonly LinkKind[]> = [['command'], ['subscribe'], ['command', 'subscribe']]

function anyInstance ({ stack, random }: Stage): Instance {
  return random.pick(stack.instances)
}

/** What may go wrong. Each is over, and healed, when its promise resolves; what follows from it may go on. */
export const faults: Readonly<Record<string, Fault>> = {
  async linksCut (stage) {
    for (let n = stage.random.between(1, 3); n > 0; n--) {
      anyInstance(stage).wire.cut(...stage.random.pick(kinds))
      await sleep(stage.random.between(0, 150))
    }
  },

  async linksBlackHoled (stage) {
    const { wire } = anyInstance(stage)
    wire.blackhole(...stage.random.pick(kinds))
    await sleep(stage.random.between(200, 4_000))
    wire.lift()
  },

  async linksSlow (stage) {
    const { wire } = anyInstance(stage)
    for (let n = stage.random.between(3, 6); n > 0; n--) {
      wire.delay('command', stage.random.between(0, 60))
      wire.delay('subscribe', stage.random.between(0, 60))
      wire.cut(stage.random.pick(['command', 'subscribe', 'subscribe']))
      await sleep(stage.random.between(50, 300))
    }
    wire.delay('command', 0)
    wire.delay('subscribe', 0)
  },

  async replyLost (stage) {
    // Not found when this instance publishes nothing meanwhile.
    await Promise.race([anyInstance(stage).wire.loseReplyTo('evalsha'), sleep(1_000)])
  },

  async redisStopped ({ stack, random }) {
    stack.redis.stop()
    await sleep(random.between(200, 2_500))
    stack.redis.cont()
  },

  async redisKilledDataKept ({ stack, random }) {
    await stack.restartRedis(true, async () => await sleep(random.between(0, 1_000)))
  },

  async redisKilledDataLost ({ stack, crowd, random }) {
    crowd.oracle.dataLost()
    await stack.restartRedis(false, async () => await sleep(random.between(0, 500)))
  },

  async flushAll ({ stack, crowd }) {
    crowd.oracle.dataLost()
    await stack.redis.admin.flushall()
  },

  async scriptFlush ({ stack }) {
    for (let n = 0; n < 5; n++) {
      await stack.redis.admin.script('FLUSH', 'SYNC')
      await sleep(20)
    }
  },

  async redisClientsKilled ({ stack, random }) {
    await stack.redis.admin.call('CLIENT', 'KILL', 'TYPE', random.pick(['pubsub', 'normal']), 'SKIPME', 'yes')
  },

  async clientsCut ({ crowd, random }) {
    for (let n = random.between(1, 3); n > 0; n--) {
      crowd.cut(random.between(1, 100) / 100)
      await sleep(random.between(0, 400))
    }
  },

  async clientsComeAndGo ({ crowd, random }) {
    for (let n = random.between(3, 8); n > 0; n--) {
      crowd.move()
      await sleep(random.between(0, 200))
    }
  },

  async instanceKilled (stage) {
    const instance = anyInstance(stage)
    await stage.stack.kill(instance)
    await stage.stack.spawn(instance)
  },

  async instanceClosed (stage) {
    const instance = anyInstance(stage)
    await stage.stack.stop(instance)
    await stage.stack.spawn(instance)
  },

  async instanceStopped (stage) {
    const { process } = anyInstance(stage)
    process.kill('SIGSTOP')
    await sleep(stage.random.between(200, 4_000))
    process.kill('SIGCONT')
  }
}

/** Those that may happen while another one is not over yet. */
export const light = ['linksCut', 'replyLost', 'scriptFlush', 'redisClientsKilled', 'clientsCut', 'clientsComeAndGo'] as const
