// run.ts <scenario> [--clients 2000] [--systems ours,socketio] [--runs 3] …
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { endAll } from './child.ts'
import { Arguments, type DrillOptions, type MeasureOptions } from './options.ts'
import { startRedis } from './redis.ts'
import { machine, save, saveMeasured, table, type Measured, type Result, type Row } from './results.ts'
import { assertLinux } from './rig/proc.ts'
import { compile } from './rig/native.ts'
import { tablesOf } from './report/rows.ts'
import { drill } from './scenarios/drill.ts'
import { fanOut } from './scenarios/fan-out.ts'
import { idle } from './scenarios/idle.ts'
import { joinStorm } from './scenarios/join-storm.ts'
import { resumeHerd } from './scenarios/resume-herd.ts'
import { rolling } from './scenarios/rolling.ts'
import { sizes } from './scenarios/sizes.ts'
import { slowClient } from './scenarios/slow-client.ts'
import { smallGroups } from './scenarios/small-groups.ts'
import { drillNames, names, parseNames } from './systems/system.ts'

const drills: Readonly<Record<string, (options: DrillOptions) => Promise<Result>>> = { drill, rolling, 'resume-herd': resumeHerd }
const measures: Readonly<Record<string, (options: MeasureOptions) => Promise<Measured>>> = {
  'fan-out': fanOut, idle, 'join-storm': joinStorm, 'small-groups': smallGroups, 'slow-client': slowClient, sizes
}

const [, , scenario = '', ...args] = process.argv
const given = new Arguments(args)

async function runDrill (run: (options: DrillOptions) => Promise<Result>, about: ReturnType<typeof machine>): Promise<void> {
  const systems = parseNames(given.get('systems') ?? (scenario === 'resume-herd' ? 'ours' : undefined), drillNames)
  const rows: Row[] = []
  const raw = []
  let title = ''
  for (let n = 1; n <= given.number('runs', 1); n++) {
    const result = await run({ ...given, systems })
    title = result.title
    rows.push(...result.rows.map(row => ({ run: n, ...row })))
    raw.push(result.raw)
  }
  const file = save(scenario, { scenario, title, args, at: new Date().toISOString(), machine: about, rows, raw })
  console.log(`\n${title}\n\n${table(rows)}\n\n${file}`)
}

async function runMeasure (run: (options: MeasureOptions) => Promise<Measured>, about: ReturnType<typeof machine>): Promise<void> {
  assertLinux()
  compile('load')
  const runs = given.number('runs', 5)
  const asked = given.get('systems')
  const measured = await run({ ...given, runs, systems: standard => asked === undefined ? standard : parseNames(asked, names) })
  const content = { scenario, args, at: new Date().toISOString(), runs, machine: about, ...measured }
  const file = saveMeasured(content)
  console.log(`\n${measured.title}; medians of ${runs}\n\n${tablesOf(content).map(table).join('\n\n')}\n\n${file}`)
}

const [runOne, runMany] = [drills[scenario], measures[scenario]]
if (runOne === undefined && runMany === undefined) throw new Error(`which one? ${[...Object.keys(drills), ...Object.keys(measures)].join(', ')}`)
// The package is imported by its name, as an application does, and so comes from dist/.
execFileSync(process.execPath, [fileURLToPath(new URL('../scripts/build.mjs', import.meta.url)), '--if-stale'], { stdio: 'inherit' })
try {
  const redis = await startRedis()
  const about = machine(await redis.version())
  await redis.close()
  if (runOne !== undefined) await runDrill(runOne, about)
  if (runMany !== undefined) await runMeasure(runMany, about)
} finally {
  endAll()
}
process.exit()
