import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { performance } from 'node:perf_hooks'
import type { Events } from '../../metrics/channels.ts'
import type { Description, Health, MetricsSnapshot, Registry, Stats } from '../../types.ts'
import { Change } from './change.ts'
import { signsOf } from './signs.ts'

/** How many events are kept of each kind, so that a flood at one limit does not push gaps out. */
const maxEvents = 10
const maxProblems = 10
const maxTextLength = 200
const busiestNames = 10
/** How many connections and memberships one report counts; of more, it estimates the rest. */
const maxCounted = 20_000
/** A prime: connections are visited in steps of this size, so that those counted are spread over all. */
const stride = 104_729
/** Rates and latencies since a report that is older than this are not those of now (milliseconds). */
const staleMs = 30_000
/** An event that did not happen for this long counts from one again (milliseconds). */
const quietMs = 3_600_000

/** Explains each counter of limits to somebody who does not know its name. */
const limitTexts: Readonly<Record<string, string>> = {
  refusedAddressRate: 'upgrades refused: too many from one address',
  refusedAddressFull: 'upgrades refused: one address has too many connections',
  refusedUserFull: 'upgrades refused: one user has too many connections',
  refusedInstanceFull: 'upgrades refused: this instance is full',
  refusedUpgradeRate: 'upgrades refused: too many at once',
  refusedBlocked: 'upgrades refused: blocked',
  requestsDelayed: 'requests of a client wait: too many',
  messagesRefused: 'messages of a client refused: too many, or too large',
  streamsRefused: 'streams refused: too many at once',
  groupsRefused: 'joins refused: a connection is in too many groups',
  newGroupsRefused: 'joins refused: too many new groups',
  storedBytesRefused: 'messages refused: too much stored in logs',
  pauses: 'a client is read more slowly: it sends too much, or callbacks are slow',
  stalledMessages: 'a client was closed: its large message did not go on',
  queueOverflows: 'a client was closed: it sends faster than onMessage takes messages',
  slowConsumersClosed: 'a client was closed: it reads too slowly',
  fragmentFloods: 'a client was closed: a message in too many parts'
}

export interface Event { readonly at: number, readonly text: string, readonly times: number }

/** Names, each with its number of connections. */
export type Counted = ReadonlyArray<readonly [string, number]>

interface RedisReport {
  readonly up: boolean
  readonly reconnects: number
  readonly timeouts: number
  /** `null` before the first lease. */
  readonly leaseAgeMs: number | null
}

/** What an instance reports of itself, as JSON: at most some 12 KB, however large the instance is. */
export interface Report extends Omit<Description, 'health' | 'options'>, Pick<Health, 'status' | 'since' | 'backplane' | 'problems'> {
  readonly id: string
  readonly label: string | null
  /** The time on the instance's clock, which `since`, `startedAt` and the times of events are on, too. */
  readonly now?: number | undefined
  readonly connections: number
  readonly groups: number
  readonly slow: number
  /** Bytes of the whole process. */
  readonly memory: number
  /** The busy part of the event loop's time, from 0 to 1. */
  readonly load: number
  /** In seconds, of the metric: a meter of its own would wake the process all day, though nobody looks. */
  readonly lagP99: number
  readonly receivedPerSecond: number
  readonly sentPerSecond: number
  readonly refusedPerSecond: number
  /** In seconds, like the next one; `null` if nothing was measured. */
  readonly deliveryP99: number | null
  readonly onMessageP99: number | null
  readonly redis?: RedisReport | undefined
  readonly busiest: Counted
  readonly users: Counted
  readonly events: readonly Event[]
}

/** Makes the reports of this instance for the dashboard. Measures nothing before `start`. */
export class Reporter {
  readonly #registry: Registry
  readonly #events = { gap: new Map<string, Event>(), limit: new Map<string, Event>() }
  #load = performance.eventLoopUtilization()
  #before: MetricsSnapshot | undefined
  /** The signs of the report before. */
  #signs: readonly string[] = []
  #reportedAt = 0
  #latest: Report | undefined
  readonly #gap = (event: unknown): void => {
    const { instanceId, group, reason } = event as Events['gap']
    if (instanceId === this.#registry.instanceId) this.#note('gap', `messages of ${group} are lost (${reason})`)
  }

  readonly #limit = (event: unknown): void => {
    const { instanceId, limit, connection } = event as Events['limit']
    if (instanceId !== this.#registry.instanceId) return
    const { id, userId } = connection ?? {}
    const who = userId !== undefined ? ` · user ${userId}` : id !== undefined ? ` · connection ${id}` : ''
    this.#note('limit', `${limitTexts[limit] ?? 'a limit was reached'} (${limit})${who}`)
  }

  constructor (registry: Registry) {
    this.#registry = registry
  }

  start (): void {
    subscribe('fastify-websocket-groups:gap', this.#gap)
    subscribe('fastify-websocket-groups:limit', this.#limit)
  }

  stop (): void {
    unsubscribe('fastify-websocket-groups:gap', this.#gap)
    unsubscribe('fastify-websocket-groups:limit', this.#limit)
  }

  /** Returns the latest report if it is no older than `maxAgeMs`: a second caller must not shorten the interval of the rates. */
  latest (maxAgeMs: number): Report {
    return this.#latest === undefined || performance.now() - this.#reportedAt > maxAgeMs ? this.report() : this.#latest
  }

  /** Makes a new report. Its rates and latencies are those since the report before, if that is not too old. */
  report (): Report {
    const { health, options, ...versions } = this.#registry.describe()
    const stats = this.#registry.stats()
    const metrics = this.#registry.metrics()
    const now = performance.now()
    const isStale = now - this.#reportedAt > staleMs
    const change = new Change(metrics, isStale ? undefined : this.#before, (now - this.#reportedAt) / 1_000)
    const signs = signsOf(change)
    // A sign that is gone by the next report needs nobody's attention.
    const lasting = signs.filter(sign => this.#signs.includes(sign))
    const load = performance.eventLoopUtilization()
    const report: Report = {
      id: health.instanceId,
      label: typeof options.instanceLabel === 'string' ? options.instanceLabel : null,
      ...versions,
      now: Date.now(),
      status: health.status,
      since: health.since,
      backplane: health.backplane,
      problems: [...health.problems, ...lasting].slice(0, maxProblems).map(problem => problem.slice(0, maxTextLength)),
      // Without the pages of dashboards.
      connections: this.#registry.count(),
      groups: stats.groups ?? 0,
      slow: stats.slowConnections ?? 0,
      memory: process.memoryUsage.rss(),
      load: isStale ? 0 : performance.eventLoopUtilization(load, this.#load).utilization,
      lagP99: change.p99('event_loop_lag_seconds') ?? 0,
      receivedPerSecond: change.perSecond('messages_received_total'),
      sentPerSecond: change.perSecond('frames_sent_total'),
      refusedPerSecond: change.perSecond('upgrades_refused_total'),
      deliveryP99: change.p99('publish_to_delivery_seconds'),
      onMessageP99: change.p99('on_message_duration_seconds'),
      redis: redisOf(stats),
      ...this.#busiest(),
      events: [...this.#events.gap.values(), ...this.#events.limit.values()]
    }
    this.#before = metrics
    this.#signs = signs
    this.#reportedAt = now
    this.#load = load
    this.#latest = report
    return report
  }

  /** An event that happens again moves to the end, and its count grows. */
  #note (kind: 'gap' | 'limit', whole: string): void {
    const events = this.#events[kind]
    const text = whole.slice(0, maxTextLength)
    const before = events.get(text)
    const at = Date.now()
    const times = before === undefined || at - before.at > quietMs ? 1 : before.times + 1
    events.delete(text)
    events.set(text, { at, text, times })
    const [oldest] = events.keys()
    if (events.size > maxEvents && oldest !== undefined) events.delete(oldest)
  }

  #busiest (): { readonly busiest: Counted, readonly users: Counted } {
    const connections = this.#registry.all()
    const [members, users] = [new Map<string, number>(), new Map<string, number>()]
    const count = (counts: Map<string, number>, name: string): void => { counts.set(name, (counts.get(name) ?? 0) + 1) }
    let visited = 0
    for (let counted = 0; visited < connections.length && counted < maxCounted; visited++) {
      const { groups = [], userId } = connections[visited * stride % connections.length] ?? {}
      if (userId !== undefined) count(users, userId)
      for (const group of groups) count(members, group)
      counted += 1 + groups.length
    }
    const scale = visited === 0 ? 1 : connections.length / visited
    return { busiest: most(members, scale), users: most(users, scale) }
  }
}

function redisOf ({ redisUp, redisReconnects = 0, redisTimeouts = 0, leaseAgeMs = 0 }: Stats): RedisReport | undefined {
  if (redisUp === undefined) return undefined
  const leaseAge = Number.isFinite(leaseAgeMs) ? leaseAgeMs : null
  return { up: redisUp === 1, reconnects: redisReconnects, timeouts: redisTimeouts, leaseAgeMs: leaseAge }
}

function most (counts: ReadonlyMap<string, number>, scale: number): Counted {
  return [...counts].sort(([, a], [, b]) => b - a).slice(0, busiestNames).map(([name, count]) => [name, Math.round(count * scale)])
}
