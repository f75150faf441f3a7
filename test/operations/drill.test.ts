import t, { type Test } from 'tap'
import { memoryCluster, type WebsocketGroupsOptions } from '../../plugin.ts'
import { Reporter, type Report } from '../../lib/operations/dashboard/reporter.ts'
import groupsHealth from '../../lib/operations/health.ts'
import groupsMetrics from '../../lib/operations/metrics.ts'
import { connect } from '../helpers/client.ts'
import { startInstance } from '../helpers/instance.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { serve, type Served } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

// The drill of docs/operations.md, step by step: what somebody on call sees.
noUnhandled(t)

interface Operated extends Served {
  /** What the dashboard shows of the instance. */
  report (): Report
  /** What Prometheus reads. */
  scrape (): Promise<string>
}

async function operated (t: Test, options: WebsocketGroupsOptions): Promise<Operated> {
  const served = await serve(t, options, app => {
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
    scrape: async () => (await served.app.inject('/metrics')).body
  }
}

t.test('1. Redis hangs', async (t) => {
  const redis = await startRedis(t)
  const { app, registry, logs, report, scrape } = await operated(t, { redis: redis.url, operationTimeoutMs: 300 })
  const told = (event: string): boolean => logs.some(line => line.event === event)
  redis.stop()
  await until(() => registry.health().status === 'down')
  const ready = await app.inject('/readyz')
  t.equal(ready.statusCode, 200, 'clients are served all the same')
  t.ok(ready.json<{ problems: string[] }>().problems.length > 0)
  t.match(await scrape(), /^websocket_groups_redis_up 0$/m)
  t.ok(told('backplane_not_up'))
  t.match(report(), { status: 'down', problems: [String] })
  redis.cont()
  await until(() => registry.health().status === 'up' && told('backplane_up'))
  t.match(await scrape(), /^websocket_groups_redis_up 1$/m)
  t.strictSame(report().problems, [])
})

t.test('2. an instance is stopped', async (t) => {
  const redis = await startRedis(t)
  const { registry, logs, scrape } = await operated(t, { redis: redis.url, leaseMs: 1_000 })
  const other = await startInstance(t, { redisUrl: redis.url, options: { leaseMs: 1_000 } })
  const guest = connect(t, `ws://127.0.0.1:${other.port}/ws/room`)
  await guest.opened
  await until(async () => await registry.groupCount('room') === 1)
  process.kill(other.pid, 'SIGSTOP')
  await until(async () => await registry.groupCount('room') === 0)
  await until(() => logs.some(({ event, instance }) => event === 'instance_reaped' && instance === other.id))
  t.match(await scrape(), /^websocket_groups_instances_reaped_total 1$/m)
  process.kill(other.pid, 'SIGCONT')
  await until(async () => await registry.groupCount('room') === 1)
})

t.test('3. a client floods', async (t) => {
  const limits = { messages: { perSecond: 10, burst: 20 } }
  const { url, report, scrape } = await operated(t, { backplane: memoryCluster().backplane(), limits })
  const flood = connect(t, `${url}/ws/room`)
  await flood.opened
  for (let i = 0; i < 2_000; i++) flood.ws.send('x')
  await until(() => report().events.some(({ text }) => text.includes('read more slowly') && text.includes('(pauses)')))
  t.match(await scrape(), /^websocket_groups_limit_hits_total\{limit="reading_paused"\} [1-9]/m)
  flood.ws.terminate()
})

t.test('4. a room is huge', async (t) => {
  const { url, registry, report } = await operated(t, { backplane: memoryCluster().backplane() })
  const members = Array.from({ length: 50 }, () => connect(t, `${url}/ws/huge`))
  await Promise.all(members.map(async ({ opened }) => await opened))
  await until(() => registry.stats().groups === 1 && JSON.stringify(report().busiest) === '[["huge",50]]')
  t.match(await registry.broadcastToGroup('huge', 'x', { report: true }), { report: { recipients: 50, slow: 0, missing: 0 } })
})

t.test('5. a deploy goes wrong', async (t) => {
  const { app, registry, logs, report, scrape } = await operated(t, { backplane: memoryCluster().backplane() })
  await registry.drain({ overMs: 10 })
  t.equal((await app.inject('/readyz')).statusCode, 503)
  t.equal(report().status, 'closing')
  t.ok(logs.some(({ event }) => event === 'drained'))
  t.match(await scrape(), /^websocket_groups_connections 0$/m)
})
