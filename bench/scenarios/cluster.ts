import Fastify, { type FastifyInstance } from 'fastify'
import websocketGroups, { createPublisher, type Connection } from 'fastify-websocket-groups'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { WebSocket } from 'ws'
import type { DrillOptions } from '../options.ts'
import { startMasters, type Masters } from '../rig/masters.ts'
import { until } from '../rig/until.ts'
import type { Result, Row } from '../results.ts'

const payload = 'x'.repeat(200)
const listeners = 3
const listenedGroups = 300
const inFlight = 64
const idleMs = 10_000
const quietMs = 2_000

interface Member {
  readonly app: FastifyInstance
  readonly connection: Connection
  /** Messages that its client got. */
  readonly received: () => number
}

/**
 * What one Redis and a Redis Cluster cost: its masters for messages and subscriptions, an instance for its links and partitions.
 * `--messages 0` leaves out messages and what idle instances cost, `--groups ''` subscriptions: each half takes a few minutes.
 */
export async function cluster ({ number, numbers }: DrillOptions): Promise<Result> {
  const rows: Row[] = []
  const messages = number('messages', 30_000)
  for (const count of numbers('masters', [1, 3])) {
    const masters = await startMasters(count)
    const about = { masters: count }
    if (messages > 0) {
      rows.push({ ...about, ...await idle(masters) })
      for (const log of [false, undefined] as const) rows.push({ ...about, ...await deliveries(masters, messages, log) })
    }
    for (const groups of numbers('groups', [1_000, 10_000, 100_000])) {
      rows.push(...(await subscriptions(masters, groups, count > 1)).map(row => ({ ...about, ...row })))
    }
    await masters.end()
  }
  return { title: `one Redis and a cluster: ${messages} messages of 200 bytes, ${listeners} instances`, rows, raw: { messages } }
}

/** A listening instance with one client that is in no group yet. */
async function start ({ redis }: Masters, log?: false): Promise<Member> {
  const app = Fastify()
  await app.register(websocketGroups, {
    redis, log, operationTimeoutMs: 10_000, joinTimeoutMs: 10_000, maxGroupsPerConnection: 1_000_000, limits: false
  })
  let opened: Connection | undefined
  app.get('/', { websocket: true }, app.wsHandler({ onConnect (connection) { opened = connection }, onMessage () {} }))
  await app.listen({ port: 0, host: '127.0.0.1' })
  const client = new WebSocket(`ws://127.0.0.1:${(app.server.address() as AddressInfo).port}`)
  let received = 0
  client.on('message', () => { received++ })
  await once(client, 'open')
  await until(async () => opened !== undefined, 5_000)
  return { app, connection: opened as Connection, received: () => received }
}

async function inParts<T> (items: readonly T[], size: number, act: (item: T) => Promise<unknown>): Promise<void> {
  for (let at = 0; at < items.length; at += size) await Promise.all(items.slice(at, at + size).map(act))
}

const names = (count: number): string[] => Array.from({ length: count }, (_, n) => `group ${n}`)

interface Spent {
  /** Of all masters, without what they spend on themselves meanwhile. */
  readonly us: number
  /** Share of the busiest (percent). */
  readonly busiest: number
  readonly seconds: number
}

/** CPU of the masters during `act`, beside what they take while nothing is done: the nodes of a cluster ping each other. */
async function spent (masters: Masters, act: () => Promise<unknown>): Promise<Spent> {
  const took = async (act: () => Promise<unknown>): Promise<{ readonly each: number[], readonly ms: number }> => {
    const [before, startedAt] = [await masters.cpuUs(), performance.now()]
    await act()
    const ms = performance.now() - startedAt
    return { each: (await masters.cpuUs()).map((us, index) => us - (before[index] ?? 0)), ms }
  }
  const quiet = await took(async () => await sleep(quietMs))
  const busy = await took(act)
  const each = busy.each.map((us, index) => Math.max(0, us - (quiet.each[index] ?? 0) / quiet.ms * busy.ms))
  const us = sum(each)
  return { us, busiest: Math.round(100 * Math.max(...each) / us), seconds: rounded(busy.ms / 1_000) }
}

const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0)
const rounded = (value: number): number => Number(value.toFixed(2))

async function deliveries (masters: Masters, messages: number, log: false | undefined): Promise<Row> {
  const members = await Promise.all(Array.from({ length: listeners }, async () => await start(masters, log)))
  const groups = names(listenedGroups)
  for (const { app, connection } of members) await inParts(groups, 100, async name => await app.registry.join(connection, name))
  const publisher = createPublisher({ redis: masters.redis, log, operationTimeoutMs: 10_000 })
  const publish = async (count: number): Promise<void> => {
    let sent = 0
    await Promise.all(Array.from({ length: inFlight }, async () => {
      while (sent < count) await publisher.broadcastToGroup(groups[sent++ % groups.length] ?? '', payload)
    }))
  }
  await publish(messages / 10)
  await until(async () => members.every(({ received }) => received() >= messages / 10), 30_000)
  const due = members.map(({ received }) => received() + messages)
  const { us, busiest, seconds } = await spent(masters, async () => {
    await publish(messages)
    await until(async () => members.every(({ received }, index) => received() >= (due[index] ?? 0)), 60_000)
  })
  const row = {
    what: log === false ? 'volatile messages' : 'logged messages',
    'Redis us per message': rounded(us / messages),
    'per delivery to an instance': rounded(us / messages / listeners),
    'busiest master %': busiest,
    'messages/s here': Math.round(messages / seconds)
  }
  await publisher.close()
  await Promise.all(members.map(async ({ app }) => await app.close()))
  return row
}

async function subscriptions (masters: Masters, count: number, replicated: boolean): Promise<Row[]> {
  const { app, connection } = await start(masters, false)
  const rows: Row[] = []
  const measure = async (what: string, act: () => Promise<unknown>): Promise<void> => {
    const { us, seconds } = await spent(masters, act)
    rows.push({ what: `${what} ${count} groups`, seconds, 'Redis us per group': rounded(us / count), ...more })
    more = {}
  }
  let more: Row = {}
  await measure('join', async () => await inParts(names(count), 1_000, async name => await app.registry.join(connection, name)))
  const channels = await masters.channels()
  const allBack = async (): Promise<void> => {
    const back = async (): Promise<boolean> => app.registry.health().status === 'up' && await masters.channels() === channels
    if (!await until(back, 60_000)) throw new Error(`${await masters.channels()} of ${channels} channels are back after a minute`)
  }
  await measure('subscribe again', async () => {
    await masters.kill('pubsub')
    await allBack()
  })
  if (replicated) {
    await measure('failover of one master, with', async () => {
      const startedAt = performance.now()
      await masters.failover()
      more = { 'of them until the replica is master': rounded((performance.now() - startedAt) / 1_000) }
      await allBack()
    })
    // Back, so that the same servers are masters in the next row.
    await masters.failover()
    await allBack()
  }
  await app.close()
  return rows
}

/** What instances cost that have members everywhere and nothing to do. */
async function idle (masters: Masters): Promise<Row> {
  const [aloneBefore, before] = [sum(await masters.cpuUs()), heap()]
  await sleep(idleMs)
  const alone = sum(await masters.cpuUs()) - aloneBefore
  const members = await Promise.all(Array.from({ length: listeners }, async () => await start(masters)))
  const empty = heap()
  // One group in each of nearly all partitions.
  for (const { app, connection } of members) await inParts(names(2_000), 500, async name => await app.registry.join(connection, name))
  for (const { app, connection } of members) await app.registry.leaveAll(connection)
  for (const { app, connection } of members) await inParts(names(256), 256, async name => await app.registry.join(connection, name))
  await sleep(6_000)
  const full = heap()
  const [redisBefore, ownBefore] = [sum(await masters.cpuUs()), process.cpuUsage()]
  await sleep(idleMs)
  const own = process.cpuUsage(ownBefore)
  const us = sum(await masters.cpuUs()) - redisBefore - alone
  const row = {
    what: 'idle instance with members in all partitions',
    'instance CPU ms/s': rounded((own.user + own.system) / idleMs / listeners),
    'Redis CPU ms/s': rounded(us / idleMs / listeners),
    'heap KB empty': Math.round((empty - before) / 1_024 / listeners),
    'heap KB more': Math.round((full - empty) / 1_024 / listeners)
  }
  await Promise.all(members.map(async ({ app }) => await app.close()))
  return row
}

/** Used after two collections. */
function heap (): number {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  gc()
  gc()
  return process.memoryUsage().heapUsed
}
