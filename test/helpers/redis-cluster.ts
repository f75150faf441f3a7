import type { Test } from 'tap'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { hashTagOf, hashTags, partitionOf, slotCount, slotOf } from '../../lib/backplane/redis/hash-tags.ts'
import { ClusterBus } from './cluster-bus.ts'
import { freePort } from './ports.ts'
import { stopWrites } from './replication.ts'
import { startRedis, type TestRedis } from './redis.ts'
import { until } from './until.ts'

interface ClusterOptions {
  /** @default 3 */
  readonly masters?: number
  /** Of each master. @default 0 */
  readonly replicas?: number
  /** After how long without a sign of life a master is replaced. @default 2_000, or 10_000 without replicas */
  readonly nodeTimeoutMs?: number
  /** More arguments for all servers. */
  readonly args?: readonly string[]
}

export interface ClusterNode extends TestRedis {
  readonly id: string
  readonly address: { readonly host: string, readonly port: number }
  /** Where the other servers of the cluster reach it, by a proxy. */
  readonly bus: { readonly address: string, readonly port: number }
}

export interface TestCluster {
  /** All servers; those that began as masters come first. */
  readonly nodes: readonly ClusterNode[]
  readonly addresses: ReadonlyArray<{ readonly host: string, readonly port: number }>
  /** The master of a slot, as most of the servers that answer see it. */
  masterOf (slot: number): Promise<ClusterNode>
  /** A replica of a server. */
  replicaOf (node: ClusterNode): Promise<ClusterNode>
  /**
   * Moves a slot with all its keys to another master, as `redis-cli --cluster reshard` does. `between` runs when the keys are there and
   * the slot is not yet.
   */
  migrate (slot: number, to: ClusterNode, between?: () => Promise<void>): Promise<void>
  /**
   * Makes a replica the master of its shard. `FORCE`: without asking the master. Resolves when all servers know. A replica that was elected
   * lately takes over without an election, once its master takes no more writes.
   */
  failover (replica: ClusterNode, how?: 'FORCE' | 'TAKEOVER'): Promise<void>
  /** Cuts a server off from all others, or lets it in again. Clients reach it as before, and it its replicas. */
  isolate (node: ClusterNode, on: boolean): void
  /** Adds a master without slots. */
  add (): Promise<ClusterNode>
  /** Ends a server that has no slots any more, and has the others forget it. */
  remove (node: ClusterNode): Promise<void>
  /** All keys of all masters, sorted. */
  keys (): Promise<string[]>
  /** Of a key, in milliseconds, as PTTL has it. */
  timeToLive (key: string): Promise<number>
  /** All sharded channels that somebody is subscribed to, sorted. */
  channels (): Promise<string[]>
  flush (): Promise<void>
  /** Resolves when every server that answers says that all slots are served, and every master has its replicas again. */
  healthy (): Promise<void>
}

/** Starts a Redis Cluster of this test's own on private ports, their bus ports among them, and ends it with the test. */
export async function startRedisCluster (t: Test, options: ClusterOptions = {}): Promise<TestCluster> {
  const { masters = 3, replicas = 0 } = options
  // A busy machine makes nodes look as if they were away; at a load of ten per core for a second or so. Without a replica nothing is won by
  // noticing soon that one is.
  const { nodeTimeoutMs = replicas > 0 ? 2_000 : 10_000 } = options
  const folder = mkdtempSync(join(tmpdir(), 'redis-cluster-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const bus = new ClusterBus(t)
  const start = async (): Promise<ClusterNode> => await startNode(t, folder, bus, nodeTimeoutMs, options.args ?? [])
  const nodes = await Promise.all(Array.from({ length: masters * (1 + replicas) }, start))
  await meet(nodes, masters)
  for (const [index, replica] of nodes.slice(masters).entries()) await replica.admin.cluster('REPLICATE', nodes[index % masters]?.id ?? '')
  const cluster = new Cluster(nodes, replicas, bus, start, nodeTimeoutMs)
  await cluster.healthy()
  return cluster
}

async function startNode (
  t: Test, folder: string, all: ClusterBus, nodeTimeoutMs: number, args: readonly string[]
): Promise<ClusterNode> {
  const busPort = await freePort()
  const bus = await all.open(busPort)
  const redis = await startRedis(t, {
    args: [
      '--cluster-enabled', 'yes', '--cluster-config-file', join(folder, `nodes-${busPort}.conf`), '--dir', folder,
      '--dbfilename', `dump-${busPort}.rdb`,
      // The default, the port plus 10,000, may be taken. Replicas are synchronized at once, not after five seconds.
      '--cluster-port', String(busPort), '--cluster-announce-bus-port', String(bus.port), '--bind-source-addr', bus.address,
      '--protected-mode', 'no',
      '--cluster-node-timeout', String(nodeTimeoutMs), '--repl-diskless-sync-delay', '0',
      '--cluster-allow-replica-migration', 'no',
      // Else a master that is out stops all others.
      '--cluster-require-full-coverage', 'no', ...args
    ]
  })
  const id = await redis.admin.cluster('MYID')
  // `redis` has getters that change with a restart: what it does not have is found behind it.
  return Object.setPrototypeOf({ id, address: { host: '127.0.0.1', port: redis.port }, bus }, redis) as ClusterNode
}

async function meet (nodes: readonly ClusterNode[], masters: number): Promise<void> {
  await Promise.all(nodes.map(async ({ admin }, index) => {
    await admin.cluster('SET-CONFIG-EPOCH', index + 1)
    if (index >= masters) return
    const [first, end] = [index, index + 1].map(n => Math.round(n * slotCount / masters)) as [number, number]
    await admin.call('CLUSTER', 'ADDSLOTSRANGE', first, end - 1)
  }))
  const [first, ...others] = nodes
  for (const { address, bus } of others) await first?.admin.call('CLUSTER', 'MEET', address.host, address.port, bus.port)
  await known(nodes)
}

async function known (nodes: readonly ClusterNode[]): Promise<void> {
  await until(async () => {
    const views = await Promise.all(nodes.map(async ({ admin }) => await admin.cluster('NODES') as string))
    return views.every(view => nodes.every(({ id }) => view.includes(id)) && !view.includes('handshake'))
  }, { what: 'the servers to know each other' })
}

class Cluster implements TestCluster {
  readonly nodes: ClusterNode[]
  readonly #replicas: number
  readonly #bus: ClusterBus
  readonly #start: () => Promise<ClusterNode>
  /** For how long after an election the same replica cannot be elected again. */
  readonly #electedMs: number
  /** When each server was asked to be elected. */
  readonly #elections = new Map<ClusterNode, number>()

  constructor (nodes: ClusterNode[], replicas: number, bus: ClusterBus, start: () => Promise<ClusterNode>, nodeTimeoutMs: number) {
    this.nodes = nodes
    this.#replicas = replicas
    this.#bus = bus
    this.#start = start
    this.#electedMs = 4 * nodeTimeoutMs
  }

  get addresses (): TestCluster['addresses'] {
    return this.nodes.map(({ address }) => address)
  }

  async masterOf (slot: number): Promise<ClusterNode> {
    const votes = new Map<string, number>()
    for (const { id } of await this.#views()) {
      const owner = id.find(([start, end]) => start <= slot && slot <= end)?.[2]
      if (owner !== undefined) votes.set(owner, (votes.get(owner) ?? 0) + 1)
    }
    const [winner = ''] = [...votes].sort(([, a], [, b]) => b - a)[0] ?? []
    return this.#byId(winner)
  }

  async replicaOf ({ id }: ClusterNode): Promise<ClusterNode> {
    for (const node of await this.#alive()) if (await masterIdOf(node) === id) return node
    throw new Error(`${id} has no replica`)
  }

  async migrate (slot: number, to: ClusterNode, between?: () => Promise<void>): Promise<void> {
    const from = await this.masterOf(slot)
    if (from === to) return
    await to.admin.cluster('SETSLOT', slot, 'IMPORTING', from.id)
    await from.admin.cluster('SETSLOT', slot, 'MIGRATING', to.id)
    for (;;) {
      const keys = await from.admin.cluster('GETKEYSINSLOT', slot, 100) as string[]
      if (keys.length === 0) break
      await from.admin.call('MIGRATE', to.address.host, to.address.port, '', 0, 5_000, 'KEYS', ...keys)
    }
    await between?.()
    await to.admin.cluster('SETSLOT', slot, 'NODE', to.id)
    await from.admin.cluster('SETSLOT', slot, 'NODE', to.id)
    for (const { admin } of await this.#masters()) await admin.cluster('SETSLOT', slot, 'NODE', to.id)
  }

  async failover (replica: ClusterNode, how?: 'FORCE' | 'TAKEOVER'): Promise<void> {
    // Redis would count the votes of the last election again: the others know better, and depose the replica at once or some seconds later.
    const elected = how !== 'TAKEOVER' && performance.now() - (this.#elections.get(replica) ?? -Infinity) >= this.#electedMs
    if (elected) this.#elections.set(replica, performance.now())
    const master = elected || how !== undefined ? undefined : this.#byId(await masterIdOf(replica))
    if (master !== undefined) await stopWrites(master, replica, 5_000)
    const way = elected ? how : 'TAKEOVER'
    await replica.admin.call('CLUSTER', 'FAILOVER', ...(way === undefined ? [] : [way]))
    await until(async () => (await replica.admin.role() as unknown[])[0] === 'master', { what: 'the replica to be master' })
    await master?.admin.call('CLIENT', 'UNPAUSE')
    await this.healthy()
  }

  isolate ({ bus }: ClusterNode, on: boolean): void {
    this.#bus.isolate(bus.address, on)
  }

  async add (): Promise<ClusterNode> {
    const node = await this.#start()
    await this.nodes[0]?.admin.call('CLUSTER', 'MEET', node.address.host, node.address.port, node.bus.port)
    this.nodes.push(node)
    await known(this.nodes)
    await this.healthy()
    return node
  }

  async remove (node: ClusterNode): Promise<void> {
    this.nodes.splice(this.nodes.indexOf(node), 1)
    await Promise.all(this.nodes.map(async ({ admin }) => await admin.cluster('FORGET', node.id)))
    await node.close()
  }

  async keys (): Promise<string[]> {
    const found = new Set<string>()
    for (const { admin } of await this.#masters()) {
      for await (const page of admin.scanStream({ count: 1_000 })) for (const key of page as string[]) found.add(key)
    }
    return [...found].sort()
  }

  async timeToLive (key: string): Promise<number> {
    const { admin } = await this.masterOf(slotOf(hashTagOf(key)))
    return await admin.pttl(key)
  }

  async channels (): Promise<string[]> {
    const lists = await Promise.all((await this.#alive()).map(async ({ admin }) => await admin.call('PUBSUB', 'SHARDCHANNELS') as string[]))
    return [...new Set(lists.flat())].sort()
  }

  async flush (): Promise<void> {
    for (const { admin } of await this.#masters()) await admin.flushall()
  }

  async healthy (): Promise<void> {
    await until(async () => {
      const alive = await this.#alive()
      const infos = await Promise.all(alive.map(async ({ admin }) => await admin.cluster('INFO') as string))
      if (!infos.every(info => info.includes('cluster_state:ok') && info.includes('cluster_slots_ok:16384'))) return false
      const roles = await Promise.all(alive.map(async ({ admin }) => await admin.role() as [string, ...unknown[]]))
      if (!roles.every(role => role[0] === 'master' || role[3] === 'connected')) return false
      const views = await this.#views()
      if (new Set(views.map(({ id }) => JSON.stringify(id))).size > 1) return false
      return alive.length < this.nodes.length || views.every(({ replicas }) => replicas >= this.#replicas)
    }, { timeoutMs: 40_000, everyMs: 20, what: 'the cluster to be healthy' })
  }

  /** By server: the ranges of slots with their master's id, and the least number of replicas that a master has. */
  async #views (): Promise<Array<{ readonly id: Array<[start: number, end: number, id: string]>, readonly replicas: number }>> {
    return await Promise.all((await this.#alive()).map(async ({ admin }) => {
      const ranges = await admin.cluster('SLOTS') as unknown as Array<[number, number, ...Array<[string, number, string]>]>
      const id = ranges.map(
        ([start, end, master]) => [start, end, master?.[2] ?? ''] as [number, number, string]
      ).sort((a, b) => a[0] - b[0])
      return { id, replicas: Math.min(...ranges.map(({ length }) => length - 3)) }
    }))
  }

  /** The servers that answer: not those that were killed or stopped. */
  async #alive (): Promise<ClusterNode[]> {
    const answers = await Promise.all(this.nodes.map(async node => node.admin.status === 'ready' && await isAnswering(node)))
    return this.nodes.filter((_, index) => answers[index])
  }

  async #masters (): Promise<ClusterNode[]> {
    const alive = await this.#alive()
    const roles = await Promise.all(alive.map(async ({ admin }) => (await admin.role() as unknown[])[0]))
    return alive.filter((_, index) => roles[index] === 'master')
  }

  #byId (id: string): ClusterNode {
    const node = this.nodes.find(node => node.id === id)
    if (node === undefined) throw new Error(`no server has the id '${id}'`)
    return node
  }
}

/** The slot of each partition. */
export const partitionSlots = hashTags(256).map(slotOf)

/** The slot of the keys of a group. */
export function slotOfGroup (name: string): number {
  return partitionSlots[partitionOf(name, partitionSlots.length)] ?? 0
}

/** The first group of this name, with a number behind it, that the master has. */
export async function groupAt (cluster: TestCluster, node: ClusterNode, name: string): Promise<string> {
  for (let n = 0; ; n++) if (await cluster.masterOf(slotOfGroup(`${name}-${n}`)) === node) return `${name}-${n}`
}

/** Of the server's master; '-' where it is a master itself. */
async function masterIdOf ({ admin }: ClusterNode): Promise<string> {
  const mine = (await admin.cluster('NODES') as string).split('\n').find(line => line.includes('myself'))
  return mine?.split(' ')[3] ?? ''
}

async function isAnswering ({ admin }: ClusterNode): Promise<boolean> {
  const timer = new AbortController()
  const late = new Promise<false>(
    resolve => { AbortSignal.any([timer.signal, AbortSignal.timeout(500)]).addEventListener('abort', () => resolve(false)) }
  )
  try {
    return await Promise.race([admin.ping().then(() => true, () => false), late])
  } finally {
    timer.abort()
  }
}
