// run.ts <scenario> [--clients 2000] [--systems ours,socketio] [--runs 3] …
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { endAll } from './child.ts'
import { startRedis } from './redis.ts'
import { machine, save, table, type Result, type Row } from './results.ts'
import { drill } from './scenarios/drill.ts'
import { resumeHerd } from './scenarios/resume-herd.ts'
import { rolling } from './scenarios/rolling.ts'
import { parseNames, type SystemName } from './systems/system.ts'

export interface Options {
  readonly systems: readonly SystemName[]
  number (name: string, standard: number): number
  text (name: string, standard: string): string
}

const scenarios: Readonly<Record<string, (options: Options) => Promise<Result>>> = { drill, rolling, 'resume-herd': resumeHerd }

const [, , scenario = '', ...args] = process.argv
const given = new Map<string, string>()
for (let i = 0; i < args.length; i += 2) given.set(String(args[i]).replace(/^--/, ''), args[i + 1] ?? '')
const options: Options = {
  systems: parseNames(given.get('systems') ?? (scenario === 'resume-herd' ? 'ours' : undefined)),
  number: (name, standard) => Number(given.get(name) ?? standard),
  text: (name, standard) => given.get(name) ?? standard
}

const run = scenarios[scenario]
if (run === undefined) throw new Error(`which one? ${Object.keys(scenarios).join(', ')}`)
// The package is imported by its name, as an application does, and so comes from dist/.
execFileSync(process.execPath, [fileURLToPath(new URL('../scripts/build.mjs', import.meta.url)), '--if-stale'], { stdio: 'inherit' })
try {
  const redis = await startRedis()
  const about = machine(await redis.version())
  await redis.close()
  const rows: Row[] = []
  const raw = []
  let title = ''
  for (let n = 1; n <= options.number('runs', 1); n++) {
    const result = await run(options)
    title = result.title
    rows.push(...result.rows.map(row => ({ run: n, ...row })))
    raw.push(result.raw)
  }
  const file = save(scenario, { scenario, title, args, at: new Date().toISOString(), machine: about, rows, raw })
  console.log(`\n${title}\n\n${table(rows)}\n\n${file}`)
} finally {
  endAll()
}
process.exit()
