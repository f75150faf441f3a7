import { createHook } from 'node:async_hooks'
import { channel } from 'node:diagnostics_channel'
import { performance } from 'node:perf_hooks'
import t from 'tap'
import { Reporter } from '../../lib/operations/dashboard/reporter.ts'
import type { NumberMetric, Registry } from '../../lib/types.ts'
import { freePort } from '../helpers/ports.ts'
import { serve } from '../helpers/service.ts'

t.test('a dashboard that nobody looks at has no timer and no meter', async (t) => {
  const made: string[] = []
  const hook = createHook({ init (_id, type) { made.push(type) } }).enable()
  const reporter = new Reporter({} as Registry)
  reporter.start()
  const before = made.splice(0)
  const timer = setTimeout(() => {}, 1)
  hook.disable()
  clearTimeout(timer)
  reporter.stop()
  t.strictSame(made, ['Timeout'], 'a timer would have been seen')
  t.strictSame(before, [])
})

t.test('rates and latencies are those of now, not since somebody looked the last time', async (t) => {
  const { registry } = await serve(t, {}, () => {})
  const reporter = new Reporter(registry)
  const first = performance.now()
  let now = first
  t.intercept(performance, 'now', { value: () => now })
  reporter.report()
  const stats = registry.stats.bind(registry)
  const metrics = registry.metrics()
  const received = metrics.messages_received_total as NumberMetric
  t.intercept(registry, 'metrics', {
    value: () => ({ ...metrics, messages_received_total: { ...received, values: [{ labels: {}, value: now - first }] } })
  })
  t.ok(stats())
  now += 2_000
  t.equal(reporter.report().receivedPerSecond > 0, true)
  now += 8 * 3_600_000
  t.match(reporter.report(), { receivedPerSecond: 0, load: 0, lagP99: 0, deliveryP99: null })
  now += 2_000
  t.equal(reporter.report().receivedPerSecond, 1_000)
})

t.test('an event that comes back after an hour is counted anew', async (t) => {
  const { registry } = await serve(t, {}, () => {})
  const reporter = new Reporter(registry)
  reporter.start()
  t.teardown(() => reporter.stop())
  let now = Date.now()
  t.intercept(Date, 'now', { value: () => now })
  const gap = (): void => channel('fastify-websocket-groups:gap').publish({
    instanceId: registry.instanceId, group: 'room', reason: 'trimmed'
  })
  gap()
  gap()
  t.match(reporter.report().events, [{ at: now, times: 2 }])
  now += 3_700_000
  gap()
  t.match(reporter.report().events, [{ at: now, times: 1 }])
})

t.test('before the first lease there is no age of one, which JSON could not say', async (t) => {
  const { registry } = await serve(t, { redis: `redis://127.0.0.1:${await freePort()}`, bootTimeoutMs: 50 }, () => {})
  t.match(new Reporter(registry).report(), { redis: { up: false, leaseAgeMs: null } })
})
