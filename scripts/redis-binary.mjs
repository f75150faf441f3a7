// Finds a redis-server for the tests and for `npm run redis`, and on Debian and Ubuntu fetches one, without root and
// without installing anything: into node_modules/.cache, where `npm ci` clears it away.
//
//   node scripts/redis-binary.mjs   prints the path
import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onPath, works } from './on-path.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const parent = join(root, 'node_modules', '.cache', 'fastify-websocket-groups')
const cache = join(parent, 'redis')

const HELP = 'No redis-server was found. Install one (apt-get install redis-server, brew install redis, or Valkey) so that it is ' +
  'on PATH, or set REDIS_SERVER_BIN to the path of one; on Debian and Ubuntu it is otherwise fetched with apt-get, which needs the network.'

/** Path of a redis-server (or valkey-server) that starts. Throws one sentence that names the ways to get one. */
export function redisBinary () {
  const given = process.env.REDIS_SERVER_BIN
  if (given) {
    if (works(given)) return given
    throw new Error(`REDIS_SERVER_BIN is ${given}, and that does not run.`)
  }
  for (const name of ['redis-server', 'valkey-server']) {
    const found = onPath(name)
    if (found && works(found)) return found
  }
  const cached = join(cache, 'redis-server')
  if (works(cached)) return cached
  if (!onPath('apt-get') || !onPath('dpkg-deb')) throw new Error(HELP)
  try {
    fetchDebian()
  } catch (err) {
    throw new Error(`${HELP} Here that failed: ${err.message.trim().split('\n').at(-1)}`, { cause: err })
  }
  return cached
}

function fetchDebian () {
  mkdirSync(parent, { recursive: true })
  // Unpacked beside the cache and moved there whole: two runs at once each make their own, and the later one wins.
  const work = mkdtempSync(join(parent, 'redis-'))
  try {
    for (const folder of ['state/lists/partial', 'cache/archives/partial', 'debs', 'root']) {
      mkdirSync(join(work, folder), { recursive: true })
    }
    // Lists and archives of our own: the system's need root to write. The status file stays the system's, read only,
    // so that apt can tell which libraries are missing here.
    const options = Object.entries({
      'Dir::State': join(work, 'state'),
      'Dir::State::status': '/var/lib/dpkg/status',
      'Dir::Cache': join(work, 'cache'),
      'Debug::NoLocking': '1',
      'APT::Sandbox::User': '',
      'Acquire::Languages': 'none'
    }).flatMap(([name, value]) => ['-o', `${name}=${value}`])
    const apt = (...args) => execFileSync('apt-get', ['-q', ...options, ...args], {
      cwd: join(work, 'debs'), encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 180_000
    })
    apt('update')
    apt('download', ...packages(apt))
    for (const deb of readdirSync(join(work, 'debs'))) execFileSync('dpkg-deb', ['-x', join(work, 'debs', deb), join(work, 'root')])

    // Debian's redis-server is a link to redis-check-rdb, which looks at the name that it is called by.
    symlinkSync('redis-check-rdb', join(work, 'root', 'usr', 'bin', 'redis-server'))
    for (const name of ['redis-server', 'redis-cli']) launcher(work, name)
    for (const folder of ['state', 'cache', 'debs']) rmSync(join(work, folder), { recursive: true })
    if (!works(join(work, 'redis-server'))) throw new Error('the fetched redis-server does not start')
    rmSync(cache, { recursive: true, force: true })
    renameSync(work, cache)
  } catch (err) {
    rmSync(work, { recursive: true, force: true })
    if (!works(join(cache, 'redis-server'))) throw err // otherwise a run beside this one has just made it
  }
}

/** redis-tools, which holds the server, and whichever of its libraries this system lacks. */
function packages (apt) {
  try {
    const plan = apt('install', '--simulate', '--no-install-recommends', 'redis-tools')
    return [...new Set(['redis-tools', ...Array.from(plan.matchAll(/^Inst (\S+)/gm), match => match[1])])]
  } catch {
    return ['redis-tools', 'libjemalloc2', 'liblzf1', 'libatomic1'] // apt cannot plan here; this is what a plain system lacks
  }
}

/** A script named like the program, which finds the unpacked libraries wherever the folder has been moved to. */
function launcher (folder, name) {
  const libraries = ['usr/lib', 'lib'].flatMap(lib => {
    const path = join(folder, 'root', lib)
    return existsSync(path) ? readdirSync(path).filter(sub => sub.includes('-linux-')).map(sub => `$here/root/${lib}/${sub}`) : []
  })
  writeFileSync(join(folder, name), [
    '#!/bin/sh',
    'here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)',
    `LD_LIBRARY_PATH="${libraries.join(':')}" exec "$here/root/usr/bin/${name}" "$@"`,
    ''
  ].join('\n'))
  chmodSync(join(folder, name), 0o755)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    console.log(redisBinary())
  } catch (err) {
    console.error(err.message)
    process.exitCode = 1
  }
}
