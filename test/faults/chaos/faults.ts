import { setTimeout as sleep } from 'node:timers/promises'
import { encode } from '../../../lib/backplane/redis/envelope.ts'
import { until } from '../../helpers/until.ts'
import { appendQuietly, envelope } from '../log-rig.ts'
import { groups, type Cluster } from './cluster.ts'
import type { Oracle } from './oracle.ts'
import type { Random } from './random.ts'
import type { LinkKind, Wire } from './wire.ts'

export interface Stage { readonly cluster: Cluster, readonly oracle: Oracle, readonly random: Random }
type Fault = (stage: Stage) => Promise<void>

const everyGroup = groups.map((_, group) => group)
const kinds: ReadonlyArray<readonly LinkKind[]> = [['command'], ['subscribe'], ['command', 'subscribe']]

function anyWire ({ cluster, random }: Stage): Wire {
  return random.pick(cluster.instances).wire
}

/** What may go wrong. Each is over, and healed, when its promise resolves; what follows from it may go on. */
export const faults: Readonly<Record<string, Fault>> = {
  async linkCut (stage) {
    for (let n = stage.random.between(1, 3); n > 0; n--) {
      anyWire(stage).cut(...stage.random.pick(kinds))
      await sleep(stage.random.between(0, 150))
    }
  },

  async blackHole (stage) {
    const wire = anyWire(stage)
    wire.blackhole(...stage.random.pick(kinds))
    await sleep(stage.random.between(200, 5_000))
    wire.lift()
  },

  async slowLinks (stage) {
    // One link tells of things before the other does, while the other breaks.
    const wire = anyWire(stage)
    for (let n = stage.random.between(3, 8); n > 0; n--) {
      wire.delay('command', stage.random.between(0, 60))
      wire.delay('subscribe', stage.random.between(0, 60))
      wire.cut(stage.random.pick(['command', 'subscribe', 'subscribe']))
      await sleep(stage.random.between(50, 300))
    }
    wire.delay('command', 0)
    wire.delay('subscribe', 0)
  },

  async lostReply (stage) {
    const wire = anyWire(stage)
    // Not found when this instance publishes nothing meanwhile, as when Redis is away.
    await Promise.race([wire.loseReplyTo('evalsha'), sleep(1_000)])
  },

  async redisStopped ({ cluster, random }) {
    cluster.master.stop()
    await sleep(random.between(200, 3_000))
    cluster.master.cont()
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

  async outputBufferKill (stage) {
    const { cluster, random } = stage
    const { admin } = cluster.master
    const wire = anyWire(stage)
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
