import type { Test } from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Random } from '../chaos/random.ts'
import { partitionSlots, slotOfGroup, startRedisCluster, type ClusterNode, type TestCluster } from '../../helpers/redis-cluster.ts'
import { stopWrites } from '../../helpers/replication.ts'
import { groups } from './groups.ts'
import type { Store } from './store.ts'

/**
 * Keys that outlive the instances, and expire: those of a single Redis, and what is known of killed instances. Their memberships are gone,
 * but they are looked at once more after a minute, and the counts of their users go when these connect again.
 */
const lasting = /\}:([hlkux]:|s[thx]:|(secret|blocked|names|live|inst|gen)$)/

/**
 * Three masters, each with a replica. Failovers lose nothing here that was acknowledged, so that the oracle may take every loss for a
 * fault: what is lost with a replica that lags is the matter of test/faults/redis-cluster-topology.test.ts.
 */
export async function startClusterStore (t: Test): Promise<Store> {
  // Nobody is replaced because this machine is busy.
  const cluster = await startRedisCluster(t, { replicas: 1, nodeTimeoutMs: 15_000 })

  const anySlot = (random: Random): number => slotOfGroup(random.pick(groups))
  const anyMaster = async (random: Random): Promise<ClusterNode> => await cluster.masterOf(anySlot(random))

  return {
    ports: cluster.nodes.map(({ port }) => port),
    optionFor: wires => ({
      cluster: wires.slice(0, 3).map(({ url }) => url),
      options: {
        natMap: Object.fromEntries(wires.map(({ port }, index) => [
          `127.0.0.1:${cluster.nodes[index]?.port}`, { host: '127.0.0.1', port }
        ]))
      }
    }),
    channels: async () => await cluster.channels(),
    // What is kept of killed instances is in `lasting`.
    settled: async () => true,
    leftovers: async () => [...(await cluster.keys()).filter(key => !lasting.test(key)), ...await cluster.channels()],
    faults: {
      async masterStopped ({ random }) {
        const master = await anyMaster(random)
        master.stop()
        await sleep(random.between(200, 2_500))
        master.cont()
        await cluster.healthy()
      },

      async masterKilled ({ random }) {
        const master = await anyMaster(random)
        const replica = await inStep(cluster, master)
        await master.kill()
        await sleep(random.between(0, 500))
        await takeOver(cluster, replica, random)
        await master.restart()
        await cluster.healthy()
      },

      async failover ({ random }) {
        await cluster.failover(await cluster.replicaOf(await anyMaster(random)))
      },

      async forcedFailover ({ random }) {
        const master = await anyMaster(random)
        await takeOver(cluster, await inStep(cluster, master), random)
        await master.admin.call('CLIENT', 'UNPAUSE')
      },

      async slotMoved ({ random }) {
        const slot = anySlot(random)
        const owner = await cluster.masterOf(slot)
        const masters = await Promise.all([0, 127, 255].map(async partition => await cluster.masterOf(partitionSlots[partition] ?? 0)))
        const to = random.pick(masters.filter(master => master !== owner))
        await cluster.migrate(slot, to, async () => await sleep(random.between(0, 300)))
        await cluster.healthy()
      },

      async masterAloneOnTheBus ({ random }) {
        const master = await anyMaster(random)
        cluster.isolate(master, true)
        await sleep(random.between(500, 4_000))
        cluster.isolate(master, false)
      },

      async flushAll ({ crowd }) {
        crowd.oracle.dataLost()
        await cluster.flush()
      },

      async scriptFlush () {
        for (let n = 0; n < 5; n++) {
          for (const { admin } of cluster.nodes) if (admin.status === 'ready') await admin.script('FLUSH', 'SYNC').catch(() => {})
          await sleep(20)
        }
      },

      async redisClientsKilled ({ random }) {
        const { admin } = await anyMaster(random)
        await admin.call('CLIENT', 'KILL', 'TYPE', random.pick(['pubsub', 'normal']), 'SKIPME', 'yes')
      }
    }
  }
}

/** The replica of a master that takes no more writes, once the replica has all of them. */
async function inStep (cluster: TestCluster, master: ClusterNode): Promise<ClusterNode> {
  const replica = await cluster.replicaOf(master)
  await stopWrites(master, replica, 5_000)
  return replica
}

async function takeOver (cluster: TestCluster, replica: ClusterNode, random: Random): Promise<void> {
  await cluster.failover(replica, random.pick(['FORCE', 'TAKEOVER']))
}
