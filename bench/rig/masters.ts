import { startRedisCluster } from '../../test/helpers/redis-cluster.ts'
import { startRedis, type TestRedis } from '../../test/helpers/redis.ts'
import { until } from './until.ts'

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
  /** Ends connections of all clients that subscribe, or of all others. */
  kill (type: 'pubsub' | 'normal'): Promise<void>
  /** Makes the replica of the first master master in its place, or this master again. Rejects for a single Redis. */
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
      async kill (type) { await server.admin.call('CLIENT', 'KILL', 'TYPE', type) },
      async failover () { throw new Error('a single Redis has no replica here') },
      end
    }
  }
  const cluster = await startRedisCluster(owner, { masters: count, replicas: 1 })
  const masters = cluster.nodes.slice(0, count)
  return {
    redis: { cluster: [...cluster.addresses] },
    cpuUs: async () => await Promise.all(masters.map(cpuUs)),
    calls: async () => sum(await Promise.all(masters.map(callsOf))),
    pings: async () => sum(await Promise.all(masters.map(pingsOf))),
    async kill (type) { await Promise.all(masters.map(async ({ admin }) => await admin.call('CLIENT', 'KILL', 'TYPE', type))) },
    async failover () {
      const [first] = masters
      if (first === undefined) return
      const role = async ({ admin }: TestRedis): Promise<unknown> => (await admin.role() as unknown[])[0]
      const next = await role(first) === 'master' ? await cluster.replicaOf(first) : first
      await next.admin.call('CLUSTER', 'FAILOVER')
      await until(async () => await role(next) === 'master', 20_000)
    },
    end
  }
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

const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0)
