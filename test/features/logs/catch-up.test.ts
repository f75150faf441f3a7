import t, { type Test } from 'tap'
import { setTimeout as wait } from 'node:timers/promises'
import type { Cluster, RedisCluster, TestInstance } from '../../helpers/app.ts'
import { memoryInstances, redisCluster } from '../../helpers/app.ts'
import { connect, type TestClient } from '../../helpers/client.ts'
import { defaultLog } from '../../../lib/options/group-logs.ts'
import type { LogSettings } from '../../../lib/types.ts'
import { startRedis } from '../../helpers/redis.ts'
import { until } from '../../helpers/until.ts'

const redis = await startRedis(t)
/** Room for all that these tests send. */
const log: LogSettings = { ...defaultLog, maxMessages: 1_000, ...('maxBytes' in defaultLog ? { maxBytes: 67_108_864 } : {}) }

/** Logs stay in Redis for a while: each test has its own. */
function onEveryCluster (name: string, run: (t: Test, cluster: Cluster) => Promise<void>): void {
  t.test(`${name} (memory)`, async t => await run(t, memoryInstances(t)))
  onRedis(name, run)
}

function onRedis (name: string, run: (t: Test, cluster: RedisCluster) => Promise<void>): void {
  t.test(`${name} (redis)`, async t => {
    await redis.admin.flushall()
    await run(t, await redisCluster(t, redis))
  })
}

interface Heard {
  readonly gaps: Array<{ readonly group: string, readonly reason: string }>
}

/** A route whose connections join the group of their path, from the position in their query. */
async function startWithRoute (cluster: Cluster, options: { readonly log?: LogSettings } = {}): Promise<TestInstance & Heard> {
  const gaps: Heard['gaps'] = []
  const instance = await cluster.start({
    log,
    ...options,
    routes: app => app.get<{ Params: { room: string } }>('/follow/:room', { websocket: true }, app.wsHandler({
      async onConnect (connection, request) {
        const { since } = request.query as { since?: string }
        await app.registry.join(connection, connection.params.room, { since })
      },
      onMessage () {},
      onGap (connection, group, { reason }) {
        gaps.push({ group, reason })
        connection.send(`gap: ${reason}`)
      }
    }))
  })
  return Object.assign(instance, { gaps })
}

function follow (t: Test, instance: TestInstance, since: string): TestClient {
  return connect(t, `${instance.url}/follow/room?since=${since}`)
}

const numbered = (n: number, size: number): string => String(n).padEnd(size, '.')
const numbersOf = ({ messages }: TestClient): number[] => messages.map(message => Number.parseInt(String(message)))

onEveryCluster('a client that reads slowly catches up with a large log, and with what is sent meanwhile', async (t, cluster) => {
  const instance = await startWithRoute(cluster)
  const { registry } = instance
  const { position = '' } = await registry.broadcastToGroup('room', 'start')
  const stored = 120
  for (let n = 1; n <= stored; n++) await registry.broadcastToGroup('room', numbered(n, 200_000))
  const client = follow(t, instance, position)
  await client.opened
  client.ws.pause()
  await until(() => (registry.all()[0]?.bufferedBytes ?? 0) > 0, { what: 'the client to be behind' })
  const live = 60
  let mostBuffered = 0
  for (let n = 1; n <= live; n++) {
    await registry.broadcastToGroup('room', numbered(stored + n, 50_000))
    mostBuffered = Math.max(mostBuffered, registry.all()[0]?.bufferedBytes ?? 0)
  }
  t.ok(mostBuffered < 2_097_152, `at most ${mostBuffered} bytes wait for it`)
  while (client.messages.length < stored + live) {
    client.ws.resume()
    await wait(20)
    client.ws.pause()
    if (client.ws.readyState !== client.ws.OPEN) break
  }
  client.ws.resume()
  t.strictSame(numbersOf(client), Array.from({ length: stored + live }, (_, n) => n + 1), 'each once and in order')
  await registry.broadcastToGroup('room', '999')
  await until(() => numbersOf(client).at(-1) === 999, { what: 'live messages' })
  t.match(registry.stats(), { slowConsumersClosed: 0, gapConnections: 0 })
})

onEveryCluster('what is trimmed while a client catches up is a gap, and what is there still follows', async (t, cluster) => {
  const instance = await startWithRoute(cluster, { log: { ...log, maxMessages: 40 } })
  const { registry } = instance
  const { position = '' } = await registry.broadcastToGroup('room', 'start')
  for (let n = 1; n <= 39; n++) await registry.broadcastToGroup('room', numbered(n, 400_000))
  const client = follow(t, instance, position)
  await client.opened
  client.ws.pause()
  await until(() => (registry.all()[0]?.bufferedBytes ?? 0) > 0, { what: 'the client to be behind' })
  for (let n = 40; n <= 100; n++) await registry.broadcastToGroup('room', numbered(n, 400_000))
  client.ws.resume()
  await until(() => numbersOf(client).at(-1) === 100, { timeoutMs: 60_000 })
  t.strictSame(instance.gaps, [{ group: 'room', reason: 'trimmed' }])
  const texts = client.messages.map(String)
  const gapAt = texts.indexOf('gap: trimmed')
  const numbers = numbersOf(client)
  t.strictSame(numbers.filter(n => !Number.isNaN(n) && n > 60), Array.from({ length: 40 }, (_, n) => n + 61), 'all that the log has')
  t.strictSame(numbers.slice(0, gapAt).every((n, index) => n === index + 1), true, 'from the first one on')
  t.equal(registry.stats().gapConnections, 1)
})

onEveryCluster('a raw client that comes back too late: the route is told, and it is counted', async (t, cluster) => {
  const instance = await startWithRoute(cluster, { log: { ...log, maxMessages: 2 } })
  const { registry } = instance
  const { position = '' } = await registry.broadcastToGroup('room', '1')
  for (const text of ['2', '3', '4', '5']) await registry.broadcastToGroup('room', text)
  const client = follow(t, instance, position)
  t.equal(await client.next(), 'gap: trimmed')
  t.strictSame(instance.gaps, [{ group: 'room', reason: 'trimmed' }])
  t.match(registry.stats(), { gapConnections: 1, gaps: 0 })
  await registry.broadcastToGroup('room', '6')
  t.equal(await client.next(), '6')
})

onRedis('a log that lost its data is a gap to each raw client, before what comes next', async (t, cluster) => {
  const instance = await startWithRoute(cluster)
  const { registry } = instance
  const { position = '' } = await registry.broadcastToGroup('room', 'first')
  const clients = [follow(t, instance, position), follow(t, instance, position)]
  for (const client of clients) await client.opened
  await until(() => registry.all().every(({ groups }) => groups.length === 1))
  await registry.broadcastToGroup('room', 'second')
  for (const client of clients) t.equal(await client.next(), 'second')
  const logs = (await cluster.redis.admin.keys('*')).filter(key => key.includes('room'))
  t.ok(logs.length >= 2)
  await cluster.redis.admin.del(...logs)
  await registry.broadcastToGroup('room', 'third')
  for (const client of clients) t.strictSame([await client.next(), await client.next()].sort(), ['gap: epoch', 'third'])
  t.match(registry.stats(), { gapConnections: 2, gaps: 1 })
})
