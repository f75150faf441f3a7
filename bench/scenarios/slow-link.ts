import Fastify from 'fastify'
import websocketGroups, { createPublisher, type Connection } from 'fastify-websocket-groups'
import { Redis } from 'ioredis'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import type { DrillOptions } from '../options.ts'
import { start } from '../rig/child.ts'
import { startRedis } from '../rig/redis.ts'
import { median } from '../rig/runs.ts'
import type { SlowWireApi } from '../rig/slow-wire.ts'
import { until } from '../rig/until.ts'
import type { Result, Row } from '../results.ts'

const much = 256 * 1_024 * 1_024

interface LinkKind {
  readonly link: string
  readonly bytesPerSecond: number
  /** All connections together have that, or each has. */
  readonly shared: boolean
  /** What each connection gets through in turn. @default a packet */
  readonly turnBytes?: number
}
const links: readonly LinkKind[] = [
  { link: '100 Mbit/s for each connection', bytesPerSecond: 12_500_000, shared: false },
  { link: '10 Mbit/s for each connection', bytesPerSecond: 1_250_000, shared: false },
  { link: '10 Mbit/s for all, in packets', bytesPerSecond: 1_250_000, shared: true },
  { link: '10 Mbit/s for all, 16 KB in turn', bytesPerSecond: 1_250_000, shared: true, turnBytes: 16_384 }
]

/**
 * How much of a slow link to Redis an instance uses while it reads what its groups missed, and how long a message to another group takes
 * beside that, until it is stored and its member has it.
 */
export async function slowLink ({ number }: DrillOptions): Promise<Result> {
  const [groups, messages, bytes] = [number('groups', 50), number('messages', 100), number('bytes', 1_500)]
  const names = Array.from({ length: groups }, (_, n) => `group ${n}`)
  const rows: Row[] = []
  for (const link of links) rows.push({ link: link.link, ...await repair(link, names, messages, 'x'.repeat(bytes)) })
  return { title: `an instance that missed ${messages} messages of ${bytes} bytes in each of ${groups} groups`, rows, raw: {} }
}

async function repair (
  { bytesPerSecond, shared, turnBytes }: LinkKind, groups: readonly string[], messages: number, text: string
): Promise<Row> {
  const redis = await startRedis()
  const wire = await start<SlowWireApi>('slow-wire.ts', [new URL(redis.url).port])
  const admin = new Redis(redis.url)
  const publisher = createPublisher({ redis: redis.url })
  const app = Fastify()
  await app.register(websocketGroups, {
    redis: await wire.call.url(), maxGroupsPerConnection: groups.length, maxBufferedBytes: much, slowBufferedBytes: much
  })
  app.get('/', { websocket: true }, app.wsHandler({
    async onConnect (connection: Connection) {
      for (const group of groups) await app.registry.join(connection, group)
      connection.send('joined')
    },
    onMessage () {}
  }))
  app.wsRoom('/:room', { auth: false, group: ({ room }) => room, onJoin: connection => { connection.send('joined') } })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const open = async (path: string): Promise<WebSocket> => {
    const client = new WebSocket(`ws://127.0.0.1:${(app.server.address() as AddressInfo).port}/${path}`)
    await once(client, 'message')
    return client
  }
  const [member, other] = [await open(''), await open('other')]
  let delivered = 0
  member.on('message', () => { delivered++ })

  /** Sends one message after the other until told to stop; resolves with how long the middle one took (milliseconds). */
  async function broadcasts (stop: AbortSignal): Promise<number> {
    const took: number[] = []
    while (!stop.aborted) {
      const startedAt = performance.now()
      await Promise.all([once(other, 'message'), app.registry.broadcastToGroup('other', 'x')])
      took.push(performance.now() - startedAt)
      await sleep(20)
    }
    return median(took)
  }

  try {
    await wire.call.limit(bytesPerSecond, shared, turnBytes)
    const usual = await broadcasts(AbortSignal.timeout(3_000))
    // The subscriptions cannot come back before all is sent.
    await wire.call.refuse(true)
    await admin.client('KILL', 'TYPE', 'PUBSUB')
    await Promise.all(groups.map(async group => { for (let n = 0; n < messages; n++) await publisher.broadcastToGroup(group, text) }))
    await wire.call.refuse(false)
    const { bulkReads = 0, bulkBytes = 0 } = app.registry.stats()
    if (!await until(async () => (app.registry.stats().bulkReads ?? 0) > bulkReads, 10_000, 1)) throw new Error('nothing is read')
    const [startedAt, over] = [performance.now(), new AbortController()]
    const beside = broadcasts(over.signal)
    const isDone = await until(async () => delivered >= groups.length * messages, 120_000, 1)
    const tookMs = performance.now() - startedAt
    over.abort()
    if (!isDone || delivered !== groups.length * messages) throw new Error(`${delivered} messages came`)
    const read = (app.registry.stats().bulkBytes ?? 0) - bulkBytes
    return {
      'repair ms': Math.round(tookMs),
      '% of the link': Math.round(read / tookMs / bytesPerSecond * 1e5),
      'message to another group ms': Number((await beside).toFixed(1)),
      'without a repair ms': Number(usual.toFixed(1))
    }
  } finally {
    for (const client of [member, other]) client.terminate()
    await wire.call.limit(0, false)
    await Promise.all([app.close(), publisher.close()])
    admin.disconnect()
    await wire.end('SIGKILL')
    await redis.close()
  }
}
