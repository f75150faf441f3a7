// What `npm test` runs: builds dist/ when it is stale, finds a Redis and a browser, runs tap and prints one line a file,
// everything about the files that failed, the slowest files, and as the very last line the totals:
//
//   128 passed, 0 failed
//   128 passed, 0 failed, 2 skipped
//
// Arguments go to tap; a folder stands for the tests in it: npm test -- test/unit --jobs=1
// With CI set, a skipped test fails: there, the browser and the proxy have to be installed.
import { spawn } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { browserBinary } from './browser-binary.mjs'
import { build } from './build.mjs'
import { redisBinary } from './redis-binary.mjs'
import { buildTestPrograms } from './test-programs.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')

/** Most files wait more than they compute: for a lease to run out, for a link to come back. */
const jobs = 3 * availableParallelism()
/** These files wait most. Two calls of tap at the same time, one for them and one for the rest, keep all cores busy until the end. */
const waiting = /^test[/\\]faults[/\\]/

function finish ({ passed = 0, failed = 0, skipped = 0 }) {
  if (process.env.CI && skipped > 0) {
    console.log('\nA skipped test fails where CI is set.')
    failed += skipped
    skipped = 0
  }
  console.log(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
  process.exitCode = failed > 0 ? 1 : 0
}

async function prepare () {
  // The example and the packaging tests import the package by its own name, and so get dist/.
  await build({ ifStale: true })
  const env = { ...process.env, CHROMIUM_BIN: browserBinary() ?? '', TEST_PROGRAMS: await buildTestPrograms(root) }
  try {
    env.REDIS_SERVER_BIN = redisBinary()
  } catch (err) {
    if (!env.REDIS_URL) throw err
    console.error(`${err.message} Only the tests that are content with REDIS_URL can pass.`)
  }
  if (!env.CHROMIUM_BIN) console.error('No Chromium on PATH and no CHROMIUM_BIN: the browser tests are skipped.')
  return env
}

/**
 * Reads tap's raw report. Per file: the nested lines, then at the margin `ok 3 - test/x.test.ts # time=…`.
 * tap's own totals leave out a file that was killed, timed out, or failed before its first assertion: those count as one failure.
 */
function reader () {
  let block = []
  let silentFailures = 0
  const times = []
  let totals = ''
  let inDiagnostics = false // the YAML that follows a failed file at the margin
  return {
    line (line) {
      const file = /^(not )?ok \d+(?: - (.*?))?(?: # (.*))?$/.exec(line)
      if (file) {
        const [, bad, name, note] = file
        console.log(
          `${bad ? 'FAIL' : /^SKIP/i.test(note ?? '') ? 'skip' : 'ok  '}  ${name}${note ? `  (${note.replace(/^time=/, '')})` : ''}`
        )
        times.push([Number(/^time=([\d.]+)ms/.exec(note ?? '')?.[1] ?? 0), name])
        if (bad) {
          if (!block.some(nested => /^\s+not ok /.test(nested) && !/# (TODO|SKIP)/i.test(nested))) silentFailures++
          for (const nested of block) if (!/^\s*(ok \d|\d+\.\.\d+|$)/.test(nested)) console.log(nested)
        } else {
          for (const nested of block) if (/# (SKIP|TODO)/i.test(nested)) console.log(`        ${nested.trim()}`)
        }
        block = []
      } else if (line.startsWith('# {')) {
        totals = line
      } else if (/^(# Subtest: |TAP version |\d+\.\.\d+$|# time=)/.test(line)) {
        // tells nothing that the line of the file does not tell
      } else if (/^ {2}(---|\.\.\.)$/.test(line) || inDiagnostics || totals || /^(#|Bail out)/.test(line)) {
        if (/^ {2}(---|\.\.\.)$/.test(line)) inDiagnostics = line.endsWith('---')
        // print how a failed file ended, but not its command line and environment
        else if (!inDiagnostics || /^ {2}(exitCode|signal|failure|expired|timeout|error|reason):/.test(line)) console.log(line)
      } else {
        block.push(line)
      }
    },
    totals (exitCode) {
      for (const line of block) console.log(line) // a file that never ended
      const count = name => Number(new RegExp(`\\b${name}: (\\d+)`).exec(totals)?.[1] ?? 0)
      const passed = count('pass')
      const failed = count('fail') + silentFailures
      return {
        passed,
        failed: failed === 0 && (exitCode !== 0 || passed === 0) ? 1 : failed,
        skipped: count('skip') + count('todo'),
        times
      }
    }
  }
}

function testsIn (folder) {
  return readdirSync(folder, { recursive: true }).filter(name => name.endsWith('.test.ts')).sort().map(name => join(folder, name))
}

/** tap would run every file of a folder that it is given, helpers too. */
function filesOf (names) {
  return (names.length > 0 ? names : [join(root, 'test')])
    .flatMap(name => statSync(name, { throwIfNoEntry: false })?.isDirectory() ? testsIn(name) : [name]).map(file => relative(root, file))
}

/** One call of tap. Resolves with its totals. */
async function runTap (env, args) {
  const report = reader()
  const tap = spawn(process.execPath, [join(root, 'node_modules', 'tap', 'dist', 'esm', 'run.mjs'), 'run', '--reporter=tap', ...args], {
    cwd: root, env, stdio: ['ignore', 'pipe', 'inherit']
  })
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => tap.kill(signal))
  const ended = new Promise((resolve, reject) => tap.on('error', reject).on('close', resolve))
  // The output does not tell where the checkout is.
  for await (const line of createInterface({ input: tap.stdout })) report.line(line.replaceAll(root, '.'))
  return report.totals(await ended)
}

async function run (env, args) {
  const flags = args.filter(arg => arg.startsWith('-'))
  const files = filesOf(args.filter(arg => !arg.startsWith('-')))
  const parts = [files.filter(file => waiting.test(file)), files.filter(file => !waiting.test(file))].filter(part => part.length > 0)
  // Options, such as a number of jobs or coverage, are for all files together: then one call of tap runs them all.
  const results = flags.length > 0 || parts.length < 2
    ? [await runTap(env, [`--jobs=${jobs}`, ...flags, ...files])]
    : await Promise.all(parts.map(async part => await runTap(env, [`--jobs=${Math.ceil(jobs / 2)}`, ...part])))
  const times = results.flatMap(({ times }) => times).sort(([a], [b]) => b - a)
  if (times.length > 20) {
    console.log('\nThe slowest files:')
    for (const [ms, name] of times.slice(0, 10)) console.log(`${(ms / 1000).toFixed(1).padStart(8)} s  ${name}`)
  }
  const sum = name => results.reduce((total, result) => total + result[name], 0)
  return { passed: sum('passed'), failed: sum('failed'), skipped: sum('skipped') }
}

try {
  finish(await run(await prepare(), process.argv.slice(2)))
} catch (err) {
  console.error(err.message)
  finish({ failed: 1 })
}
