import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { cpus, loadavg, totalmem } from 'node:os'
import type { Report } from './rig/cluster.ts'
import type { Cell } from './rig/runs.ts'

export type Row = Readonly<Record<string, string | number>>

export interface Result {
  readonly title: string
  readonly rows: readonly Row[]
  /** Kept in the file beside the rows. */
  readonly raw: unknown
}

export interface Measured {
  readonly title: string
  readonly cells: readonly Cell[]
}

/** What is in the file of a scenario that measures costs. */
export interface MeasuredFile extends Measured {
  readonly scenario: string
  readonly args: readonly string[]
  readonly at: string
  readonly runs: number
  readonly machine: Machine
  /** The commit of the other checkout, when two were compared. */
  readonly before?: string | undefined
}

/** What is in the file of a drill. */
export interface DrillFile extends Omit<Result, 'raw'> {
  readonly scenario: string
  readonly args: readonly string[]
  readonly at: string
  readonly machine: Machine
}

/** The part of a row that is the same in every scenario. */
export function deliveries (report: Report): Row {
  return {
    sent: report.sent,
    due: report.due,
    'delivered %': Math.floor(report.delivered / report.due * 1e4) / 100,
    lost: report.due - report.delivered,
    doubled: report.doubled,
    'out of order': report.outOfOrder,
    'signals of loss': report.signals,
    // By clients that were never told.
    'lost silently': report.lostSilently,
    breaks: report.breaks
  }
}

export interface Checkout {
  readonly folder: string
  /** `undefined` when the folder is no checkout. */
  readonly commit: string | undefined
  /** Nothing that is measured differs from the commit. */
  readonly clean: boolean
}

/** What of this package lies in a folder. What the bench itself writes there does not count as a change. */
export function checkout (folder: string): Checkout {
  const git = (...args: string[]): string =>
    execFileSync('git', ['-C', folder, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  try {
    const clean = git('status', '--porcelain', '--', '.', ...written.map(path => `:!bench/${path}`)) === ''
    return { folder, commit: git('rev-parse', '--short', 'HEAD') + (clean ? '' : ', changed'), clean }
  } catch {
    return { folder, commit: undefined, clean: false }
  }
}
const written = ['results', 'plots', 'README.md']

export type Machine = ReturnType<typeof machine>

export function machine (redis: string, { commit, clean }: Pick<Checkout, 'commit' | 'clean'> = { commit: undefined, clean: false }) {
  return {
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    node: process.version,
    redis,
    loadAverage: loadavg().map(load => Number(load.toFixed(1))),
    commit,
    clean,
    packages: (JSON.parse(readFileSync(new URL('package.json', import.meta.url), 'utf8')) as { dependencies: object }).dependencies
  }
}

/** As Markdown; columns of numbers to the right. */
export function table (rows: readonly Row[]): string {
  const names = [...new Set(rows.flatMap(row => Object.keys(row)))]
  const columns = names.map(name => {
    const cells = [name, ...rows.map(row => String(row[name] ?? ''))]
    const width = Math.max(...cells.map(cell => cell.length), 4)
    const right = rows.every(row => typeof row[name] === 'number')
    const [head = '', ...rest] = cells.map(cell => right ? cell.padStart(width) : cell.padEnd(width))
    return [head, right ? `${'-'.repeat(width - 1)}:` : '-'.repeat(width), ...rest]
  })
  return Array.from({ length: rows.length + 2 }, (_, i) => `| ${columns.map(column => column[i]).join(' | ')} |`).join('\n')
}

/** Returns the name of the file. */
export function save (scenario: string, content: object): string {
  return write(scenario, JSON.stringify(content, undefined, 2))
}

/** The same, with a line for each median and each run. */
export function saveMeasured ({ cells, ...about }: MeasuredFile): string {
  const lines = cells.map(({ runs, ...cell }) => {
    const each = runs.map(run => JSON.stringify(run, rounded)).join(',\n')
    return `${JSON.stringify(cell, rounded).slice(0, -1)},"runs":[\n${each}\n]}`
  })
  return write(about.scenario, `${JSON.stringify(about).slice(0, -1)},"cells":[\n${lines.join(',\n')}\n]}`)
}

function write (scenario: string, json: string): string {
  const name = `results/${scenario}-${new Date().toISOString().slice(0, 19).replaceAll(':', '')}.json`
  mkdirSync(new URL('results/', import.meta.url), { recursive: true })
  writeFileSync(new URL(name, import.meta.url), `${json}\n`)
  return name
}

/** Five digits are more than any of this is exact to; whole numbers stay as they are. */
function rounded (_: string, value: unknown): unknown {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(5)) : value
}
