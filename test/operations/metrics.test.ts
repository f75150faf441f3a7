import t, { type Test } from 'tap'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { DefaultIdentity, Limits, Metric, MetricsSnapshot, NumberMetric } from '../../plugin.ts'
import type { LocalConnection } from '../../lib/connection/connection.ts'
import { catalogue } from '../../lib/metrics/catalogue.ts'
import { Histogram } from '../../lib/metrics/histogram.ts'
import { CloseCodes } from '../../lib/metrics/close-codes.ts'
import { Traffic } from '../../lib/metrics/traffic.ts'
import { resolveLimits } from '../../lib/options/limits.ts'
import { onEveryCluster, type TestInstance } from '../helpers/app.ts'
import { openFramed } from '../features/framed/framed-client.ts'
import { connect, upgradeStatus, type ConnectOptions } from '../helpers/client.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { gate, serve, type Served } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const redis = await startRedis(t)

/** The value of a counter or gauge for these labels. */
function valueOf (metrics: MetricsSnapshot, name: string, labels: Record<string, string> = {}): number | undefined {
  const metric = metrics[name] as NumberMetric | undefined
  return metric?.values.find(value => JSON.stringify(value.labels) === JSON.stringify(labels))?.value
}

function countOf ({ registry }: Pick<TestInstance, 'registry'>, name: string): number {
  const metric = registry.metrics()[name]
  return metric?.type === 'histogram' ? metric.values[0]?.count ?? -1 : -1
}

onEveryCluster(t, redis, 'every number of stats() is a metric with a name, a kind and a help', async (t, cluster) => {
  const a = await cluster.start()
  const opened = await a.enter('lobby')
  opened.client.send('hi')
  await until(() => (a.registry.stats().messagesDelivered ?? 0) > 0)
  const stats = a.registry.stats()
  const metrics = a.registry.metrics()

  const unnamed = Object.keys(stats).filter(stat => !(stat in catalogue))
  t.strictSame(
    unnamed, ['connectionsClosed', 'upgradesRefused'], 'the others are in lib/metrics/catalogue.ts; these two are the sum of their labels'
  )
  t.notOk('other_stat' in metrics)
  for (const [name, metric] of Object.entries(metrics)) t.strictSame(faults(name, metric), [], name)
  t.equal(valueOf(metrics, 'connections'), 1)
  t.equal(valueOf(metrics, 'connections_opened_total'), stats.connectionsOpened)
})

/** What Prometheus's conventions would say about a metric. */
function faults (name: string, { type, help, unit, values }: Metric): string[] {
  return [
    /^[a-z][a-z0-9_]*$/.test(name) ? '' : 'characters',
    (type === 'counter') === name.endsWith('_total') ? '' : 'a counter, and nothing else, ends with _total',
    unit === /_(seconds|bytes)(_total)?$/.exec(name)?.[1] ? '' : 'the unit is not that of the name',
    /^[A-Z1].*\.$/.test(help) ? '' : 'help is no sentence',
    values.some(({ labels }) => Object.keys(labels).some(label => !/^(route|direction|reason|limit|what|decision|code|stat)$/.test(label)))
      ? 'an unbounded label'
      : ''
  ].filter(fault => fault !== '')
}

onEveryCluster(t, redis, 'histograms tell how long messages, joins and callbacks take', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const sender = await a.enter('lobby')
  await b.enter('lobby')
  await b.enter('lobby')
  t.equal(countOf(b, 'join_duration_seconds'), 2)
  const before = countOf(b, 'publish_to_delivery_seconds')
  sender.client.send('hi')
  await until(() => countOf(b, 'publish_to_delivery_seconds') > before)
  t.equal(countOf(b, 'publish_to_delivery_seconds'), before + 1, 'once per message, however many get it')
  const delivery = b.registry.metrics().publish_to_delivery_seconds
  if (delivery?.type !== 'histogram') throw new Error('no histogram')
  t.equal(delivery.values[0]?.counts.at(-1), delivery.values[0]?.count, 'both clocks are those of one machine: nothing takes ten seconds')
  await until(() => countOf(a, 'on_message_duration_seconds') === 1)
  t.equal(countOf(a, 'queue_wait_seconds'), 1)
}, 'both')

onEveryCluster(t, redis, 'how long the logs are is told by whoever appends to them', async (t, cluster) => {
  const a = await cluster.start({ log: { maxMessages: 12, maxBytes: 1_000_000, ttlMs: 60_000 } })
  const lengths = (): unknown => {
    const metric = a.registry.metrics().log_messages
    return metric?.type === 'histogram' ? { ...metric.values[0], buckets: metric.buckets } : undefined
  }
  for (let n = 0; n < 15; n++) await a.registry.broadcastToGroup('one', 'x')
  await a.registry.broadcastToGroup(['one', 'two'], 'x', { idempotencyKey: 'once' })
  await a.registry.broadcastToGroup(['one', 'two'], 'x', { idempotencyKey: 'once' })
  // 1 to 12, three times 12, of both groups 12 and 1, and nothing of what was stored before.
  const buckets = [1, 10, 100, 1_000, 10_000, 100_000]
  t.strictSame(lengths(), { labels: {}, buckets, counts: [2, 11, 17, 17, 17, 17], count: 17, sum: 127 })
  // What is stored in one step counts once.
  await Promise.all(Array.from({ length: 50 }, async () => await a.registry.broadcastToGroup('one', 'x')))
  if (cluster.name !== 'memory') t.ok((lengths() as { readonly count: number }).count < 17 + 25)
})

t.test('a message that waits for a callback is recorded with its wait, and the callback with its time', async (t) => {
  const slow = 60
  const { registry, url } = await serve(t, {}, app => {
    app.get('/slow', { websocket: true }, app.wsHandler({
      onConnect: connection => { connection.send('ready') },
      onMessage: async (connection, data) => {
        await new Promise(resolve => { setTimeout(resolve, slow) })
        connection.send(data)
      }
    }))
  })
  const client = connect(t, `${url}/slow`)
  await client.next()
  client.send('1')
  client.send('2')
  await client.next()
  await client.next()
  const metrics = registry.metrics()
  const [onMessage, wait] = [metrics.on_message_duration_seconds, metrics.queue_wait_seconds]
  if (onMessage?.type !== 'histogram' || wait?.type !== 'histogram') return t.fail('no histograms')
  await until(() => (registry.metrics().on_message_duration_seconds as typeof onMessage).values[0]?.count === 2)
  t.equal(wait.values[0]?.count, 2)
  t.equal(wait.values[0]?.counts[0], 1, 'the first did not wait')
  // How long depends on when it came.
  t.ok((wait.values[0]?.sum ?? 0) > 0, 'the second did')
})

t.test('a loss that waits for onGap is no message: counts of the waits of messages never go down', async (t) => {
  const { opened: handled, open: handle } = gate()
  let gaps = 0
  const { registry, url } = await serve(t, {}, app => {
    app.get('/slow', { websocket: true }, app.wsHandler({ onMessage: async () => await handled, onGap: () => { gaps++ } }))
  })
  const client = connect(t, `${url}/slow`)
  await client.opened
  client.send('1')
  await until(() => registry.stats().messagesReceived === 1)
  const counts = (): readonly number[] => {
    const wait = registry.metrics().queue_wait_seconds
    return wait?.type === 'histogram' ? wait.values.flatMap(({ counts, count }) => [...counts, count]) : []
  }
  const before = counts()
  const [connection] = registry.all() as LocalConnection[]
  connection?.gapped('lobby', 'trimmed')
  // Longer than the first bucket.
  await new Promise(resolve => { setTimeout(resolve, 20) })
  handle()
  await until(() => gaps === 1)
  t.strictSame(counts(), before)
})

t.test('traffic is told by route, closes by code, refusals by reason', async (t) => {
  const { registry, url } = await serve(t, { limits: { connections: 1 } }, app => {
    app.get('/echo/:id', { websocket: true }, app.wsHandler({ onMessage: (connection, data) => { connection.send(data) } }))
  })
  const client = connect(t, `${url}/echo/1`)
  await client.opened
  client.send('12345')
  client.send('67890')
  await client.next()
  await client.next()
  const metrics = registry.metrics()
  const labels = (direction: string): Record<string, string> => ({ route: '/echo/:id', direction })
  t.equal(valueOf(metrics, 'route_messages_total', labels('in')), 2)
  t.equal(valueOf(metrics, 'route_bytes_total', labels('in')), 10)
  t.equal(valueOf(metrics, 'route_messages_total', labels('out')), 2)
  t.equal(valueOf(metrics, 'route_bytes_total', labels('out')), 14, 'each with the two bytes of its frame')

  t.equal((await upgradeStatus(`${url}/echo/2`)).statusCode, 503)
  t.equal(valueOf(registry.metrics(), 'upgrades_refused_total', { reason: 'instance_full' }), 1)
  t.equal(valueOf(registry.metrics(), 'upgrades_refused_total', { reason: 'not_ready' }), 0)
  client.close(4321)
  await until(() => valueOf(registry.metrics(), 'connections_closed_total', { code: 'other' }) === 1)
})

t.test('upgrades that authentication keeps out are told by reason', async (t) => {
  const authenticate = (token: string): DefaultIdentity | null => {
    if (token === 'outage') throw Object.assign(new Error('the auth service is out'), { statusCode: 503 })
    return token === 'bad' ? null : { userId: token }
  }
  const { registry, url, app } = await serve(t, { authenticate }, app => {
    app.wsRoom('/ws/:room', {
      group: ({ room }) => `room:${room}`, auth: { authorize: ({ userId }) => userId !== 'eve', allowedOrigins: ['https://example.com'] }
    })
    app.wsRoom('/broken', { auth: { required: false }, group: () => 'all', preHandler: async () => { throw new TypeError('a bug') } })
    app.get('/page', { preHandler: app.wsAuth() }, async () => 'a page')
  })
  const refused = (reason: string): number | undefined => valueOf(registry.metrics(), 'upgrades_refused_total', { reason })
  const ask = async (token: string, more: Record<string, string> = {}): Promise<number | undefined> =>
    (await upgradeStatus(`${url}/ws/lobby`, { headers: { authorization: `Bearer ${token}`, ...more } })).statusCode
  t.strictSame([await ask('bad'), (await upgradeStatus(`${url}/ws/lobby`)).statusCode], [401, 401])
  t.strictSame([await ask('eve'), await ask('ann', { origin: 'https://evil.example' })], [403, 403])
  t.strictSame([await ask('outage'), (await upgradeStatus(`${url}/broken`)).statusCode], [503, 500])
  t.strictSame(['unauthorized', 'forbidden', 'failed', 'not_ready'].map(refused), [2, 2, 2, 0])
  t.equal((await app.inject('/page')).statusCode, 401)
  t.equal(registry.stats().upgradesRefused, 6, 'a request for a page is no upgrade')
})

type Hit = (t: Test, service: Served) => Promise<unknown>
const rate = { perSecond: 1, burst: 1 }
const bearer = (token: string): ConnectOptions => ({ headers: { authorization: `Bearer ${token}` } })
const oneStaysOneComes: Hit = async (t, { url }) => {
  await connect(t, `${url}/lobby`, bearer('ann')).opened
  await connect(t, `${url}/lobby`, bearer('ann')).closed
}
const says = (...texts: readonly string[]): Hit => async (t, { url }) => {
  const client = connect(t, `${url}/lobby`, bearer('ann'))
  await client.opened
  for (const text of texts) client.send(text)
}
const asks = (...frames: readonly object[]): Hit => async (t, { url }) => {
  const client = await openFramed(t, `${url}/lobby`, { token: 'ann' })
  for (const [id, frame] of frames.entries()) client.send({ id, ...frame })
}
const joinOf = (group: string): object => ({ type: 'join', group })

/** For each limit: what a small one counts when it holds something up or keeps something out, and how it comes to that. */
const limitMetrics: { readonly [Name in keyof Limits]-?: readonly [limit: Limits[Name], label: Readonly<Record<string, string>>, Hit] } = {
  connections: [1, { reason: 'instance_full' }, oneStaysOneComes],
  connectionsPerUser: [1, { reason: 'user_full' }, oneStaysOneComes],
  connectionsPerAddress: [1, { reason: 'address_full' }, oneStaysOneComes],
  upgradesPerAddress: [rate, { reason: 'address_rate' }, oneStaysOneComes],
  messages: [rate, { limit: 'reading_paused' }, says('1', '2', '3')],
  bytes: [rate, { limit: 'reading_paused' }, says('x'.repeat(5_000))],
  requests: [rate, { limit: 'requests' }, asks(joinOf('a'), joinOf('b'), joinOf('c'))],
  replays: [rate, { limit: 'requests' }, asks(...['a', 'b', 'c'].map(group => ({ ...joinOf(group), history: 1 })))],
  tokens: [rate, { limit: 'requests' }, asks({ type: 'token', token: 'ann' }, { type: 'token', token: 'ann' })],
  newGroupsPerMinute: [1, { limit: 'new_groups' }, asks(joinOf('a'), joinOf('b'))],
  presenceBytes: [10, { limit: 'presence_entries' }, asks()],
  queuedBytes: [1_000, { limit: 'reading_paused' }, says('slow', 'x'.repeat(50_000), 'x'.repeat(50_000))],
  storedBytes: [rate, { limit: 'stored_bytes' }, says('1', '2'.repeat(1_000))],
  bufferedBytes: [1_000, { limit: 'buffered_bytes' }, async (t, { url, registry }) => {
    const client = connect(t, `${url}/lobby`, bearer('ann'))
    await client.opened
    client.ws.pause()
    await until(() => registry.count() === 1)
    const [connection] = registry.filter(() => true)
    // The network takes some megabytes before anything waits here.
    while (connection?.closed === false) connection.send(Buffer.alloc(1_000_000))
  }]
}

t.test('every limit that is hit moves its metric', async t => {
  const { explicit: _, ...limits } = resolveLimits()
  t.strictSame(Object.keys(limitMetrics).sort(), Object.keys(limits).sort())
  for (const [name, [limit, label, hit]] of Object.entries(limitMetrics)) {
    await t.test(name, async t => {
      const served = await serve(t, { limits: { [name]: limit } }, app => {
        if (name !== 'queuedBytes') return app.wsRoom('/:room', { mayJoin: () => true, presence: true })
        app.get('/:room', { websocket: true }, app.wsHandler({ onMessage: async () => await new Promise(() => {}) }))
      })
      const metric = 'reason' in label ? 'upgrades_refused_total' : 'limit_hits_total'
      const value = (): number | undefined => valueOf(served.registry.metrics(), metric, label)
      t.equal(value(), 0)
      await hit(t, served)
      await until(() => (value() ?? 0) > 0, { what: `${metric} ${JSON.stringify(label)}` })
    })
  }
})

t.test('an event loop that is held up is seen', async (t) => {
  const { registry } = await serve(t, {}, () => {})
  const lag = (): number => {
    const { event_loop_lag_seconds: metric } = registry.metrics()
    return metric?.type === 'histogram' ? metric.values[0]?.sum ?? 0 : 0
  }
  const before = lag()
  const until500 = performance.now() + 500
  while (performance.now() < until500) { /* busy */ }
  await until(() => lag() - before > 0.3)
  t.pass('half a second, but for what the timer still had to wait')
})

t.test('labels are bounded, whatever clients and services do', async (t) => {
  const codes = new CloseCodes()
  for (let code = 1000; code < 5000; code++) codes.add(code)
  t.ok([...codes.entries()].length < 30)
  t.match(new Map(codes.entries()), new Map([['1000', 1], ['4008', 1]]))

  const traffic = new Traffic()
  for (let n = 0; n < 1_000; n++) traffic.of(`/${n}`).received(1)
  t.ok([...traffic.routes()].length <= 201)
  t.equal([...traffic.routes()].reduce((sum, [, { messagesIn }]) => sum + messagesIn, 0), 1_000)
})

t.test('a histogram counts as Prometheus does', async (t) => {
  const histogram = new Histogram([1, 2, 5])
  for (const value of [-1, 0.5, 1, 2, 3, 100]) histogram.observe(value)
  t.strictSame(histogram.cumulative(), { counts: [3, 4, 5], count: 6 })
  t.strictSame(histogram.cumulative(2), { counts: [5, 6, 7], count: 8 })
  t.equal(histogram.sum, 106.5)
})

t.test('docs/operations.md lists every metric with its kind', async (t) => {
  const { registry } = await serve(t, {}, () => {})
  const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'operations.md'), 'utf8')
  const listed = new Map(
    [...page.matchAll(/^\| `(\w+)` \| (counter|gauge|histogram) \|/gm)].map(([, name = '', kind = '']) => [name, kind])
  )
  const kinds = new Map(Object.values(catalogue).map(({ name, type }) => [name, type as string]))
  for (const [name, { type }] of Object.entries(registry.metrics())) kinds.set(name, type)
  t.strictSame([...listed].sort(), [...kinds, ['other_stat', 'gauge']].sort())
})
