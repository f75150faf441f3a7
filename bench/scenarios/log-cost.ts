import * as websocketGroups from 'fastify-websocket-groups'
import type { PublisherOptions } from 'fastify-websocket-groups'
import { Redis } from 'ioredis'
import { setTimeout as sleep } from 'node:timers/promises'
import type { DrillOptions } from '../options.ts'
import { startRedis } from '../rig/redis.ts'
import { median } from '../rig/runs.ts'
import type { Result, Row } from '../results.ts'
import { beforePackage, type Package } from '../systems/before-package.ts'

const bytes = 200
const payload = 'x'.repeat(bytes)

interface Load {
  readonly what: string
  readonly log?: PublisherOptions['log']
  readonly groups: number
  /** Messages to each group that are under way at the same time: what waits for an append goes out with the next one. */
  readonly together: number
  readonly withKey?: boolean
}

const loads: readonly Load[] = [
  { what: 'volatile', log: false, groups: 500, together: 1 },
  { what: 'logged, alone', groups: 500, together: 1 },
  { what: 'logged, alone, with an idempotency key', groups: 500, together: 1, withKey: true },
  { what: 'logged, together', groups: 8, together: 4 },
  { what: 'logged, together', groups: 8, together: 16 },
  { what: 'logged, together', groups: 8, together: 64 }
]

interface Cost {
  readonly messagesPerCall: number
  /** Microseconds of a message, by the wall clock: in the script, with whatever else the machine does meanwhile. */
  readonly commandUs: number
  /** Microseconds of CPU of a message, with I/O. */
  readonly cpuUs: number
}

/**
 * What logs cost Redis: its CPU for a message that is kept, beside one that is not, and the memory of a group that keeps some. With
 * `--before` each load runs on both builds in turn, and the last column is what this one costs by what the other one did.
 */
export async function logCost ({ number }: DrillOptions): Promise<Result> {
  const messages = number('messages', 100_000)
  const before = await beforePackage()
  const rounds = number('rounds', before === undefined ? 1 : 3)
  const redis = await startRedis()
  const admin = new Redis(redis.url)
  const rows: Row[] = []
  for (const subscribers of [0, 3]) {
    const others = await Promise.all(Array.from({ length: subscribers }, async () => await subscriber(redis.url)))
    for (const load of loads) {
      const costs: Cost[] = []
      const costsBefore: Cost[] = []
      for (let round = 0; round < rounds; round++) {
        if (before !== undefined) costsBefore.push(await cost(before, redis.url, admin, load, messages))
        costs.push(await cost(websocketGroups, redis.url, admin, load, messages))
      }
      rows.push({ what: load.what, subscribers, ...rowOf(costs, costsBefore) })
    }
    for (const other of others) other.disconnect()
  }
  for (const kept of [1, 5, 20, 100]) rows.push({ what: `a group that keeps ${kept}`, ...await memory(redis.url, admin, kept) })
  rows.push(...await subscriptions(redis.url, admin))
  admin.disconnect()
  await redis.close()
  return { title: `what a log costs Redis, ${messages} messages of ${bytes} bytes`, rows, raw: { bytes } }
}

/** Listens to every group that is published to; docs/redis.md names the channels. */
async function subscriber (url: string): Promise<Redis> {
  const client = new Redis(url)
  const most = Math.max(...loads.map(({ groups }) => groups))
  await client.subscribe(...Array.from({ length: most }, (_, group) => `wsg:{0}:c:g:group${group}`))
  return client
}

function rowOf (costs: readonly Cost[], costsBefore: readonly Cost[]): Row {
  const middle = (of: readonly Cost[], figure: keyof Cost): number => median(of.map(cost => cost[figure]))
  return {
    'messages per call': middle(costs, 'messagesPerCall').toFixed(1),
    'us per message: command': middle(costs, 'commandUs').toFixed(2),
    'with I/O': middle(costs, 'cpuUs').toFixed(2),
    ...(costsBefore.length === 0
      ? {}
      : {
          before: middle(costsBefore, 'cpuUs').toFixed(2),
          'after / before': (middle(costs, 'cpuUs') / middle(costsBefore, 'cpuUs')).toFixed(3)
        })
  }
}

async function cost (build: Package, url: string, admin: Redis, load: Load, messages: number): Promise<Cost> {
  const { log, groups, together, withKey = false } = load
  await admin.flushall()
  const publisher = build.createPublisher({ redis: url, operationTimeoutMs: 10_000, ...(log === undefined ? {} : { log }) })
  let sent = 0
  const publish = async (limit: number): Promise<void> => {
    await Promise.all(Array.from({ length: groups * together }, async (_, i) => {
      while (sent < limit) {
        const key = `${process.hrtime.bigint()} ${sent++}`
        await publisher.broadcastToGroup(`group${i % groups}`, payload, withKey ? { idempotencyKey: key } : {})
      }
    }))
  }
  await publish(Math.max(messages / 20, 110 * groups)) // the scripts are loaded, and the logs are full
  await admin.config('RESETSTAT')
  const [cpuBefore, sentBefore] = [await cpuUs(admin), sent]
  await publish(sent + messages)
  const cpu = await cpuUs(admin) - cpuBefore
  const count = sent - sentBefore
  const stats = [...(await admin.info('commandstats')).matchAll(/^cmdstat_(publish|evalsha):calls=(\d+),usec=(\d+)/gm)]
  // A script's own PUBLISH is counted for the script, too.
  const [, , calls, us] = stats.find(([, name]) => name === 'evalsha') ?? stats[0] ?? []
  await publisher.close()
  return { messagesPerCall: count / Number(calls), commandUs: Number(us) / count, cpuUs: cpu / count }
}

/** CPU of the main thread. */
async function cpuUs (admin: Redis): Promise<number> {
  const parts = (await admin.info('cpu')).matchAll(/^used_cpu_(?:sys|user)_main_thread:(\S+)/gm)
  return [...parts].reduce((sum, [, seconds]) => sum + Number(seconds) * 1e6, 0)
}

/** With the entries in the keyspace. The total of Redis itself moves by more than this with the buffers of its clients. */
async function memory (url: string, admin: Redis, kept: number): Promise<Row> {
  await admin.flushall()
  const publisher = websocketGroups.createPublisher({ redis: url })
  for (let n = 0; n < kept; n++) await publisher.broadcastToGroup('group', payload)
  await publisher.close()
  await sleep(100)
  const sizes = await Promise.all(['h', 'l'].map(async key => await admin.memory('USAGE', `wsg:{0}:${key}:group`, 'SAMPLES', 0) ?? 0))
  return { bytes: sizes.reduce((a, b) => a + b, 0) }
}

/** Two clients subscribe to the same channels, with names as long as those of groups. */
async function subscriptions (url: string, admin: Redis): Promise<Row[]> {
  const channels = Array.from({ length: 20_000 }, (_, n) => `wsg:{0}:c:g:group ${n}`)
  const used = async (): Promise<number> => Number(/^used_memory:(\d+)/m.exec(await admin.info('memory'))?.[1])
  const rows: Row[] = []
  const clients = [new Redis(url), new Redis(url)]
  for (const [index, client] of clients.entries()) {
    await client.ping()
    const before = await used()
    await client.subscribe(...channels)
    await sleep(3_000) // Redis takes back what its buffers grew by
    const bytes = Math.round((await used() - before) / channels.length)
    rows.push({ what: `a subscription, ${index === 0 ? 'the first' : 'one more'} of its channel`, bytes })
  }
  for (const client of clients) client.disconnect()
  return rows
}
