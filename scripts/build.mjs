// Builds dist/ as two packages side by side, because one file cannot be both:
//   dist/esm  what `import` gets: a file for each entry, and chunks that entries share
//   dist/cjs  what `require` gets: a file for each entry, marked by a package.json of its own
// both with the declarations that the entries lead to, and beside them the browser client as single files.
//
//   node scripts/build.mjs             always builds
//   node scripts/build.mjs --if-stale  builds only when a source has changed since the last build
//   (as npm's "dependencies")          does nothing where there is nothing to build from
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const dist = join(root, 'dist')
const stamp = join(root, 'node_modules', '.cache', 'fastify-websocket-groups', 'build.sha256')
/** The optional plugins. */
const operations = ['metrics', 'health', 'dashboard', 'api', 'opentelemetry']
/** What package.json exports, without extension. */
const entries = [
  'plugin', 'lib/client/index', 'lib/client/messages', 'lib/client/streams', 'lib/client/react', 'lib/testing/index',
  'test/contract/suite',
  ...operations.map(name => `lib/operations/${name}`)
]
/** The command line: run as a program, never imported, hence in one half alone. */
const program = 'lib/cli/main'
const outputs = [
  `esm/${program}.js`,
  ...['esm', 'cjs'].flatMap(half => entries.flatMap(entry => [`${half}/${entry}.js`, `${half}/${entry}.d.ts`])),
  'cjs/package.json', 'client.min.js', 'client.global.min.js', 'messages.min.js', 'streams.min.js'
]
const inputs = [
  'package.json', 'tsconfig.json', 'tsconfig.build.json', 'scripts/build.mjs', 'scripts/build-client.mjs', 'plugin.ts',
  'test/contract/suite.ts'
]

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
  for (const name of [...inputs, ...lib]) {
    const file = join(root, name)
    hash.update(`\0${name}\0`).update(existsSync(file) ? readFileSync(file) : 'absent')
  }
  return hash.digest('hex')
}

function isFresh (print) {
  return outputs.every(name => existsSync(join(dist, name))) && existsSync(stamp) && readFileSync(stamp, 'utf8') === print
}

/** Checks the types and writes the declarations. Resolves with what the compiler complained about, '' when it did not. */
function declare (tsc, outDir) {
  return new Promise((resolve, reject) => {
    const args = [tsc, '-p', join(root, 'tsconfig.build.json'), '--emitDeclarationOnly', '--outDir', outDir]
    const child = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] })
    let output = ''
    child.stdout.setEncoding('utf8').on('data', text => { output += text })
    child.on('error', reject)
    child.on('close', code => resolve(code === 0 ? '' : output || `tsc ended with ${code}`))
  })
}

/** Deletes the declarations in `folder` that no entry leads to. */
async function prune (folder) {
  const { default: { preProcessFile } } = await import('typescript')
  const kept = new Set()
  const keep = file => {
    if (kept.has(file)) return
    kept.add(file)
    for (const { fileName } of preProcessFile(readFileSync(file, 'utf8')).importedFiles) {
      if (fileName.startsWith('.')) keep(join(dirname(file), fileName.replace(/\.[jt]s$/, '.d.ts')))
    }
  }
  for (const entry of entries) keep(join(folder, `${entry}.d.ts`))
  for (const file of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    const path = join(file.parentPath, file.name)
    if (file.name.endsWith('.d.ts') && !kept.has(path)) rmSync(path)
  }
}

/** Bundles the entries, with the dependencies left outside. Modules share chunks, so that a class is the same for all entries. */
async function bundle (next) {
  const { build: esbuild } = await import('esbuild')
  const sources = names => names.map(name => join(root, `${name}.ts`))
  const common = {
    outbase: root,
    bundle: true,
    packages: 'external',
    platform: 'node',
    target: 'es2022',
    logLevel: 'warning'
  }
  await Promise.all([
    esbuild({
      ...common,
      entryPoints: sources([...entries, program]),
      outdir: join(next, 'esm'),
      format: 'esm',
      splitting: true,
      chunkNames: 'chunks/[hash]'
    }),
    esbuild({ ...common, entryPoints: sources(entries), outdir: join(next, 'cjs'), format: 'cjs' })
  ])
  writeFileSync(join(next, 'cjs', 'package.json'), '{"type":"commonjs"}\n')
}

function removeEmptyFolders (folder) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) if (entry.isDirectory()) removeEmptyFolders(join(folder, entry.name))
  if (readdirSync(folder).length === 0) rmdirSync(folder)
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

  // Built beside dist/ and moved there at the end, so that nobody ever imports half a build.
  const next = join(root, `.dist-${process.pid}`)
  try {
    // Not imported above: an unpacked tarball has this script without that one, and nothing to build from.
    const { buildClient } = await import('./build-client.mjs')
    const [complaints] = await Promise.all([declare(tsc, join(next, 'esm')), bundle(next), buildClient(root, next)])
    if (complaints) throw new Error(`${complaints}the build failed; dist/ is as it was`)
    await prune(join(next, 'esm'))
    cpSync(join(next, 'esm'), join(next, 'cjs'), { recursive: true, filter: path => !/\.js$|chunks$/.test(path) })
    removeEmptyFolders(next)
    replace(dist, next)
  } finally {
    rmSync(next, { recursive: true, force: true })
  }
  mkdirSync(dirname(stamp), { recursive: true })
  writeFileSync(stamp, print)
  return true
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const installed = process.env.npm_lifecycle_event === 'dependencies'
  if (installed && (!typescript() || !existsSync(join(root, 'tsconfig.build.json')))) {
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
