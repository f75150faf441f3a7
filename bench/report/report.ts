// Writes the tables between the markers of README.md, and the plots, from the latest results of each scenario: report.ts
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { table, type MeasuredFile } from '../results.ts'
import { plots } from './plots.ts'
import { tablesOf } from './rows.ts'

const readme = new URL('../README.md', import.meta.url)
const results = new URL('../results/', import.meta.url)
const scenarios = ['fan-out', 'small-groups', 'join-storm', 'idle', 'slow-client', 'sizes']

/** The names end with the time. */
function latest (scenario: string): string | undefined {
  return readdirSync(results).filter(name => new RegExp(`^${scenario}-\\d{4}-.*\\.json$`).test(name)).sort().at(-1)
}

function about ({ title, runs, at, args, machine, scenario }: MeasuredFile, name: string): string {
  const { cpu, cores, memoryGiB, node, redis, loadAverage, commit } = machine
  return [
    `${title[0]?.toUpperCase()}${title.slice(1)}. Medians of ${runs} ${runs === 1 ? 'run' : 'runs'}, ${at.slice(0, 10)}, commit ${commit}: \`npm run ${[scenario, ...(args.length > 0 ? ['--', ...args.map(arg => arg === '' ? "''" : arg)] : [])].join(' ')}\`.`,
    `${cpu}, ${cores} cores shared with other work (load average ${loadAverage[0]} before it began), ${memoryGiB} GiB, Node.js ${node.slice(1)}, Redis ${redis}, all on one machine. All figures: [results/${name}](results/${name}).`
  ].join('\n')
}

function section (scenario: string): string {
  const name = latest(scenario)
  if (name === undefined) return `Not measured yet: \`npm run ${scenario}\`.`
  const file = JSON.parse(readFileSync(new URL(name, results), 'utf8')) as MeasuredFile
  const drawn = Object.entries(plots[scenario] ?? {}).map(([plot, draw]) => {
    const path = `plots/${scenario}-${plot}.svg`
    const svg = draw(file)
    writeFileSync(new URL(`../${path}`, import.meta.url), svg)
    return `![${/<title>(.*)<\/title>/.exec(svg)?.[1] ?? plot}](${path})`
  })
  return [about(file, name), ...drawn, ...tablesOf(file).map(table)].join('\n\n')
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
