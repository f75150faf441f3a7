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
/** Each name with its kind and its labels, and what values these have. */
const exposed = new Map<string, { readonly type: string, readonly labels: ReadonlyMap<string, ReadonlySet<string>> }>()
interface Json { readonly name: string, readonly type: unknown, readonly values?: ReadonlyArray<{ readonly labels: object }> }
for (const { name, type, values = [] } of await register.getMetricsAsJSON() as readonly Json[]) {
  const labels = new Map<string, Set<string>>()
  for (const [label, value] of values.flatMap(({ labels }) => Object.entries(labels))) {
    labels.set(label, (labels.get(label) ?? new Set()).add(String(value)))
  }
  const names = String(type) === 'histogram' ? ['_bucket', '_sum', '_count'].map(suffix => name + suffix) : [name]
  for (const one of names) exposed.set(one, { type: String(type), labels })
}
/** Labels whose values are all there from the beginning. */
const enumerated = ['limit', 'reason', 'what', 'decision', 'direction']

/** What is wrong with an expression: what nobody exposes, and what Prometheus, or a linter of rules, would refuse. */
function faults (expr: string): string[] {
  const names: readonly string[] = expr.match(/websocket_groups_\w+/g) ?? []
  const grouped = [...expr.matchAll(/by \(([\w, ]+)\)/g)].flatMap(([, list = '']) => list.split(', '))
  const known = new Set(['instance', 'job', ...names.flatMap(name => [...exposed.get(name)?.labels.keys() ?? []])])
  const matched = [...expr.matchAll(/(websocket_groups_\w+)\{([^}]*)\}/g)].flatMap(([, name = '', list = '']) => {
    return [...list.matchAll(/(\w+)(=~|!~|!=|=)"([^"]*)"/g)].flatMap(([, label = '', , value = '']) => {
      // Those that Prometheus adds.
      if (label === 'instance' || label === 'job') return []
      const values = exposed.get(name)?.labels.get(label)
      if (values === undefined) return [`${name} has no label ${label}`]
      return !enumerated.includes(label) ? [] : value.split('|').filter(one => !values.has(one)).map(one => `no ${label} is ${one}`)
    })
  })
  // The rate of a gauge, and a counter that is compared as it stands, are what such rules are usually wrong in.
  const rates = expr.matchAll(/\b(?:rate|increase)\((\w+)(?:\{[^}]*\})?\[(?:\d+[smh]|\$__rate_interval)\]\)/g)
  const rated = new Set(Array.from(rates, ([, name = '']) => name))
  const kinds = names.filter(name => exposed.has(name) && rated.has(name) === (exposed.get(name)?.type === 'gauge'))
  const isQuantile = expr.includes('histogram_quantile(')
  return [
    ...names.filter(name => !exposed.has(name)),
    ...grouped.filter(label => !known.has(label)),
    ...matched,
    ...kinds.map(name => `${name} is a ${exposed.get(name)?.type ?? ''}`),
    ...isQuantile && !grouped.includes('le') ? ['a quantile without le'] : [],
    ...isBalanced(expr) ? [] : ['a parenthesis is missing'],
    ...names.length === 0 ? ['nothing'] : []
  ]
}

function isBalanced (expr: string): boolean {
  let depth = 0
  for (const char of expr) {
    if (char === '(') depth++
    if (char === ')' && --depth < 0) return false
  }
  return depth === 0
}

t.test('the dashboard for Grafana asks for metrics that there are', async (t) => {
  const { panels } = JSON.parse(page('grafana-dashboard.json')) as Dashboard
  t.ok(panels.length > 10)
  t.equal(new Set(panels.map(({ id }) => id)).size, panels.length)
  for (const { title, targets } of panels) t.strictSame(targets.flatMap(({ expr }) => faults(expr)), [], title)
})

t.test('the alerts ask for metrics that there are', async (t) => {
  const [, folded = ''] = /^```yaml\n(groups:.*?)^```$/ms.exec(page('operations.md')) ?? []
  const yaml = folded.replace(/^( +)(\w+): >-\n((?:\1 {2}\S.*\n)+)/gm, (_, indent: string, key: string, lines: string) => {
    const text = lines.trim().replace(/\n +/g, ' ')
    return `${indent}${key}: ${key === 'summary' ? `'${text}'` : text}\n`
  })
  const rules = [...yaml.matchAll(/^ {6}- alert: (\w+)\n {8}expr: (.*)\n((?: {8}.*\n)*)/gm)]
  t.equal(rules.length, yaml.match(/alert:/g)?.length)
  t.ok(rules.length > 8)
  t.equal(new Set(rules.map(([, name]) => name)).size, rules.length)
  for (const [, name = '', expr = '', rest = ''] of rules) {
    t.strictSame(faults(expr), [], name)
    // What Prometheus takes beside the expression, with its durations.
    t.match(rest, /^(?: {8}for: \d+[smh]\n)?(?: {8}annotations:\n {10}summary: '[^']+'\n)?$/, name)
  }
})

t.test('the check finds what it looks for', async (t) => {
  t.strictSame(faults('sum by (group) (rate(websocket_groups_no_such_total[5m]))'), ['websocket_groups_no_such_total', 'group'])
  t.strictSame(faults('up'), ['nothing'])
  t.strictSame(faults('rate(websocket_groups_limit_hits_total{limit="none"}[5m])'), ['no limit is none'])
  t.strictSame(faults('websocket_groups_connections{code="1"}'), ['websocket_groups_connections has no label code'])
  t.strictSame(faults('rate(websocket_groups_connections[5m]'), ['a parenthesis is missing'])
  t.strictSame(faults('rate(websocket_groups_connections[5m])'), ['websocket_groups_connections is a gauge'])
  t.strictSame(faults('websocket_groups_gaps_total > 0'), ['websocket_groups_gaps_total is a counter'])
  const quantile = 'histogram_quantile(0.9, sum by (instance) (rate(websocket_groups_queue_wait_seconds_bucket[5m])))'
  t.strictSame(faults(quantile), ['a quantile without le'])
})
