// Replicas are there to take over. Nothing is read from one, whatever the options of ioredis say, and who takes over is found. For a
// cluster see redis-cluster.test.ts.
import t, { type Test } from 'tap'
import dns from 'node:dns'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { RedisOptions } from 'ioredis'
import { createPublisher } from '../../plugin.ts'
import { heard, startInstance } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis, type TestRedis } from '../helpers/redis.ts'
import { startSentinels } from '../helpers/sentinels.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

/** Connections that other processes, or this one, have there, but for those of the test. */
async function clientsOf ({ admin }: TestRedis): Promise<string[]> {
  const own = await admin.client('ID')
  const list = await admin.client('LIST') as string
  return list.split('\n').filter(line => line.includes(' name=mine ') && !line.startsWith(`id=${own} `))
}

t.test('with sentinels, also where the options ask for a replica', async t => {
  const set = await startSentinels(t)
  const redis: RedisOptions = { ...set.options, role: 'slave', connectionName: 'mine' }
  const a = await startInstance(t, { redis, outage: { boot: 'fail' } })
  await a.enter('room')
  await using publisher = createPublisher({ redis })
  t.equal(await publisher.groupCount('room'), 1)
  const master = await set.master()
  for (const server of set.servers) t.equal((await clientsOf(server)).length > 0, server === master)
})

t.test('a managed failover: the name of the server changes its address', async t => {
  const name = 'redis.example'
  for (const oldMaster of ['dies', 'becomes a replica'] as const) {
    await t.test(`and the old master ${oldMaster}`, async t => {
      const first = await startRedis(t, { args: dataIn(t) })
      const second = await startRedis(t, { args: ['--replicaof', '127.0.0.1', String(first.port), ...dataIn(t)] })
      await until(async () => (await second.admin.info('replication')).includes('master_link_status:up'), { timeoutMs: 20_000 })
      await listenAt(t, '127.0.0.2', first.port, second.port)
      const nameAt = nameLeads(t, name)
      nameAt('127.0.0.1')
      const redis = { host: name, port: first.port, connectionName: 'mine' }
      const [a, b] = [await startInstance(t, { redis }), await startInstance(t, { redis })]
      const [x, y] = [await a.enter('room'), await b.enter('room')]
      t.ok((await clientsOf(first)).length >= 4)

      await first.admin.wait(1, 5_000)
      await second.admin.replicaof('NO', 'ONE')
      nameAt('127.0.0.2')
      if (oldMaster === 'dies') await first.kill()
      else await first.admin.replicaof('127.0.0.1', second.port)
      await a.registry.broadcastToGroup('room', 'while it changes').catch(() => {})
      await until(() => [a, b].every(({ registry }) => registry.health().status === 'up'), { timeoutMs: 20_000 })
      await until(async () => (await clientsOf(second)).length >= 4, { timeoutMs: 20_000, what: 'all links to lead to the new master' })
      if (oldMaster !== 'dies') await until(async () => (await clientsOf(first)).length === 0, { what: 'all to leave the old one' })
      t.equal(await a.registry.groupCount('room'), 2)
      await b.registry.broadcastToGroup('room', 'after it')
      for (const one of [x, y]) await until(() => heard(one).at(-1) === 'after it')
    })
  }
})

/** What a server gets from its master goes to disk: not into the folder of the test, where the next server would load it. */
function dataIn (t: Test): string[] {
  const folder = mkdtempSync(join(tmpdir(), 'replicas-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return ['--dir', folder, '--repl-diskless-sync-delay', '0']
}

/** A second address of this machine at which the server of another port is found. */
async function listenAt (t: Test, host: string, port: number, leadsTo: number): Promise<void> {
  const server = createServer(socket => {
    const upstream = connect(leadsTo, '127.0.0.1')
    for (const [one, other] of [[socket, upstream], [upstream, socket]] as const) {
      one.on('error', () => {}) // 'close' follows
      one.on('close', () => other.destroy())
    }
    socket.pipe(upstream).pipe(socket)
  })
  t.teardown(() => { server.close() })
  await once(server.listen(port, host), 'listening')
}

/** Resolves the name as it is told, until the test ends. */
function nameLeads (t: Test, name: string): (address: string) => void {
  const { lookup } = dns
  t.teardown(() => { dns.lookup = lookup })
  let address = ''
  type Answer = (error: Error | null, found: unknown, family?: number) => void
  dns.lookup = ((asked: string, options: { readonly all?: boolean }, answer: Answer) => {
    if (asked !== name) (lookup as (...args: unknown[]) => void)(asked, options, answer)
    else if (options.all === true) answer(null, [{ address, family: 4 }])
    else answer(null, address, 4)
  }) as typeof dns.lookup
  return to => { address = to }
}
