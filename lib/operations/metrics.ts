import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { checkOptions, property, type Rule } from '../options/rules.ts'
import type {} from '../route-types.ts'
import type { Metric, MetricsSnapshot, MetricType } from '../types.ts'
import { contentType, defaultNamePrefix, exposition, samplesOf, type Sample } from './exposition.ts'

/** The part of a prom-client `Registry` that this plugin uses. */
export interface PrometheusRegister {
  registerMetric (metric: never): void
  removeSingleMetric (name: string): void
}

export interface GroupsMetricsOptions {
  /**
   * A registry of prom-client that gets the metrics, such as `app.metrics.client.register` of fastify-metrics. Left out: the plugin adds a
   * route of its own, and needs no other package.
   */
  readonly register?: PrometheusRegister | undefined
  /** The path of that route. `false`: no route. @default '/metrics', and `false` with `register` */
  readonly endpoint?: string | false | undefined
  /** Starts the name of every metric. @default 'websocket_groups_' */
  readonly namePrefix?: string | undefined
}

const rules = {
  register: {
    allowed: 'a Registry of prom-client',
    accepts: value => typeof property(value, 'registerMetric') === 'function' && typeof property(value, 'removeSingleMetric') === 'function'
  },
  endpoint: { allowed: 'a path or false', accepts: value => value === false || (typeof value === 'string' && value.startsWith('/')) },
  namePrefix: { allowed: 'letters, digits and underscores', accepts: value => typeof value === 'string' && /^[a-zA-Z_]\w*$/.test(value) }
} as const satisfies Record<keyof GroupsMetricsOptions, Rule>

/** A metric in the form that registries of prom-client take: they call `get` for each scrape, and read the name and the type. */
class Collected {
  /** Writable: for OpenMetrics, prom-client takes `_total` off the name and adds it to the samples. */
  name: string
  readonly help: string
  readonly type: MetricType
  readonly aggregator = 'sum'
  readonly #current: () => Metric | undefined

  constructor (name: string, { help, type }: Metric, current: () => Metric | undefined) {
    this.name = name
    this.help = help
    this.type = type
    this.#current = current
  }

  async get (): Promise<{ name: string, help: string, type: MetricType, aggregator: string, values: readonly Sample[] }> {
    const { name, help, type, aggregator } = this
    const metric = this.#current()
    return { name, help, type, aggregator, values: metric === undefined ? [] : samplesOf(name, metric) }
  }

  /** Does nothing: the counters are the plugin's, which never resets them. */
  reset (): void {}
}

async function groupsMetrics (app: FastifyInstance, options: GroupsMetricsOptions): Promise<void> {
  checkOptions(options, rules, 'groupsMetrics.', ['prefix', 'logLevel', 'logSerializers'])
  const { register, namePrefix = defaultNamePrefix, endpoint = register === undefined ? '/metrics' : false } = options
  if (endpoint !== false) {
    app.get(endpoint, { logLevel: 'warn' }, async (_request, reply) => {
      return await reply.type(contentType).header('cache-control', 'no-store').send(exposition(app.registry.metrics(), namePrefix))
    })
  }
  if (register === undefined) return

  let snapshot: MetricsSnapshot | undefined
  /** Makes one snapshot for all metrics of a scrape, which are read within one microtask. */
  const current = (): MetricsSnapshot => {
    if (snapshot === undefined) queueMicrotask(() => { snapshot = undefined })
    return (snapshot ??= app.registry.metrics())
  }
  const names: string[] = []
  // Which metrics there are depends on the backplane, so wait until it is started.
  app.addHook('onReady', async () => {
    for (const [short, metric] of Object.entries(app.registry.metrics())) {
      register.registerMetric(new Collected(namePrefix + short, metric, () => current()[short]) as never)
      names.push(namePrefix + short)
    }
  })
  app.addHook('onClose', async () => { for (const name of names) register.removeSingleMetric(name) })
}

/** Exposes `registry.metrics()` by Prometheus's conventions: on a route, or through a registry of prom-client. */
export default fp(groupsMetrics, {
  fastify: '5.x', name: 'fastify-websocket-groups-metrics', dependencies: ['fastify-websocket-groups'], encapsulate: true
})
