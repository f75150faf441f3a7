import t from 'tap'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Registry } from 'prom-client'
import groupsMetrics from '../../lib/operations/metrics.ts'
import { redisCluster } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const page = (name: string): string => readFileSync(join(import.meta.dirname, '..', '..', 'docs', name), 'utf8')
const register = new Registry()

interface Target { readonly refId: string, readonly expr: string }
interface Dashboard { readonly panels: ReadonlyArray<{ readonly id: number, readonly title: string, readonly targets: readonly Target[] }> }

/** The names that an instance on Redis exposes, with the suffixes of histograms, and their labels. */
const cluster = await redisCluster(t, undefined, { routes: app => { void app.register(groupsMetrics, { register }) } })
const instance = await cluster.start()
const { client } = await instance.enter('lobby')
await client.close()
await until(() => instance.registry.stats().connectionsClosed === 1)
const exposed = new Map<string, ReadonlySet<string>>()
interface Json { readonly name: string, readonly type: unknown, readonly values?: ReadonlyArray<{ readonly labels: object }> }
for (const { name, type, values = [] } of await register.getMetricsAsJSON() as readonly Json[]) {
  const labels = new Set(values.flatMap(({ labels }) => Object.keys(labels)))
  const names = String(type) === 'histogram' ? ['_bucket', '_sum', '_count'].map(suffix => name + suffix) : [name]
  for (const one of names) exposed.set(one, labels)
}

/** What an expression asks for that nobody exposes. */
function unknown (expr: string): string[] {
  const names: readonly string[] = expr.match(/websocket_groups_\w+/g) ?? []
  const labels = [...expr.matchAll(/by \(([\w, ]+)\)/g)].flatMap(([, list = '']) => list.split(', '))
  const known = new Set(['instance', 'job', ...names.flatMap(name => [...exposed.get(name) ?? []])])
  return [
    ...names.filter(name => !exposed.has(name)), ...labels.filter(label => !known.has(label)), ...names.length === 0 ? ['nothing'] : []
  ]
}

t.test('the dashboard for Grafana asks for metrics that there are', async (t) => {
  const { panels } = JSON.parse(page('grafana-dashboard.json')) as Dashboard
  t.ok(panels.length > 10)
  t.equal(new Set(panels.map(({ id }) => id)).size, panels.length)
  for (const { title, targets } of panels) t.strictSame(targets.flatMap(({ expr }) => unknown(expr)), [], title)
})

t.test('the alerts ask for metrics that there are', async (t) => {
  const expressions = [...page('operations.md').matchAll(/^ *expr: (.*)$/gm)].map(([, expr = '']) => expr)
  t.ok(expressions.length > 5)
  for (const expr of expressions) t.strictSame(unknown(expr), [], expr)
})

t.test('the check finds what it looks for', async (t) => {
  t.strictSame(unknown('sum by (group) (rate(websocket_groups_no_such_total[5m]))'), ['websocket_groups_no_such_total', 'group'])
  t.strictSame(unknown('up'), ['nothing'])
})
