import { createPublisher, type PublisherOptions } from 'fastify-websocket-groups'
import { Redis } from 'ioredis'
import { setTimeout as sleep } from 'node:timers/promises'
import type { DrillOptions } from '../options.ts'
import { startRedis } from '../rig/redis.ts'
import type { Result, Row } from '../results.ts'

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

/** What logs cost Redis: its CPU for a message that is kept, beside one that is not, and the memory of a group that keeps some. */
export async function logCost ({ number }: DrillOptions): Promise<Result> {
  const messages = number('messages', 100_000)
  const redis = await startRedis()
  const admin = new Redis(redis.url)
  const rows: Row[] = []
  for (const subscribers of [0, 3]) {
    const others = await Promise.all(Array.from({ length: subscribers }, async () => await subscriber(redis.url)))
    for (const load of loads) rows.push({ what: load.what, subscribers, ...await cost(redis.url, admin, load, messages) })
    for (const other of others) other.disconnect()
  }
  for (const kept of [1, 5, 20, 100]) rows.push({ what: `a group that keeps ${kept}`, ...await memory(redis.url, admin, kept) })
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

async function cost (url: string, admin: Redis, { log, groups, together, withKey = false }: Load, messages: number): Promise<Row> {
  const publisher = createPublisher({ redis: url, operationTimeoutMs: 10_000, ...(log === undefined ? {} : { log }) })
  let sent = 0
  const publish = async (limit: number): Promise<void> => {
    await Promise.all(Array.from({ length: groups * together }, async (_, i) => {
      while (sent < limit) {
        const key = `${process.hrtime.bigint()} ${sent++}`
        await publisher.broadcastToGroup(`group${i % groups}`, payload, withKey ? { idempotencyKey: key } : {})
      }
    }))
  }
  await publish(messages / 20) // the scripts are loaded, and the logs are full
  await admin.config('RESETSTAT')
  const [cpuBefore, sentBefore] = [await cpuUs(admin), sent]
  await publish(sent + messages)
  const cpu = await cpuUs(admin) - cpuBefore
  const count = sent - sentBefore
  const stats = [...(await admin.info('commandstats')).matchAll(/^cmdstat_(publish|evalsha):calls=(\d+),usec=(\d+)/gm)]
  // A script's own PUBLISH is counted for the script, too.
  const [, , calls, us] = stats.find(([, name]) => name === 'evalsha') ?? stats[0] ?? []
  await publisher.close()
  return {
    'messages per call': Number((count / Number(calls)).toFixed(1)),
    'us per message: command': Number((Number(us) / count).toFixed(2)),
    'with I/O': Number((cpu / count).toFixed(2))
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
  const publisher = createPublisher({ redis: url })
  for (let n = 0; n < kept; n++) await publisher.broadcastToGroup('group', payload)
  await publisher.close()
  await sleep(100)
  const sizes = await Promise.all(['h', 'l'].map(async key => await admin.memory('USAGE', `wsg:{0}:${key}:group`, 'SAMPLES', 0) ?? 0))
  return { bytes: sizes.reduce((a, b) => a + b, 0) }
}
