import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { memoryCluster, type BroadcastResult, type Connection, type WebsocketGroupsOptions } from '../../plugin.ts'
import { connect, type ConnectOptions, type Message, type TestClient } from './client.ts'
import { startRedis, type TestRedis } from './redis.ts'
import { service, userOf } from './service.ts'

export interface InstanceOptions extends WebsocketGroupsOptions {
  /** Adds routes of the test's own, after the plugin. */
  readonly routes?: (app: FastifyInstance) => void
  /** @default true */
  readonly listen?: boolean
}

interface OpenOptions extends ConnectOptions {
  /** Connects as this user; anonymous without it. */
  readonly user?: string
}

/** A client beside the connection that the instance made of it. */
export interface Opened {
  readonly client: TestClient
  readonly connection: Connection
  readonly id: string
}

/** What the client got after the message that told it its id. */
export function heard ({ client }: Pick<Opened, 'client'>): Message[] {
  return client.messages.slice(1)
}

/** One application with the plugin, listening on a port of its own. */
export interface TestInstance {
  readonly app: FastifyInstance
  readonly registry: FastifyInstance['registry']
  readonly id: string
  /** `ws://127.0.0.1:<port>` */
  readonly url: string
  /** A connection in no group. */
  open (options?: OpenOptions): Promise<Opened>
  /** A connection in the room, as a member already. */
  enter (room: string, options?: OpenOptions): Promise<Opened>
  close (): Promise<void>
}

/** Where instances meet: a Redis, or this process. */
export interface Cluster {
  readonly name: string
  start (options?: InstanceOptions): Promise<TestInstance>
  /** Closes all instances, and resolves with what they left behind in the backplane. */
  close (): Promise<readonly string[]>
}

export interface RedisCluster extends Cluster {
  readonly redis: TestRedis
}

/** What `open` and `enter` wait for: the callbacks are done, and the test knows which connection is its client's. */
function sendId (connection: Pick<Connection, 'id' | 'send'>): void {
  connection.send(connection.id)
}

/** Long deadlines, so that a busy machine is not taken for an outage; a test that is about deadlines sets its own. */
const patient = { operationTimeoutMs: 5_000, joinTimeoutMs: 5_000 }

/** Who has no token is anonymous; see `userOf` for the others. */
export async function startInstance (t: Test, { routes, listen = true, ...options }: InstanceOptions): Promise<TestInstance> {
  const defaults = { authenticate: userOf, closeGraceMs: 500, lingerMs: 100, ...patient }
  const { app, listen: openPort } = await service(t, { ...defaults, ...options })
  app.get('/ws', { websocket: true, preHandler: app.wsAuth({ required: false }) }, app.wsHandler({ onConnect: sendId, onMessage () {} }))
  app.wsRoom('/ws/:room', { auth: { required: false }, group: ({ room }) => room, onJoin: sendId })
  routes?.(app)
  if (listen) await openPort()
  else await app.ready()

  const open = async (path: string, { user, headers, ...rest }: OpenOptions = {}): Promise<Opened> => {
    const authorization = user === undefined ? {} : { authorization: `Bearer ${encodeURIComponent(user)}` }
    const client = connect(t, instance.url + path, { ...rest, headers: { ...authorization, ...headers } })
    const id = String(await client.next())
    const connection = app.registry.get(id)
    if (connection === undefined) throw new Error(`${id} is no connection of this instance`)
    return { client, connection, id }
  }
  const instance: TestInstance = {
    app,
    registry: app.registry,
    id: app.registry.instanceId,
    url: `ws://127.0.0.1:${(app.server.address() as AddressInfo | null)?.port ?? 0}`,
    async open (options) { return await open('/ws', options) },
    async enter (room, options) { return await open(`/ws/${encodeURIComponent(room)}`, options) },
    async close () { await app.close() }
  }
  return instance
}

/** Instances on a Redis, by default one of the test's own. They go in the order they came. */
export async function redisCluster (t: Test, redis?: TestRedis, defaults: InstanceOptions = {}): Promise<RedisCluster> {
  const server = redis ?? await startRedis(t)
  return { ...cluster(t, 'redis', () => ({ redis: server.url, ...defaults }), async () => await server.leftovers()), redis: server }
}

export function memoryInstances (t: Test, defaults: InstanceOptions = {}): Cluster {
  const shared = memoryCluster()
  return cluster(t, 'memory', () => ({ backplane: shared.backplane(), ...defaults }), async () => [])
}

function cluster (t: Test, name: string, options: () => InstanceOptions, leftovers: () => Promise<string[]>): Cluster {
  const instances: TestInstance[] = []
  return {
    name,
    async start (more) {
      const instance = await startInstance(t, { ...options(), ...more })
      instances.push(instance)
      return instance
    },
    async close () {
      for (const { app } of instances) await app.close()
      // Where the machine is busy the time of `app.close` is over first, and what is left is given back a moment later.
      let left = await leftovers()
      for (let tries = 50; tries > 0 && left.length > 0; tries--) {
        await sleep(100)
        left = await leftovers()
      }
      return left
    }
  }
}

/** Groups have a log, which is the default, or none, or the test is run for both. */
type Groups = 'logged' | 'volatile' | 'both'

/** Runs a test on every kind of cluster; at its end nothing may be left behind. `run` is told whether groups have a log. */
export function onEveryCluster (
  t: Test, redis: TestRedis, name: string, run: (t: Test, cluster: Cluster, logged: boolean) => Promise<void>, groups: Groups = 'logged'
): void {
  onCluster(t, 'memory', memoryInstances, name, run, groups)
  onRedis(t, redis, name, run, groups)
}

/** The same on Redis alone. */
export function onRedis (
  t: Test, redis: TestRedis, name: string, run: (t: Test, cluster: RedisCluster, logged: boolean) => Promise<void>,
  groups: Groups = 'logged'
): void {
  onCluster(t, 'redis', async (t, defaults) => await redisCluster(t, redis, defaults), name, run, groups)
}

function onCluster<Kind extends Cluster> (
  t: Test, backplane: string, make: (t: Test, defaults: InstanceOptions) => Kind | Promise<Kind>,
  name: string, run: (t: Test, cluster: Kind, logged: boolean) => Promise<void>, groups: Groups
): void {
  for (const logged of [true, false]) {
    if (groups === (logged ? 'volatile' : 'logged')) continue
    void t.test(`${name} (${backplane}${logged ? '' : ', volatile groups'})`, async t => {
      const cluster = await make(t, logged ? {} : { log: false })
      await run(t, cluster, logged)
      t.strictSame(await cluster.close(), [], 'nothing is left behind')
    })
  }
}

/** Options with which instances of a test meet, and no others do: a new backplane, or the name of their own in the test's Redis. */
type MeetingPoint = () => Pick<WebsocketGroupsOptions, 'backplane' | 'redis' | 'keyPrefix'>

let meetings = 0

/** Runs a test for instances with routes of its own, on each kind of backplane. */
export function onEachBackplane (t: Test, redis: TestRedis, name: string, run: (t: Test, here: MeetingPoint) => Promise<void>): void {
  void t.test(`${name} (memory)`, async t => {
    const shared = memoryCluster()
    await run(t, () => ({ backplane: shared.backplane() }))
  })
  void t.test(`${name} (redis)`, async t => {
    const where = { redis: redis.url, keyPrefix: `meeting${++meetings}:` }
    await run(t, () => where)
  })
}

/** How far a message went: the result without the positions, which differ from message to message. */
export function reach ({ position, positions, ...reach }: BroadcastResult): Omit<BroadcastResult, 'position' | 'positions'> {
  return reach
}
