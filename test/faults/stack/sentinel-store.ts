import type { Test } from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import type { TestRedis } from '../../helpers/redis.ts'
import { stopWrites } from '../../helpers/replication.ts'
import { startSentinels, type SentinelSet } from '../../helpers/sentinels.ts'
import { until } from '../../helpers/until.ts'
import { unforgotten, type Store } from './store.ts'

/**
 * Several pings of a sentinel: with one, it may take a new master for down that it has not yet heard, and as the votes against the old one
 * still count, lead all back to that at once.
 */
const downAfterMs = 3_000
/** A sentinel that stood still for more than two seconds takes no part in a failover for thirty. */
const successorMs = 60_000

/**
 * A master and a replica, which change places as three sentinels say. Failovers lose nothing here that was acknowledged, so that the oracle
 * may take every loss for a fault: what is lost with a replica that lags is the matter of test/faults/sentinel.test.ts.
 */
export async function startSentinelStore (t: Test): Promise<Store> {
  const set = await startSentinels(t, downAfterMs)
  const { servers, sentinels } = set
  return {
    ports: servers.map(({ port }) => port),
    optionFor: wires => ({
      ...set.options,
      natMap: Object.fromEntries(servers.map(({ port }, index) => [
        `127.0.0.1:${port}`, { host: '127.0.0.1', port: wires[index]?.port ?? port }
      ]))
    }),
    channels: async () => (await (await set.master()).channels()).filter(notOfSentinels),
    settled: async living => await unforgotten(await set.master()) === living,
    leftovers: async () => (await (await set.master()).leftovers()).filter(notOfSentinels),
    faults: {
      async masterStopped ({ random }) {
        const master = await set.master()
        master.stop()
        // Far less than sentinels wait.
        await sleep(random.between(100, 700))
        master.cont()
        await set.settled()
      },

      async masterKilled () {
        const master = await inStep(set)
        await master.kill()
        await successorOf(set, master)
        await set.revive(master)
        await set.settled()
      },

      async failover ({ random }) {
        const master = await inStep(set)
        await random.pick(sentinels).admin.call('SENTINEL', 'FAILOVER', 'main')
        // Sentinels let it be a master beside its successor for ten seconds and more: what it takes in that time is lost.
        await master.admin.replicaof('127.0.0.1', (await successorOf(set, master)).port)
        await master.admin.call('CLIENT', 'UNPAUSE')
        await set.settled()
      },

      async sentinelsStopped ({ random }) {
        const stopped = random.shuffle([...sentinels]).slice(0, random.between(1, 2))
        for (const sentinel of stopped) sentinel.stop()
        await sleep(random.between(200, 3_000))
        for (const sentinel of stopped) sentinel.cont()
        await set.settled()
      },

      async flushAll ({ crowd }) {
        crowd.oracle.dataLost()
        await (await set.master()).admin.flushall()
      },

      async scriptFlush () {
        for (let n = 0; n < 5; n++) {
          for (const { admin } of servers) if (admin.status === 'ready') await admin.script('FLUSH', 'SYNC').catch(() => {})
          await sleep(20)
        }
      },

      async redisClientsKilled ({ random }) {
        const { admin } = random.pick([...servers])
        if (admin.status !== 'ready') return
        await admin.call('CLIENT', 'KILL', 'TYPE', random.pick(['pubsub', 'normal']), 'SKIPME', 'yes').catch(() => {})
      }
    }
  }
}

/** Sentinels meet on a channel of the servers. */
function notOfSentinels (name: string): boolean {
  return name !== '__sentinel__:hello'
}

/** The master, which takes no more writes, once its replica has all of them. */
async function inStep (set: SentinelSet): Promise<TestRedis> {
  const master = await set.master()
  const replica = set.servers.find(server => server !== master) ?? master
  // Longer than anybody waits for its successor.
  await stopWrites(master, replica, 2 * successorMs)
  return master
}

/** The next master. */
async function successorOf (set: SentinelSet, master: TestRedis): Promise<TestRedis> {
  return await until(async () => await set.master().then(now => now === master ? undefined : now, () => undefined), {
    timeoutMs: successorMs, everyMs: 50, what: 'another master'
  })
}
