import { createPublisher } from 'fastify-websocket-groups'
import { Redis } from 'ioredis'
import { setTimeout as sleep } from 'node:timers/promises'
import type { DrillOptions } from '../options.ts'
import { start, type Child } from '../rig/child.ts'
import type { Load, LogPublisherApi } from '../rig/log-publisher.ts'
import { startRedis } from '../rig/redis.ts'
import { median, pairedRatio } from '../rig/runs.ts'
import type { Result, Row } from '../results.ts'

const bytes = 200
/** The same in every build, whatever its defaults: a log that is full costs something else than one that grows. */
const log = { maxMessages: 100, ttlMs: 300_000 }

const loads: ReadonlyArray<Load & { readonly what: string }> = [
  { what: 'volatile', log: false, groups: 500, together: 1 },
  { what: 'logged, alone', log, groups: 500, together: 1 },
  { what: 'logged, alone, with an idempotency key', log, groups: 500, together: 1, withKey: true },
  { what: 'logged, together', log, groups: 8, together: 4 },
  { what: 'logged, together', log, groups: 8, together: 16 },
  { what: 'logged, together', log, groups: 8, together: 64 }
]

interface Cost {
  readonly messagesPerCall: number
  /** Microseconds of a message, by the wall clock: in the script, with whatever else the machine does meanwhile. */
  readonly commandUs: number
  /** Microseconds of CPU of a message, with I/O. */
  readonly cpuUs: number
  /** Of the process that publishes. */
  readonly publisherUs: number
}

/**
 * What logs cost Redis: its CPU for a message that is kept, beside one that is not, and the memory of a group that keeps some. With
 * `--before` each load runs on both builds in turn, each in a process of its own and each first in every other round. The last columns are
 * what this one costs by what the other one did: the median of the rounds and, in parentheses, their quartiles.
 */
export async function logCost ({ number, numbers }: DrillOptions): Promise<Result> {
  const messages = number('messages', 100_000)
  const withBefore = process.env.BENCH_BEFORE !== undefined
  const rounds = number('rounds', withBefore ? 9 : 1)
  const redis = await startRedis()
  const admin = new Redis(redis.url)
  const builds = await Promise.all((withBefore ? ['now', 'before'] : ['now']).map(async which => (
    await start<LogPublisherApi>('log-publisher.ts', [redis.url, which]))
  ))
  const rows: Row[] = []
  for (const subscribers of numbers('subscribers', [0, 3])) {
    const others = await Promise.all(Array.from({ length: subscribers }, async () => await subscriber(redis.url)))
    for (const { what, ...load } of loads) {
      const costs = builds.map(() => new Array<Cost>())
      for (let round = 0; round < rounds; round++) {
        const turns = [...builds.entries()]
        if (round % 2 === 0) turns.reverse()
        for (const [index, build] of turns) costs[index]?.push(await cost(build, admin, load, messages))
      }
      rows.push({ what, subscribers, ...rowOf(costs) })
    }
    for (const other of others) other.disconnect()
  }
  for (const kept of [1, 5, 20, 100]) rows.push({ what: `a group that keeps ${kept}`, ...await memory(redis.url, admin, kept) })
  rows.push(...await subscriptions(redis.url, admin))
  admin.disconnect()
  for (const build of builds) await build.end('SIGKILL')
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

function rowOf ([costs = [], before = []]: ReadonlyArray<readonly Cost[]>): Row {
  const middle = (figure: keyof Cost): number => median(costs.map(cost => cost[figure]))
  const ratio = (figure: keyof Cost): string => pairedRatio(costs.map(cost => cost[figure]), before.map(cost => cost[figure]))
  return {
    'messages per call': middle('messagesPerCall').toFixed(1),
    'us per message: command': middle('commandUs').toFixed(2),
    'with I/O': middle('cpuUs').toFixed(2),
    publisher: middle('publisherUs').toFixed(2),
    ...(before.length === 0
      ? {}
      : {
          'by before: command': ratio('commandUs'), 'by before: with I/O': ratio('cpuUs'), 'by before: publisher': ratio('publisherUs')
        })
  }
}

async function cost ({ call: publisher }: Child<LogPublisherApi>, admin: Redis, load: Load, messages: number): Promise<Cost> {
  await admin.flushall()
  await publisher.open(load)
  await publisher.publish(Math.max(messages / 20, 110 * load.groups)) // the scripts are loaded, and the logs are full
  await admin.config('RESETSTAT')
  const before = await cpuUs(admin)
  const publisherUs = await publisher.publish(messages)
  const cpu = await cpuUs(admin) - before
  const stats = [...(await admin.info('commandstats')).matchAll(/^cmdstat_(publish|evalsha):calls=(\d+),usec=(\d+)/gm)]
  // A script's own PUBLISH is counted for the script, too.
  const [, , calls, us] = stats.find(([, name]) => name === 'evalsha') ?? stats[0] ?? []
  await publisher.close()
  return {
    messagesPerCall: messages / Number(calls), commandUs: Number(us) / messages, cpuUs: cpu / messages, publisherUs: publisherUs / messages
  }
}

/** CPU of the main thread. */
async function cpuUs (admin: Redis): Promise<number> {
  const parts = (await admin.info('cpu')).matchAll(/^used_cpu_(?:sys|user)_main_thread:(\S+)/gm)
  return [...parts].reduce((sum, [, seconds]) => sum + Number(seconds) * 1e6, 0)
}

/** With the entries in the keyspace. The total of Redis itself moves by more than this with the buffers of its clients. */
async function memory (url: string, admin: Redis, kept: number): Promise<Row> {
  await admin.flushall()
  const publisher = createPublisher({ redis: url, log })
  for (let n = 0; n < kept; n++) await publisher.broadcastToGroup('group', 'x'.repeat(bytes))
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
