// What `npm test` runs: builds dist/ when it is stale, finds a Redis and a browser, runs the test files and prints one line
// for each, everything about those that failed, the slowest ones, and as the very last line the totals:
//
//   128 passed, 0 failed
//   128 passed, 0 failed, 2 skipped
//
// A folder stands for the tests in it: npm test -- test/unit --jobs=1
//
// A file that uses tap reports by itself. tap's command would load a compiler and a tracer of modules into each of them,
// for half of the CPU time that a file takes to start; it runs them when there are other options than --jobs, as for
// coverage.
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
/** These files wait most. Some of them at any time, beside others, keep all cores busy until the end. */
const waiting = /^test[/\\]faults[/\\]/
/** As in .taprc. */
const timeoutSeconds = 600

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

/** What the files reported so far. */
class Results {
  passed = 0
  failed = 0
  skipped = 0
  times = []

  /** Prints how a file ended; of one that failed, everything but what passed. `block`: the lines of its report. */
  file (name, isGood, note, block) {
    console.log(`${isGood ? /^SKIP/i.test(note) ? 'skip' : 'ok  ' : 'FAIL'}  ${name}${note && `  (${note.replace(/^time=/, '')})`}`)
    this.times.push([Number(/^time=([\d.]+)ms/.exec(note)?.[1] ?? 0), name])
    if (isGood) {
      for (const line of block) if (/# (SKIP|TODO)/i.test(line)) console.log(`        ${line.trim()}`)
      return
    }
    // A file that was killed, timed out, or failed before its first assertion counts as one failure.
    if (!block.some(line => /^\s*not ok /.test(line) && !/# (TODO|SKIP)/i.test(line))) this.failed++
    for (const line of block) if (!/^\s*(ok \d|\d+\.\.\d+|$)/.test(line)) console.log(line)
  }

  /** `line`: as `# { total: 3, pass: 2, fail: 1 }` */
  add (line) {
    const count = name => Number(new RegExp(`\\b${name}: (\\d+)`).exec(line)?.[1] ?? 0)
    this.passed += count('pass')
    this.failed += count('fail')
    this.skipped += count('skip') + count('todo')
  }
}

const isTotals = line => line.startsWith('# {')
/** Tells nothing that the line of the file does not tell. */
const isNoise = line => /^(# Subtest: |TAP version |\d+\.\.\d+$|# time=)/.test(line)

/** Reads the report of tap's command. Per file: the nested lines, then at the margin `ok 3 - test/x.test.ts # time=…`. */
function reader (results) {
  let block = []
  let totals = ''
  let inDiagnostics = false // the YAML that follows a failed file at the margin
  return {
    line (line) {
      const file = /^(not )?ok \d+(?: - (.*?))?(?: # (.*))?$/.exec(line)
      if (file) {
        const [, bad, name, note = ''] = file
        results.file(name, !bad, note, block)
        block = []
      } else if (isTotals(line)) {
        totals = line
      } else if (isNoise(line)) {
        // nothing to tell
      } else if (/^ {2}(---|\.\.\.)$/.test(line) || inDiagnostics || totals || /^(#|Bail out)/.test(line)) {
        if (/^ {2}(---|\.\.\.)$/.test(line)) inDiagnostics = line.endsWith('---')
        // print how a failed file ended, but not its command line and environment
        else if (!inDiagnostics || /^ {2}(exitCode|signal|failure|expired|timeout|error|reason):/.test(line)) console.log(line)
      } else {
        block.push(line)
      }
    },
    end (code) {
      for (const line of block) console.log(line) // a file that never ended
      results.add(totals)
      if (results.failed === 0 && (code !== 0 || results.passed === 0)) results.failed = 1
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

/** The files that are not started yet: those that wait most, and the others. */
const queues = [[], []]
const running = new Set()
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    for (const queue of queues) queue.length = 0
    for (const child of running) child.kill(signal)
  })
}

/** Starts a process of node. Resolves with how it ended when `line` was called for all of its output. */
async function start (args, env, line, killAfterMs) {
  const child = spawn(process.execPath, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'inherit'] })
  const timer = killAfterMs && setTimeout(() => child.kill('SIGKILL'), killAfterMs)
  running.add(child)
  const ended = new Promise((resolve, reject) => child.on('error', reject).on('close', (code, signal) => resolve({ code, signal })))
  // The output does not tell where the checkout is.
  for await (const text of createInterface({ input: child.stdout })) line(text.replaceAll(root, '.'))
  const how = await ended
  clearTimeout(timer)
  running.delete(child)
  return how
}

async function runFile (env, file, results) {
  const lines = []
  const startedAt = performance.now()
  const { code, signal } = await start(
    ['--enable-source-maps', '--import=./scripts/typescript.mjs', file], { ...env, TAP_TIMEOUT: timeoutSeconds },
    line => lines.push(line), (timeoutSeconds + 30) * 1000
  )
  const totals = lines.findLast(isTotals)
  const isGood = code === 0 && totals !== undefined
  if (!isGood) lines.push(`ended with ${signal ?? code}`)
  const block = lines.filter(line => !isTotals(line) && !isNoise(line))
  results.file(file, isGood, `time=${(performance.now() - startedAt).toFixed()}ms`, block)
  results.add(totals ?? '')
}

async function runFiles (env, files, atOnce, results) {
  for (const file of files) queues[waiting.test(file) ? 0 : 1].push(file)
  await Promise.all(Array.from({ length: atOnce }, async (_, at) => {
    const [mine, others] = at % 2 === 0 ? queues : [...queues].reverse()
    for (let file; (file = mine.shift() ?? others.shift());) await runFile(env, file, results)
  }))
}

async function runTap (env, args, results) {
  const report = reader(results)
  const command = join(root, 'node_modules', 'tap', 'dist', 'esm', 'run.mjs')
  const { code } = await start([command, 'run', '--reporter=tap', ...args], env, line => report.line(line))
  report.end(code)
}

async function run (env, args) {
  const flags = args.filter(arg => arg.startsWith('-'))
  const files = filesOf(args.filter(arg => !arg.startsWith('-')))
  const results = new Results()
  const [, atOnce = jobs] = /^--jobs=(\d+)$/.exec(flags.join(' ')) ?? []
  if (flags.length === 0 || atOnce !== jobs) await runFiles(env, files, Number(atOnce), results)
  else await runTap(env, [`--jobs=${jobs}`, ...flags, ...files], results)
  const times = results.times.sort(([a], [b]) => b - a)
  if (times.length > 20) {
    console.log('\nThe slowest files:')
    for (const [ms, name] of times.slice(0, 10)) console.log(`${(ms / 1000).toFixed(1).padStart(8)} s  ${name}`)
  }
  return results
}

try {
  finish(await run(await prepare(), process.argv.slice(2)))
} catch (err) {
  console.error(err.message)
  finish({ failed: 1 })
}
