// run.ts <scenario> [--clients 2000] [--systems ours,socketio] [--runs 3] [--before ../../another-checkout] [--dirty keep] …
import { execFileSync } from 'node:child_process'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Arguments, type DrillOptions, type MeasureOptions } from './options.ts'
import { ratiosOf, tablesOf } from './report/rows.ts'
import {
  checkout, machine, save, saveMeasured, table, type Checkout, type Machine, type Measured, type Result, type Row
} from './results.ts'
import { endAll } from './rig/child.ts'
import { compile } from './rig/native.ts'
import { assertLinux } from './rig/proc.ts'
import { startRedis } from './rig/redis.ts'
import { beat } from './scenarios/beat.ts'
import { cluster } from './scenarios/cluster.ts'
import { controlPlane } from './scenarios/control-plane.ts'
import { drill } from './scenarios/drill.ts'
import { fanOut } from './scenarios/fan-out.ts'
import { idle } from './scenarios/idle.ts'
import { joinStorm } from './scenarios/join-storm.ts'
import { joins } from './scenarios/joins.ts'
import { logCost } from './scenarios/log-cost.ts'
import { logRepair } from './scenarios/log-repair.ts'
import { observing } from './scenarios/observing.ts'
import { resumeHerd } from './scenarios/resume-herd.ts'
import { rolling } from './scenarios/rolling.ts'
import { rollingDrain } from './scenarios/rolling-drain.ts'
import { sizes } from './scenarios/sizes.ts'
import { slowClient } from './scenarios/slow-client.ts'
import { slowLink } from './scenarios/slow-link.ts'
import { smallGroups } from './scenarios/small-groups.ts'
import { streams } from './scenarios/streams.ts'
import { typed } from './scenarios/typed.ts'
import { drillNames, names, parseNames, type DrillName, type Name } from './systems/system.ts'

const drills: Readonly<Record<string, (options: DrillOptions) => Promise<Result>>> = {
  drill,
  rolling,
  'rolling-drain': rollingDrain,
  'resume-herd': resumeHerd,
  'log-cost': logCost,
  'log-repair': logRepair,
  beat,
  observing,
  joins,
  'slow-link': slowLink,
  cluster,
  'control-plane': controlPlane,
  streams,
  typed
}
const measures: Readonly<Record<string, (options: MeasureOptions) => Promise<Measured>>> = {
  'fan-out': fanOut, idle, 'join-storm': joinStorm, 'small-groups': smallGroups, 'slow-client': slowClient, sizes
}
/** Drills that other systems have no counterpart of, or are not compared in unless asked for. */
const alone: readonly string[] = [
  'rolling-drain', 'resume-herd', 'log-cost', 'log-repair', 'beat', 'observing', 'joins', 'slow-link', 'cluster',
  'control-plane', 'streams', 'typed'
]

const root = fileURLToPath(new URL('..', import.meta.url))
const [, , scenario = '', ...args] = process.argv
const given = new Arguments(args)
const before = given.get('before') === undefined ? undefined : resolve(given.text('before', ''))

/** Figures are kept for what anybody can check out again. `--dirty print` keeps none, `--dirty keep` says it in the file. */
function isKept (...checkouts: readonly Checkout[]): boolean {
  const dirty = given.get('dirty')
  if (dirty !== undefined && dirty !== 'keep' && dirty !== 'print') throw new Error(`--dirty is keep or print, not ${dirty}`)
  const changed = checkouts.filter(({ clean }) => !clean)
  if (changed.length > 0 && dirty === undefined) {
    throw new Error(`${changed.map(({ folder }) => folder).join(' and ')}: not a commit, or changed since. Commit what is measured, ` +
      'or pass --dirty print (keeps no results) or --dirty keep (keeps results that say so)')
  }
  return dirty !== 'print'
}

/** The package is imported by its name, as an application does, and so comes from dist/. */
function build (folder: string): void {
  execFileSync(process.execPath, [join(folder, 'scripts', 'build.mjs'), '--if-stale'], { stdio: 'inherit' })
}

interface About { readonly machine: Machine, readonly before?: string | undefined }

/** What was given. Where the other checkout lies says nothing; its commit does. */
const argsOf = ({ before: commit = 'no commit' }: About): string[] => args.map((arg, i) => args[i - 1] === '--before' ? commit : arg)

async function runDrill (run: (options: DrillOptions) => Promise<Result>, about: About, keep: boolean): Promise<void> {
  const systems: DrillName[] = parseNames(given.get('systems') ?? (alone.includes(scenario) ? 'ours' : undefined), drillNames)
  const rows: Row[] = []
  const raw = []
  let title = ''
  for (let n = 1; n <= given.number('runs', 1); n++) {
    const result = await run({ ...given, systems })
    title = result.title
    rows.push(...result.rows.map(row => ({ run: n, ...row })))
    raw.push(result.raw)
  }
  const content = { scenario, title, args: argsOf(about), at: new Date().toISOString(), ...about, rows, raw }
  console.log(`\n${title}\n\n${table(rows)}\n\n${keep ? save(scenario, content) : 'not kept'}`)
}

async function runMeasure (run: (options: MeasureOptions) => Promise<Measured>, about: About, keep: boolean): Promise<void> {
  assertLinux()
  compile('load')
  const runs = given.number('runs', 5)
  const asked = given.get('systems') ?? (before === undefined ? undefined : 'ours-before,ours')
  const systems = (standard: readonly Name[]): readonly Name[] => asked === undefined ? standard : parseNames(asked, names)
  if (before === undefined && systems([]).includes('ours-before')) throw new Error('ours-before needs --before <another checkout>')
  const measured = await run({ ...given, runs, systems })
  const content = { scenario, args: argsOf(about), at: new Date().toISOString(), runs, ...about, ...measured }
  const tables = [...tablesOf(content), ...ratiosOf(content)]
  const kept = keep ? saveMeasured(content) : 'not kept'
  console.log(`\n${measured.title}; medians of ${runs}\n\n${tables.map(table).join('\n\n')}\n\n${kept}`)
}

const [runOne, runMany] = [drills[scenario], measures[scenario]]
if (runOne === undefined && runMany === undefined) {
  throw new Error(`which one? ${[...Object.keys(drills), ...Object.keys(measures)].join(', ')}`)
}
const checkouts = [root, ...(before === undefined ? [] : [before])].map(checkout)
const keep = isKept(...checkouts)
for (const { folder } of checkouts) build(folder)
if (before !== undefined) process.env.BENCH_BEFORE = before
try {
  const redis = await startRedis()
  const [own, other] = checkouts
  const about = { machine: machine(await redis.version(), own), ...(other === undefined ? {} : { before: other.commit }) }
  await redis.close()
  if (runOne !== undefined) await runDrill(runOne, about, keep)
  if (runMany !== undefined) await runMeasure(runMany, about, keep)
} finally {
  endAll()
}
process.exit()
