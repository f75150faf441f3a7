import { isDeepStrictEqual } from 'node:util'
import type { MeasuredFile, Row } from '../results.ts'
import type { Cell, Figures } from '../rig/runs.ts'

type Column = readonly [name: string, value: (median: Figures) => string | number]

/** Three digits that mean something, and no fewer than the whole number. */
function digits (value: number | undefined): string | number {
  if (value === undefined || !Number.isFinite(value)) return '-'
  return Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3))
}
const of = (
  name: string, key: string, scale = 1
): Column => [name, median => digits(median[key] === undefined ? undefined : median[key] / scale)]
const percent = (name: string, key: string): Column => [name, median => Math.round((median[key] ?? 0) * 10) / 10]
const spread = (name: string, keys: readonly string[]): Column => [name, median => keys.map(key => digits(median[key])).join(' / ')]

const complaints = ['missing', 'doubled', 'outOfOrder', 'misled', 'refused'] as const
const words: Readonly<Record<string, string>> = {
  clients: 'members', perSecond: 'messages/s', outOfOrder: 'out of order', misled: 'for another group', broken: 'connections lost'
}

const delivered = of('delivered, 1,000/s', 'deliveredPerSecond', 1_000)
// The clients that never read are not meant.
const wrong: Column = ['wrong', median => {
  const broken = (median.broken ?? 0) - (median.slowBroken ?? 0)
  const found =
    [...complaints.map(name => [name, median[name] ?? 0] as const), ['broken', broken] as const].filter(([, count]) => count !== 0)
  const unfinished = median.missing === undefined ? ['did not keep up'] : []
  return [...unfinished, ...found.map(([name, count]) => `${count} ${words[name] ?? name}`)].join(', ') || 'nothing'
}]
const latency = spread('latency ms (p50 / p99 / max)', ['p50Ms', 'p99Ms', 'maxMs'])
const lag = spread('server lag ms (p99 / max)', ['lagP99Ms', 'lagMaxMs'])
const cpu = [
  of('server CPU, us per delivery', 'serverUs'),
  of('Redis CPU, us per message', 'redisUsPerMessage'),
  percent('CPU % of a core: server', 'serverCpu'),
  percent('Redis', 'redisCpu'),
  percent('publisher', 'publisherCpu'),
  percent('load generator', 'loadCpu')
]
const delivery = [delivered, percent('of what is due %', 'keptUp'), latency, ...cpu, lag, of('server RSS, MB', 'rssMb'), wrong]

const columns: Readonly<Record<string, readonly Column[]>> = {
  'fan-out': delivery,
  sizes: delivery,
  'slow-client': [...delivery.slice(0, -1), of('slow ones kept', 'slowKept'), wrong],
  'small-groups': [
    ...delivery.slice(0, -1), of('waste: bytes per message', 'wasteBytes'), of('waste: CPU us per message', 'wasteUs'), wrong
  ],
  idle: [
    of('RSS, KB per connection', 'rssKb'),
    of('heap of it, KB', 'heapKb'),
    of('in Redis, KB', 'redisKb'),
    of('server RSS in all, MB', 'rssMb'),
    of('CPU % of a core: server', 'serverCpu'),
    of('Redis', 'redisCpu'),
    of('connections opened/s', 'openedPerSecond')
  ],
  'join-storm': [
    of('joins/s', 'joinsPerSecond'),
    of('Redis commands per join', 'commandsPerJoin'),
    of('Redis CPU, us per join', 'redisUs'),
    of('server CPU, us per join', 'serverUs'),
    lag,
    of('load generator, CPU %', 'loadCpu')
  ]
}

/** What tells the rows of a table apart. */
function varying (cells: readonly Cell[]): string[] {
  const all = cells.map(({ conditions }) => conditions)
  return Object.keys(all[0] ?? {}).filter(key => new Set(all.map(conditions => conditions[key])).size > 1)
}

/** One for each curve. */
export function tablesOf ({ scenario, cells }: Pick<MeasuredFile, 'scenario' | 'cells'>): Row[][] {
  return [...new Set(cells.map(({ conditions }) => conditions.curve))].map(
    curve => rowsOf(scenario, cells.filter(({ conditions }) => conditions.curve === curve))
  )
}

function rowsOf (scenario: string, cells: readonly Cell[]): Row[] {
  const keys = varying(cells)
  return cells.map(({ title, conditions, median }) => ({
    ...Object.fromEntries(keys.map(key => [words[key] ?? key, conditions[key] ?? ''])),
    system: title,
    ...Object.fromEntries((columns[scenario] ?? []).map(([name, value]) => [name, value(median)]))
  }))
}

/** What is compared between two commits: costs, of which less is better. */
type Costs = ReadonlyArray<readonly [name: string, key: string]>
const deliveryCosts: Costs = [
  ['server CPU per delivery', 'serverUs'], ['Redis CPU per message', 'redisUsPerMessage'], ['latency p50', 'p50Ms']
]
const costs: Readonly<Record<string, Costs>> = {
  idle: [['RSS per connection', 'rssKb'], ['heap per connection', 'heapKb'], ['in Redis', 'redisKb']],
  'join-storm': [['server CPU per join', 'serverUs'], ['Redis CPU per join', 'redisUs'], ['Redis commands per join', 'commandsPerJoin']]
}

/** Which systems are compared by ratios where both were measured. */
const comparisons = [
  { from: 'ours-before', to: 'ours', label: 'after / before' },
  { from: 'ours', to: 'ours-observed', label: 'observed / not' }
] as const

/** One system as a multiple of another, a table for each pair: of the medians, and in parentheses the least and the most of a round. */
export function ratiosOf ({ scenario, cells }: Pick<MeasuredFile, 'scenario' | 'cells'>): Row[][] {
  const keys = varying(cells)
  return comparisons.map(({ from, to, label }) => cells.filter(({ system }) => system === to).flatMap(after => {
    const before = cells.find(({ system, conditions }) => system === from && isDeepStrictEqual(conditions, after.conditions))
    if (before === undefined) return []
    return [Object.fromEntries([
      ...keys.map(key => [words[key] ?? key, String(after.conditions[key] ?? '')] as const),
      ...(costs[scenario] ?? deliveryCosts).map(([name, key]) => [`${label}: ${name}`, ratio(before, after, key)] as const)
    ])]
  })).filter(rows => rows.length > 0)
}

function ratio (before: Cell, after: Cell, key: string): string {
  const of = (from: Figures | undefined, to: Figures | undefined): number => (to?.[key] ?? NaN) / (from?.[key] ?? NaN)
  // A round that failed would put the others out of step.
  const rounds = before.runs.length === after.runs.length ? after.runs.map(({ figures }, i) => of(before.runs[i]?.figures, figures)) : []
  const whole = of(before.median, after.median).toFixed(3)
  return rounds.length < 2 ? whole : `${whole} (${Math.min(...rounds).toFixed(3)} to ${Math.max(...rounds).toFixed(3)})`
}
