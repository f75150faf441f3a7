import type { Test } from 'tap'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { RedisOptions } from 'ioredis'
import { startRedis, type TestRedis } from './redis.ts'
import { until } from './until.ts'

const masterName = 'main'
/** After this long without an answer a sentinel counts a server as down. It pings once a second. */
const usualDownAfterMs = 1_000

export interface SentinelSet {
  readonly servers: readonly TestRedis[]
  readonly sentinels: readonly TestRedis[]
  /** For ioredis. */
  readonly options: RedisOptions & { readonly sentinels: Array<{ host: string, port: number }> }
  /** The server that most of the sentinels name. */
  master (): Promise<TestRedis>
  /** A server that died starts anew, as a replica of whoever is master. */
  revive (server: TestRedis): Promise<void>
  /** Resolves when every other server is a replica in step with the master, and all sentinels know that. */
  settled (): Promise<void>
}

/** A master, its replica, and three real sentinels that watch over them. All end with the test. */
export async function startSentinels (t: Test, downAfterMs = usualDownAfterMs): Promise<SentinelSet> {
  const folder = mkdtempSync(join(tmpdir(), 'sentinels-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  // What a replica gets from its master goes to disk: not into the folder of the test, where the next server would load it.
  const args = (number: number): string[] => {
    const own = join(folder, `server-${number}`)
    mkdirSync(own)
    return ['--repl-diskless-sync-delay', '0', '--repl-timeout', '5', '--dir', own]
  }
  const first = await startRedis(t, { args: args(1) })
  const second = await startRedis(t, { args: [...args(2), '--replicaof', '127.0.0.1', String(first.port)] })
  const servers = [first, second]
  await inStep(second)
  const sentinels = await Promise.all([0, 1, 2].map(async number => {
    return await startSentinel(t, join(folder, `${number}.conf`), first.port, downAfterMs)
  }))
  const set: SentinelSet = {
    servers,
    sentinels,
    options: { name: masterName, sentinels: sentinels.map(({ port }) => ({ host: '127.0.0.1', port })) },
    async master () {
      const named = await Promise.all(sentinels.map(async one => await portOfMaster(one)))
      const most = servers.find(({ port }) => named.filter(other => other === port).length >= 2)
      if (most === undefined) throw new Error(`the sentinels name ${named.join()}`)
      return most
    },
    async revive (server) {
      await server.restart()
      await server.admin.replicaof('127.0.0.1', (await set.master()).port)
    },
    async settled () {
      await until(async () => {
        const master = await set.master()
        for (const server of servers) if (server !== master) await inStep(server, master.port)
        const known = await Promise.all(sentinels.map(async one => await knows(one, master.port)))
        return known.every(Boolean)
      }, { timeoutMs: 40_000, everyMs: 100, what: 'the sentinels and the replica to settle' })
    }
  }
  await set.settled()
  return set
}

/** One sentinel, which believes that the master is at this port. */
export async function startSentinel (
  t: Test, config: string, masterPort: number, downAfterMs = usualDownAfterMs
): Promise<TestRedis> {
  writeFileSync(config, [
    `sentinel monitor ${masterName} 127.0.0.1 ${masterPort} 2`,
    `sentinel down-after-milliseconds ${masterName} ${downAfterMs}`,
    `sentinel failover-timeout ${masterName} 4000`,
    ''
  ].join('\n'))
  return await startRedis(t, { config, args: ['--sentinel'] })
}

async function portOfMaster (sentinel: TestRedis): Promise<number | undefined> {
  // A sentinel that is stopped or gone never answers.
  const answer = await Promise.race([
    sentinel.admin.call('SENTINEL', 'get-master-addr-by-name', masterName) as Promise<[string, string] | null>,
    new Promise<null>(resolve => { setTimeout(resolve, 500, null).unref() })
  ])
  return answer === null ? undefined : Number(answer[1])
}

/** Whether it sees a healthy master at this port, a replica that can take over, and the other two sentinels. */
async function knows (sentinel: TestRedis, masterPort: number): Promise<boolean> {
  const master = fields(await sentinel.admin.call('SENTINEL', 'master', masterName) as string[])
  const [replica = []] = await sentinel.admin.call('SENTINEL', 'replicas', masterName) as string[][]
  return master.port === String(masterPort) && master.flags === 'master' && master['num-other-sentinels'] === '2' &&
    fields(replica)['master-link-status'] === 'ok' && fields(replica).flags === 'slave'
}

function fields (flat: readonly string[]): Record<string, string> {
  return Object.fromEntries(flat.flatMap((name, index) => index % 2 === 0 ? [[name, flat[index + 1] ?? '']] : []))
}

async function inStep (replica: TestRedis, masterPort?: number): Promise<void> {
  await until(async () => {
    const info = await replica.admin.info('replication')
    return info.includes('master_link_status:up') && (masterPort === undefined || info.includes(`master_port:${masterPort}`))
  }, { timeoutMs: 20_000, what: 'the replica to be in step' })
}
