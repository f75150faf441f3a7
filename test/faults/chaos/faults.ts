import { setTimeout as sleep } from 'node:timers/promises'
import { encode } from '../../../lib/backplane/redis/envelope.ts'
import { until } from '../../helpers/until.ts'
import { appendQuietly, envelope } from '../log-rig.ts'
import { groups, type Cluster } from './cluster.ts'
import { linkFaults } from './link-faults.ts'
import type { Oracle } from './oracle.ts'
import type { Random } from './random.ts'

export interface Stage { readonly cluster: Cluster, readonly oracle: Oracle, readonly random: Random }
type Fault = (stage: Stage) => Promise<void>

const everyGroup = groups.map((_, group) => group)
/** What an operator may take away from the user of the instances by mistake. */
const rights = ['publish', 'subscribe', 'evalsha', 'rpush', 'hset', 'hmget', 'zadd', 'time', 'info', 'ping', 'lrange', 'pexpire'] as const

/** What may go wrong. Each is over, and healed, when its promise resolves; what follows from it may go on. */
export const faults: Readonly<Record<string, Fault>> = {
  ...linkFaults<Stage>(({ cluster, random }) => random.pick(cluster.instances).wire),

  async redisStopped ({ cluster, random }) {
    cluster.master.stop()
    await sleep(random.between(200, 3_000))
    cluster.master.cont()
  },

  async fullMemory ({ cluster, random }) {
    const { admin } = cluster.master
    const used = Number(/used_memory:(\d+)/.exec(await admin.info('memory'))?.[1])
    await admin.config('SET', 'maxmemory', Math.max(1, used - random.between(-20_000, 200_000)))
    await sleep(random.between(200, 3_000))
    await admin.config('SET', 'maxmemory', 0)
  },

  async rightsLost ({ cluster, random }) {
    const { admin } = cluster.master
    const lost = random.shuffle(rights).slice(0, random.between(1, 3))
    await admin.call('ACL', 'SETUSER', 'default', ...lost.map(right => `-${right}`), ...(random.next() < 0.3 ? ['resetchannels'] : []))
    if (random.next() < 0.5) await admin.call('CLIENT', 'KILL', 'TYPE', random.pick(['pubsub', 'normal']), 'SKIPME', 'yes')
    await sleep(random.between(200, 3_000))
    await admin.call('ACL', 'SETUSER', 'default', '+@all', 'allchannels')
  },

  async redisKilledDataKept ({ cluster, random }) {
    await cluster.restart(true, async () => await sleep(random.between(0, 1_000)))
  },

  async redisKilledDataLost ({ cluster, oracle, random }) {
    oracle.dataLost(cluster.lives, everyGroup)
    await cluster.restart(false, async () => await sleep(random.between(0, 500)))
  },

  async flushAll ({ cluster, oracle }) {
    oracle.dataLost(cluster.lives, everyGroup)
    await cluster.master.admin.flushall()
  },

  async scriptFlush ({ cluster }) {
    for (let n = 0; n < 5; n++) {
      await cluster.master.admin.script('FLUSH', 'SYNC')
      await sleep(20)
    }
  },

  async clientKillPubsub ({ cluster }) {
    await cluster.master.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  },

  async clientKillNormal ({ cluster }) {
    await cluster.master.admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  },

  async outputBufferKill ({ cluster, random }) {
    const { admin } = cluster.master
    const { wire } = random.pick(cluster.instances)
    await admin.config('SET', 'client-output-buffer-limit', 'pubsub 256kb 0 0')
    const subscribers = async (): Promise<string[]> => Array.from(
      (await admin.call('CLIENT', 'LIST', 'TYPE', 'pubsub') as string).matchAll(/\bid=\d+/g), String
    )
    const before = await subscribers()
    wire.pause(true)
    const channel = `wsg:{0}:c:g:${random.pick(groups).name}`
    const noise = encode(envelope('noise', Buffer.alloc(200_000)), { kind: 'group', name: 'noise' })
    // What the kernel holds for the two sockets comes first.
    await until(async () => {
      await admin.publish(channel, noise)
      const now = await subscribers()
      return before.some(id => !now.includes(id))
    }, { timeoutMs: 8_000, everyMs: 2, what: 'Redis to give up on a slow subscriber' }).catch(() => undefined)
    await admin.config('SET', 'client-output-buffer-limit', 'pubsub 32mb 8mb 60')
    wire.pause(false)
  },

  async swallowed ({ cluster, random, oracle }) {
    // Stored and not published, as if the transport had lost it.
    const group = random.between(0, groups.length - 1)
    const { name, keep } = groups[group] ?? { name: '', keep: 0 }
    const id = `swallowed${random.between(0, 1e9)}/${group}/0`
    await appendQuietly(cluster.master.admin, name, `${id} `, { keep })
    oracle.totals.published++
  },

  async failover ({ cluster }) {
    await cluster.failover(async () => await sleep(400))
  },

  async instanceKilled (stage) {
    const instance = stage.random.pick(stage.cluster.instances)
    await stage.cluster.kill(instance)
    await stage.cluster.spawn(instance, stage.random.between(0, 1e9))
  },

  async instanceStopped (stage) {
    const { process } = stage.random.pick(stage.cluster.instances)
    process.kill('SIGSTOP')
    await sleep(stage.random.between(200, 6_000))
    process.kill('SIGCONT')
  }
}

/** Those that may happen while another one is not over yet. */
export const light = ['linkCut', 'lostReply', 'scriptFlush', 'clientKillPubsub'] as const
