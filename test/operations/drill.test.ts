import t, { type Test } from 'tap'
import { context, SpanStatusCode } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor, type ReadableSpan } from '@opentelemetry/sdk-trace-base'
import { memoryCluster, type WebsocketGroupsOptions } from '../../plugin.ts'
import { Reporter, type Report } from '../../lib/operations/dashboard/reporter.ts'
import groupsHealth from '../../lib/operations/health.ts'
import groupsMetrics from '../../lib/operations/metrics.ts'
import { openTelemetry } from '../../lib/operations/opentelemetry.ts'
import { connect, upgradeStatus } from '../helpers/client.ts'
import { startInstance } from '../helpers/instance.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { serve, type Served } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

// The drill of docs/operations.md, step by step: what somebody on call sees.
noUnhandled(t)
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
t.teardown(() => context.disable())

interface Operated extends Served {
  /** What the dashboard shows of the instance. */
  report (): Report
  /** What Prometheus reads. */
  scrape (): Promise<string>
  /** What the traces have of this name. */
  spans (name: string): ReadableSpan[]
}

async function operated (t: Test, options: WebsocketGroupsOptions): Promise<Operated> {
  const exporter = new InMemorySpanExporter()
  const tracerProvider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
  const served = await serve(t, { tracing: openTelemetry({ tracerProvider }), ...options }, app => {
    app.wsRoom('/ws/:room', { auth: false, onMessage: async () => await new Promise(resolve => setTimeout(resolve, 20)) })
    void app.register(groupsHealth)
    void app.register(groupsMetrics)
  })
  const reporter = new Reporter(served.registry)
  reporter.start()
  t.teardown(() => reporter.stop())
  return {
    ...served,
    report: () => reporter.report(),
    scrape: async () => (await served.app.inject('/metrics')).body,
    spans: name => exporter.getFinishedSpans().filter(span => span.name === name)
  }
}

t.test('1. Redis hangs', async (t) => {
  const redis = await startRedis(t)
  const { app, registry, logs, report, scrape, spans } = await operated(t, { redis: redis.url, operationTimeoutMs: 300 })
  const told = (event: string): boolean => logs.some(line => line.event === event)
  redis.stop()
  await t.rejects(registry.broadcastToGroup('room', 'x'))
  t.match(spans('send group'), [{ status: { code: SpanStatusCode.ERROR }, attributes: { 'error.type': /^WSG_/ } }])
  await until(() => registry.health().status === 'down')
  const ready = await app.inject('/readyz')
  t.equal(ready.statusCode, 200, 'clients are served all the same')
  t.ok(ready.json<{ problems: string[] }>().problems.length > 0)
  t.match(await scrape(), /^websocket_groups_redis_up 0$/m)
  t.ok(told('backplane_not_up'))
  t.match(report(), { status: 'down', problems: [String] })
  // Some time later the reason is that of the latest try, and nothing about the outcome of a call that nobody made.
  await until(() => registry.health().problems.some(problem => /did not answer within|the link to Redis broke/.test(problem)))
  for (const problem of registry.health().problems) t.match(problem, /^Redis \w+ link is down: (the link|Redis) [\w ]+$/)
  redis.cont()
  await until(() => registry.health().status === 'up' && told('backplane_up'))
  t.match(await scrape(), /^websocket_groups_redis_up 1$/m)
  t.strictSame(report().problems, [])
})

t.test('2. an instance is stopped', async (t) => {
  const redis = await startRedis(t)
  const { registry, logs, scrape, spans, url } = await operated(t, { redis: redis.url, leaseMs: 1_000 })
  const other = await startInstance(t, { redisUrl: redis.url, options: { leaseMs: 1_000 } })
  const guest = connect(t, `ws://127.0.0.1:${other.port}/ws/room`)
  await guest.opened
  await until(async () => await registry.groupCount('room') === 1)
  const here = connect(t, `${url}/ws/room`)
  await here.opened
  await until(async () => await registry.groupCount('room') === 2)
  process.kill(other.pid, 'SIGSTOP')
  await registry.broadcastToGroup('room', 'x')
  await until(() => spans('deliver group').length === 1)
  t.equal(spans('deliver group')[0]?.parentSpanContext?.spanId, spans('send group')[0]?.spanContext().spanId, 'of those that live')
  await until(async () => await registry.groupCount('room') === 1)
  await until(() => logs.some(({ event, instance }) => event === 'instance_reaped' && instance === other.id))
  t.match(await scrape(), /^websocket_groups_instances_reaped_total 1$/m)
  process.kill(other.pid, 'SIGCONT')
  await until(async () => await registry.groupCount('room') === 2)
})

t.test('3. a client floods', async (t) => {
  const limits = { messages: { perSecond: 10, burst: 20 } }
  const { url, report, scrape, spans } = await operated(t, { backplane: memoryCluster().backplane(), limits })
  const flood = connect(t, `${url}/ws/room`)
  await flood.opened
  for (let i = 0; i < 2_000; i++) flood.ws.send('x')
  await until(() => report().events.some(({ text }) => text.includes('read more slowly') && text.includes('(pauses)')))
  t.match(await scrape(), /^websocket_groups_limit_hits_total\{limit="reading_paused"\} [1-9]/m)
  await until(() => spans('message /ws/:room').length > 5)
  const ids = new Set(spans('message /ws/:room').map(({ attributes }) => attributes['websocket_groups.connection.id']))
  t.equal(ids.size, 1, 'the traces tell which connection it is')
  flood.ws.terminate()
})

t.test('4. a room is huge', async (t) => {
  const { url, registry, report, spans } = await operated(t, { backplane: memoryCluster().backplane() })
  const members = Array.from({ length: 50 }, () => connect(t, `${url}/ws/huge`))
  await Promise.all(members.map(async ({ opened }) => await opened))
  await until(() => registry.stats().groups === 1 && JSON.stringify(report().busiest) === '[["huge",50]]')
  t.match(await registry.broadcastToGroup('huge', 'x', { report: true }), { report: { recipients: 50, slow: 0, missing: 0 } })
  await until(() => spans('deliver group').some(({ attributes }) => attributes['websocket_groups.recipients'] === 50))
})

t.test('5. a deploy goes wrong', async (t) => {
  const { app, url, registry, logs, report, scrape, spans } = await operated(t, { backplane: memoryCluster().backplane() })
  const client = connect(t, `${url}/ws/room`)
  await client.opened
  await until(() => spans('connect /ws/:room').length === 1)
  await registry.drain({ overMs: 10 })
  t.equal((await client.closed).code, 1012)
  t.equal((await upgradeStatus(`${url}/ws/room`)).statusCode, 503)
  t.equal(spans('connect /ws/:room').length, 1, 'whoever comes now is traced by the instance that takes it')
  t.equal((await app.inject('/readyz')).statusCode, 503)
  t.equal(report().status, 'closing')
  t.ok(logs.some(({ event }) => event === 'drained'))
  t.match(await scrape(), /^websocket_groups_connections 0$/m)
})
