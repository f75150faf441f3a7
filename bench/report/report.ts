// Writes the tables between the markers of README.md, and the plots, from the latest results of each scenario and its arguments: report.ts
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { table, type DrillFile, type MeasuredFile } from '../results.ts'
import { plots } from './plots.ts'
import { tablesOf } from './rows.ts'

const readme = new URL('../README.md', import.meta.url)
const results = new URL('../results/', import.meta.url)
const scenarios = [
  'fan-out', 'small-groups', 'join-storm', 'idle', 'slow-client', 'sizes', 'drill', 'rolling', 'rolling-drain',
  'resume-herd'
]

interface ResultFile {
  readonly name: string
  readonly content: MeasuredFile | DrillFile
}

/**
 * The latest of each set of arguments, that with the most rows first, or else the newest. The names end with the time.
 * Comparisons of two commits are left out: they are about one change.
 */
function latest (scenario: string): ResultFile[] {
  const byArguments = new Map<string, ResultFile>()
  for (const name of readdirSync(results).filter(name => new RegExp(`^${scenario}-\\d{4}-.*\\.json$`).test(name)).sort()) {
    const content = JSON.parse(readFileSync(new URL(name, results), 'utf8')) as MeasuredFile | DrillFile
    if (!('before' in content)) byArguments.set(JSON.stringify(content.args), { name, content })
  }
  return [...byArguments.values()].sort((a, b) => rowsIn(b) - rowsIn(a) || b.name.localeCompare(a.name))
}

function rowsIn ({ content }: ResultFile): number {
  return 'cells' in content ? content.cells.length : content.rows.length
}

function about ({ name, content }: ResultFile): string {
  const { title, at, args, machine, scenario } = content
  const { cpu, cores, memoryGiB, node, redis, loadAverage, commit } = machine
  const runs = 'cells' in content ? ` Medians of ${content.runs} ${content.runs === 1 ? 'run' : 'runs'},` : ''
  const command = ['npm run', scenario, ...(args.length > 0 ? ['--', ...args.map(arg => arg === '' ? "''" : arg)] : [])].join(' ')
  return [
    `${title[0]?.toUpperCase()}${title.slice(1)}.${runs} ${at.slice(0, 10)}, commit ${commit}:`,
    `\`${command}\`.`,
    `${cpu}, ${cores} cores (load average ${loadAverage[0]} before it began), ${memoryGiB} GiB, Node.js ${node.slice(1)}, ` +
      `Redis ${redis}, all on one machine. All figures: \`results/${name}\`.`
  ].map(wrapped).join('\n')
}

/** Breaks a text into lines of at most 120 characters, as the docs have. */
function wrapped (text: string): string {
  return text.replace(/(.{1,120})(?: |$)/g, '$1\n').trimEnd()
}

function drawn (scenario: string, file: MeasuredFile): string[] {
  return Object.entries(plots[scenario] ?? {}).map(([plot, draw]) => {
    const path = `plots/${scenario}-${plot}.svg`
    const svg = draw(file)
    writeFileSync(new URL(`../${path}`, import.meta.url), svg)
    return `![${/<title>(.*)<\/title>/.exec(svg)?.[1] ?? plot}](${path})`
  })
}

function section (scenario: string): string {
  const files = latest(scenario)
  if (files.length === 0) return `Not measured yet: \`npm run ${scenario}\`.`
  return files.flatMap((file, i) => {
    const { content } = file
    if (!('cells' in content)) return [about(file), table(content.rows)]
    return [about(file), ...(i === 0 ? drawn(scenario, content) : []), ...tablesOf(content).map(table)]
  }).join('\n\n')
}

mkdirSync(new URL('../plots/', import.meta.url), { recursive: true })
let text = readFileSync(readme, 'utf8')
for (const scenario of scenarios) {
  const [begin, end] = [`<!-- ${scenario}: begin -->`, `<!-- ${scenario}: end -->`]
  const [from, to] = [text.indexOf(begin), text.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`README.md lacks ${begin} … ${end}`)
  text = `${text.slice(0, from + begin.length)}\n${section(scenario)}\n${text.slice(to)}`
}
writeFileSync(readme, text)
