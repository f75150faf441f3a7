import type { MeasuredFile, Row } from '../results.ts'
import type { Cell, Figures } from '../rig/runs.ts'

type Column = readonly [name: string, value: (median: Figures) => string | number | undefined]

const digits = (value: number | undefined, count = 3): string | number => value === undefined || !Number.isFinite(value) ? '-' : value >= 10 ** (count - 1) ? Math.round(value) : Number(value.toPrecision(count))
const thousands = (value: number | undefined): string | number => digits(value === undefined ? undefined : value / 1e3)

const latency: Column = ['latency ms (p50 / p99 / max)', ({ p50Ms, p99Ms, maxMs }) => `${digits(p50Ms)} / ${digits(p99Ms)} / ${digits(maxMs)}`]
const complaints = ['missing', 'doubled', 'outOfOrder', 'misled', 'broken', 'refused'] as const

const delivery: readonly Column[] = [
  ['delivered, 1,000/s', ({ deliveredPerSecond }) => thousands(deliveredPerSecond)],
  ['kept up %', ({ keptUp }) => Math.min(100, Math.round((keptUp ?? 0) * 10) / 10)],
  latency,
  ['server CPU, us per delivery', ({ serverUs }) => digits(serverUs)],
  ['Redis CPU, us per message', ({ redisUsPerMessage }) => digits(redisUsPerMessage)],
  ['CPU % of a core: server', ({ serverCpu }) => Math.round(serverCpu ?? 0)],
  ['Redis', ({ redisCpu }) => Math.round(redisCpu ?? 0)],
  ['publisher', ({ publisherCpu }) => Math.round(publisherCpu ?? 0)],
  ['load generator', ({ loadCpu }) => Math.round(loadCpu ?? 0)],
  ['server lag ms (p99 / max)', ({ lagP99Ms, lagMaxMs }) => `${digits(lagP99Ms)} / ${digits(lagMaxMs)}`],
  ['server RSS, MB', ({ rssMb }) => digits(rssMb)],
  // Nearly always nothing: one column for all.
  ['wrong', median => complaints.filter(name => median[name]).map(name => `${median[name]} ${name}`).join(', ') || 'nothing']
]

const columns: Readonly<Record<string, readonly Column[]>> = { 'fan-out': delivery }

/** What tells the rows of a table apart. */
function conditionColumns (cells: readonly Cell[]): string[] {
  const all = cells.map(({ conditions }) => conditions as Readonly<Record<string, unknown>>)
  return Object.keys(all[0] ?? {}).filter(key => new Set(all.map(conditions => conditions[key])).size > 1)
}

const words: Readonly<Record<string, string>> = { clients: 'members', perSecond: 'messages/s' }

export function rowsOf ({ scenario, cells }: Pick<MeasuredFile, 'scenario' | 'cells'>): Row[] {
  const varying = conditionColumns(cells)
  return cells.map(({ title, conditions, median }) => ({
    ...Object.fromEntries(varying.map(key => [words[key] ?? key, String((conditions as Record<string, unknown>)[key])])),
    system: title,
    ...Object.fromEntries((columns[scenario] ?? []).map(([name, value]) => [name, value(median) ?? '']))
  }))
}
