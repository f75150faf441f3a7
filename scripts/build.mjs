// Builds dist/ as two packages side by side, because one file cannot be both:
//   dist/esm  what `import` gets       dist/cjs  what `require` gets, marked by a package.json of its own
// and beside them the browser client as single files.
//
//   node scripts/build.mjs             always builds
//   node scripts/build.mjs --if-stale  builds only when a source has changed since the last build
//   (as npm's "prepare")               does nothing where there is nothing to build from
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const dist = join(root, 'dist')
const stamp = join(root, 'node_modules', '.cache', 'fastify-websocket-groups', 'build.sha256')
const outputs = ['esm/plugin.js', 'esm/plugin.d.ts', 'cjs/plugin.js', 'cjs/plugin.d.ts', 'cjs/package.json', 'esm/test/contract/suite.js', 'client.min.js', 'client.global.min.js']

function typescript () {
  try {
    return createRequire(import.meta.url).resolve('typescript/bin/tsc')
  } catch {
    return undefined // installed without development dependencies
  }
}

/** One hash over everything that decides what the build makes: names, contents, and the compiler's version. */
function fingerprint (tsc) {
  const hash = createHash('sha256').update(readFileSync(join(dirname(tsc), '..', 'package.json')))
  const lib = existsSync(join(root, 'lib'))
    ? readdirSync(join(root, 'lib'), { recursive: true }).filter(name => name.endsWith('.ts')).sort().map(name => join('lib', name))
    : []
  for (const name of ['package.json', 'tsconfig.json', 'tsconfig.build.json', 'scripts/build.mjs', 'scripts/build-client.mjs', 'plugin.ts', 'test/contract/suite.ts', ...lib]) {
    const file = join(root, name)
    hash.update(`\0${name}\0`).update(existsSync(file) ? readFileSync(file) : 'absent')
  }
  return hash.digest('hex')
}

function isFresh (print) {
  return outputs.every(name => existsSync(join(dist, name))) && existsSync(stamp) && readFileSync(stamp, 'utf8') === print
}

/** Resolves with what the compiler complained about, '' when it did not. */
function compile (tsc, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [tsc, '-p', join(root, 'tsconfig.build.json'), ...args], { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] })
    let output = ''
    child.stdout.setEncoding('utf8').on('data', text => { output += text })
    child.on('error', reject)
    child.on('close', code => resolve(code === 0 ? '' : output || `tsc ended with ${code}`))
  })
}

/** Moves `next` to `target`. A second build may put its own there between the two steps, hence the second try. */
function replace (target, next, tries = 3) {
  rmSync(target, { recursive: true, force: true })
  try {
    renameSync(next, target)
  } catch (err) {
    if (tries === 1) throw err
    replace(target, next, tries - 1)
  }
}

export async function build ({ ifStale = false } = {}) {
  const tsc = typescript()
  if (!tsc || !existsSync(join(root, 'tsconfig.build.json'))) {
    throw new Error('there is nothing to build from: the development dependencies or tsconfig.build.json are absent')
  }
  const print = fingerprint(tsc)
  if (ifStale && isFresh(print)) return false

  // Built beside dist/ and moved there at the end, so that nobody ever imports half a build. The folder must be a
  // neighbour of dist/: the paths inside source maps are relative.
  const next = join(root, `.dist-${process.pid}`)
  try {
    // Not imported above: an unpacked tarball has this script without that one, and nothing to build from.
    const { buildClient } = await import('./build-client.mjs')
    const [esm, cjs] = await Promise.all([
      compile(tsc, ['--outDir', join(next, 'esm')]),
      compile(tsc, ['--outDir', join(next, 'cjs'), '--module', 'commonjs', '--moduleResolution', 'bundler', '--verbatimModuleSyntax', 'false']),
      buildClient(root, next)
    ])
    if (esm || cjs) throw new Error(`${esm || cjs}the build failed; dist/ is as it was`)
    writeFileSync(join(next, 'cjs', 'package.json'), '{"type":"commonjs"}\n')
    replace(dist, next)
  } finally {
    rmSync(next, { recursive: true, force: true })
  }
  mkdirSync(dirname(stamp), { recursive: true })
  writeFileSync(stamp, print)
  return true
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const prepare = process.env.npm_lifecycle_event === 'prepare'
  if (prepare && (!typescript() || !existsSync(join(root, 'tsconfig.build.json')))) {
    // `npm ci --omit=dev` in a checkout, or `npm install` in an unpacked tarball, which brings its own dist/.
    console.log('dist/ is left as it is: nothing to build from here')
  } else {
    try {
      await build({ ifStale: process.argv.includes('--if-stale') })
    } catch (err) {
      console.error(err.message)
      process.exitCode = 1
    }
  }
}
