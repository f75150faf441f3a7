import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { monitorEventLoopDelay, performance } from 'node:perf_hooks'
import type { HistogramMetric, MetricsSnapshot, Registry } from '../../types.ts'

/** How many events are kept of each kind, so that a flood at one limit does not push gaps out. */
const maxEvents = 10
const busiestNames = 10
const resolutionMs = 20
/** For how many connections the groups are counted in one report. With more, every n-th connection is counted. */
const maxCounted = 5_000

interface Event { readonly at: number, readonly text: string, readonly times: number }

/** Names, each with its number of connections. */
type Counted = ReadonlyArray<readonly [string, number]>

/** Reports of this instance for the dashboard. Measures nothing before `start`. */
export class Reporter {
  readonly #registry: Registry
  /** The group of the dashboard itself, which reports leave out. */
  readonly #hidden: string
  readonly #everyMs: number
  readonly #events = { gap: new Map<string, Event>(), limit: new Map<string, Event>() }
  readonly #delay = monitorEventLoopDelay({ resolution: resolutionMs })
  #load = performance.eventLoopUtilization()
  #before: MetricsSnapshot | undefined
  #reportedAt = 0
  #latest = ''
  readonly #gap = (event: unknown): void => {
    const { group, reason } = event as { group: string, reason: string }
    this.#note('gap', `messages of ${group} are lost (${reason})`)
  }

  readonly #limit = (event: unknown): void => {
    const { limit, connection } = event as { limit: string, connection?: { id: string, userId?: string } }
    this.#note('limit', `limit ${limit}${connection === undefined ? '' : ` by ${connection.userId ?? connection.id}`}`)
  }

  constructor (registry: Registry, hidden: string, everyMs: number) {
    this.#registry = registry
    this.#hidden = hidden
    this.#everyMs = everyMs
  }

  start (): void {
    this.#delay.enable()
    subscribe('fastify-websocket-groups:gap', this.#gap)
    subscribe('fastify-websocket-groups:limit', this.#limit)
  }

  stop (): void {
    this.#delay.disable()
    unsubscribe('fastify-websocket-groups:gap', this.#gap)
    unsubscribe('fastify-websocket-groups:limit', this.#limit)
  }

  /** The latest report, unless it is older than `maxAgeMs`: another viewer must not cut short the interval that rates are measured over. */
  latest (maxAgeMs: number): string {
    return this.#latest === '' || performance.now() - this.#reportedAt > maxAgeMs ? this.report() : this.#latest
  }

  /** Rates and latencies are those since the last report. */
  report (): string {
    const { health, options, ...versions } = this.#registry.describe()
    const stats = this.#registry.stats()
    const metrics = this.#registry.metrics()
    const now = performance.now()
    const seconds = Math.max(0.001, (now - this.#reportedAt) / 1_000)
    const before = this.#before
    const perSecond = (...names: string[]): number => before === undefined
      ? 0
      : names.reduce((sum, name) => sum + total(metrics, name) - total(before, name), 0) / seconds
    const load = performance.eventLoopUtilization()
    const report = {
      id: health.instanceId,
      label: options.instanceLabel,
      everyMs: this.#everyMs,
      ...versions,
      status: health.status,
      since: health.since,
      backplane: health.backplane,
      problems: health.problems,
      connections: stats.connections ?? 0,
      groups: stats.groups ?? 0,
      slow: stats.slowConnections ?? 0,
      memory: process.memoryUsage.rss(),
      load: performance.eventLoopUtilization(load, this.#load).utilization,
      // Node measures the time between two samples, which includes the interval itself.
      lagP99: Math.max(0, this.#delay.percentile(99) / 1e9 - resolutionMs / 1_000),
      receivedPerSecond: perSecond('messages_received_total'),
      sentPerSecond: perSecond('frames_sent_total'),
      refusedPerSecond: perSecond('upgrades_refused_total'),
      deliveryP99: p99(metrics, before, 'publish_to_delivery_seconds'),
      onMessageP99: p99(metrics, before, 'on_message_duration_seconds'),
      redis: stats.redisUp === undefined
        ? undefined
        : { up: stats.redisUp, reconnects: stats.redisReconnects, timeouts: stats.redisTimeouts, leaseAgeMs: stats.leaseAgeMs },
      ...this.#busiest(),
      events: [...this.#events.gap.values(), ...this.#events.limit.values()]
    }
    this.#before = metrics
    this.#reportedAt = now
    this.#load = load
    this.#delay.reset()
    this.#latest = JSON.stringify(report)
    return this.#latest
  }

  /** An event that happens again moves to the end, and its count grows. */
  #note (kind: 'gap' | 'limit', whole: string): void {
    const events = this.#events[kind]
    const text = whole.slice(0, 200)
    const times = (events.get(text)?.times ?? 0) + 1
    events.delete(text)
    events.set(text, { at: Date.now(), text, times })
    const [oldest] = events.keys()
    if (events.size > maxEvents && oldest !== undefined) events.delete(oldest)
  }

  #busiest (): { readonly busiest: Counted, readonly users: Counted } {
    const connections = this.#registry.all()
    const step = Math.max(1, Math.ceil(connections.length / maxCounted))
    const [members, users] = [new Map<string, number>(), new Map<string, number>()]
    for (let at = 0; at < connections.length; at += step) {
      const { groups = [], userId } = connections[at] ?? {}
      if (userId !== undefined) users.set(userId, (users.get(userId) ?? 0) + step)
      for (const group of groups) {
        if (group !== this.#hidden) members.set(group, (members.get(group) ?? 0) + step)
      }
    }
    return { busiest: most(members), users: most(users) }
  }
}

function most (counts: ReadonlyMap<string, number>): Counted {
  return [...counts].sort(([, a], [, b]) => b - a).slice(0, busiestNames)
}

function total (metrics: MetricsSnapshot, name: string): number {
  const metric = metrics[name]
  return metric === undefined || metric.type === 'histogram' ? 0 : metric.values.reduce((sum, { value }) => sum + value, 0)
}

/** The bound below which 99 of 100 observations since `before` fell, in seconds; `null` without any, or before the second report. */
function p99 (metrics: MetricsSnapshot, before: MetricsSnapshot | undefined, name: string): number | null {
  const [now, then] = [metrics[name], before?.[name]] as ReadonlyArray<HistogramMetric | undefined>
  const [value, old] = [now?.values[0], then?.values[0]]
  if (now === undefined || value === undefined || old === undefined || value.count === old.count) return null
  const at = value.counts.findIndex((count, index) => count - (old.counts[index] ?? 0) >= 0.99 * (value.count - old.count))
  return now.buckets[at] ?? now.buckets.at(-1) ?? null
}
