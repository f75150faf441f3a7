// What `npm test` runs: builds dist/ when it is stale, finds a Redis and a browser, runs tap and prints one line a file,
// everything about the files that failed, and as the very last line the totals:
//
//   128 passed, 0 failed
//   128 passed, 0 failed, 2 skipped
//
// Arguments go to tap; a folder stands for the tests in it: npm test -- test/unit --disable-coverage
import { spawn } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { browserBinary } from './browser-binary.mjs'
import { build } from './build.mjs'
import { redisBinary } from './redis-binary.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')

function finish ({ passed = 0, failed = 0, skipped = 0 }) {
  console.log(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
  process.exitCode = failed > 0 ? 1 : 0
}

async function prepare () {
  // The example and the packaging tests import the package by its own name, and so get dist/.
  await build({ ifStale: true })
  const env = { ...process.env, CHROMIUM_BIN: browserBinary() ?? '' }
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
  const failedFiles = []
  let totals = ''
  let inDiagnostics = false // the YAML that follows a failed file at the margin
  return {
    line (line) {
      const file = /^(not )?ok \d+(?: - (.*?))?(?: # (.*))?$/.exec(line)
      if (file) {
        const [, bad, name, note] = file
        console.log(`${bad ? 'FAIL' : /^SKIP/i.test(note ?? '') ? 'skip' : 'ok  '}  ${name}${note ? `  (${note.replace(/^time=/, '')})` : ''}`)
        if (bad) {
          failedFiles.push(name)
          if (!block.some(nested => /^\s+not ok /.test(nested) && !/# (TODO|SKIP)/i.test(nested))) silentFailures++
          for (const nested of block) if (!/^\s*(ok \d|\d+\.\.\d+|$)/.test(nested)) console.log(nested)
        } else {
          for (const nested of block) if (/# (SKIP|TODO)/i.test(nested)) console.log(`        ${nested.trim()}`)
        }
        block = []
      } else if (line.startsWith('# {')) {
        totals = line
      } else if (/^(# Subtest: |TAP version |\d+\.\.\d+$|# time=)/.test(line)) {
        // says nothing that the line of the file does not
      } else if (/^ {2}(---|\.\.\.)$/.test(line) || inDiagnostics || totals || /^(#|Bail out)/.test(line)) {
        if (/^ {2}(---|\.\.\.)$/.test(line)) inDiagnostics = line.endsWith('---')
        // of the command line and the environment of a failed file, only how it ended
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
      return { failedFiles, passed, failed: failed === 0 && (exitCode !== 0 || passed === 0) ? 1 : failed, skipped: count('skip') + count('todo') }
    }
  }
}

/** tap would run every file of a folder that it is given, helpers too. */
function expand (argument) {
  if (!statSync(argument, { throwIfNoEntry: false })?.isDirectory()) return [argument]
  return readdirSync(argument, { recursive: true }).filter(name => name.endsWith('.test.ts')).sort().map(name => join(argument, name))
}

async function run (env, args) {
  const report = reader()
  const tap = spawn(process.execPath, [join(root, 'node_modules', 'tap', 'dist', 'esm', 'run.mjs'), 'run', '--reporter=tap', ...args], {
    cwd: root, env, stdio: ['ignore', 'pipe', 'inherit']
  })
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => tap.kill(signal))
  const ended = new Promise((resolve, reject) => tap.on('error', reject).on('close', resolve))
  for await (const line of createInterface({ input: tap.stdout })) report.line(line.replaceAll(root, '.')) // a log says nothing of where the checkout lies
  return report.totals(await ended)
}

/** More than this is no accident of a busy machine. */
const maxRepeated = 6

/**
 * Many tests hold the package to deadlines, with real processes, and a machine that is busy elsewhere can make one of them late. So the few files that failed are run
 * once more, one at a time, and it is said which of them passed only then.
 */
async function runAll (env) {
  const args = process.argv.slice(2).flatMap(expand)
  const first = await run(env, args)
  const { failedFiles } = first
  if (first.failed === 0 || failedFiles.length === 0 || failedFiles.length > maxRepeated) return first
  console.log(`\nOnce more, alone: ${failedFiles.join(', ')}`)
  const second = await run(env, ['--jobs=1', ...args.filter(arg => arg.startsWith('-')), ...failedFiles])
  const mended = failedFiles.filter(name => !second.failedFiles.includes(name))
  if (mended.length > 0) console.log(`\nPassed only when run alone: ${mended.join(', ')}`)
  return { passed: first.passed + Math.max(0, first.failed - second.failed), failed: second.failed, skipped: first.skipped }
}

try {
  finish(await runAll(await prepare()))
} catch (err) {
  console.error(err.message)
  finish({ failed: 1 })
}
