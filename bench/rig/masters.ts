import { setTimeout as sleep } from 'node:timers/promises'
import { startRedisCluster } from '../../test/helpers/redis-cluster.ts'
import { startRedis, type TestRedis } from '../../test/helpers/redis.ts'
import { until } from './until.ts'

const nodeTimeoutMs = 2_000

/** One Redis, or the masters of a Redis Cluster, each with a replica. */
export interface Masters {
  /** The option `redis`. */
  readonly redis: string | { readonly cluster: Array<{ readonly host: string, readonly port: number }> }
  /** CPU of the main thread of each master so far. */
  cpuUs (): Promise<number[]>
  /** How many commands all masters carried out so far, those of scripts included. */
  calls (): Promise<number>
  /** How many pings all masters answered so far. */
  pings (): Promise<number>
  /** Memory of all keys, with their entries in the keyspace. */
  keyBytes (): Promise<number>
  /** How many channels have a subscriber. */
  channels (): Promise<number>
  /** Ends connections of all clients that subscribe, or of all others. */
  kill (type: 'pubsub' | 'normal'): Promise<void>
  /** Makes the replica of the first master master in its place, or this master again. Resolves when the two have changed roles. */
  failover (): Promise<void>
  end (): Promise<void>
}

export async function startMasters (count: number): Promise<Masters> {
  const ends: Array<() => unknown> = []
  // The servers of the tests: all that they ask of a test is to end with it.
  const owner = { teardown: (end: () => unknown) => { ends.push(end) } } as unknown as Parameters<typeof startRedis>[0]
  const end = async (): Promise<void> => { for (const end of ends.splice(0).reverse()) await end() }
  if (count === 1) {
    const server = await startRedis(owner)
    return {
      redis: server.url,
      cpuUs: async () => [await cpuUs(server)],
      calls: async () => await callsOf(server),
      pings: async () => await pingsOf(server),
      keyBytes: async () => await keyBytesOf(server),
      channels: async () => await channelsOf(server),
      async kill (type) { await server.admin.call('CLIENT', 'KILL', 'TYPE', type) },
      async failover () { throw new Error('a single Redis has no replica here') },
      end
    }
  }
  const cluster = await startRedisCluster(owner, { masters: count, replicas: 1, nodeTimeoutMs })
  const masters = cluster.nodes.slice(0, count)
  const [first] = masters
  if (first === undefined) throw new Error('a cluster has masters')
  // Found now: while it is needed this process is too busy to wait for answers of all servers.
  const spare = await cluster.replicaOf(first)
  let failedOverAt = -Infinity
  return {
    redis: { cluster: [...cluster.addresses] },
    cpuUs: async () => await Promise.all(masters.map(cpuUs)),
    calls: async () => sum(await Promise.all(masters.map(callsOf))),
    pings: async () => sum(await Promise.all(masters.map(pingsOf))),
    keyBytes: async () => sum(await Promise.all(masters.map(keyBytesOf))),
    channels: async () => sum(await Promise.all(cluster.nodes.map(channelsOf))),
    async kill (type) { await Promise.all(masters.map(async ({ admin }) => await admin.call('CLIENT', 'KILL', 'TYPE', type))) },
    async failover () {
      const isMaster = async ({ admin }: TestRedis): Promise<boolean> => (await admin.role() as unknown[])[0] === 'master'
      const [old, next] = await isMaster(first) ? [first, spare] : [spare, first]
      // Masters vote for replicas of a shard once in two node timeouts, and a replica without their votes gives up after five seconds.
      await sleep(Math.max(0, failedOverAt + 2.2 * nodeTimeoutMs - performance.now()))
      await reached(async () => (await next.admin.role() as unknown[])[3] === 'connected', 'the replica to be in step')
      await next.admin.call('CLUSTER', 'FAILOVER')
      await reached(async () => await isMaster(next) && !await isMaster(old), 'the replica to be master')
      failedOverAt = performance.now()
    },
    end
  }
}

async function reached (predicate: () => Promise<boolean>, what: string): Promise<void> {
  if (!await until(predicate, 20_000, 5)) throw new Error(`waited 20 s for ${what}`)
}

async function cpuUs ({ admin }: TestRedis): Promise<number> {
  const parts = (await admin.info('cpu')).matchAll(/^used_cpu_(?:sys|user)_main_thread:(\S+)/gm)
  return [...parts].reduce((sum, [, seconds]) => sum + Number(seconds) * 1e6, 0)
}

async function callsOf ({ admin }: TestRedis): Promise<number> {
  const parts = (await admin.info('commandstats')).matchAll(/^cmdstat_\S+?:calls=(\d+)/gm)
  return [...parts].reduce((sum, [, calls]) => sum + Number(calls), 0)
}

async function pingsOf ({ admin }: TestRedis): Promise<number> {
  return Number(/^cmdstat_ping:calls=(\d+)/m.exec(await admin.info('commandstats'))?.[1] ?? 0)
}

async function keyBytesOf ({ admin }: TestRedis): Promise<number> {
  let bytes = 0
  for await (const keys of admin.scanStream({ count: 1_000 })) {
    bytes += sum(await Promise.all((keys as string[]).map(async key => await admin.memory('USAGE', key, 'SAMPLES', 0) ?? 0)))
  }
  return bytes
}

async function channelsOf ({ admin }: TestRedis): Promise<number> {
  const parts = (await admin.info('stats')).matchAll(/^pubsub(?:shard)?_channels:(\d+)/gm)
  return sum([...parts].map(([, count]) => Number(count)))
}

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0)
