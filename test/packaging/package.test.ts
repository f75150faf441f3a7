import t from 'tap'
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, posix } from 'node:path'

// What a user gets is the tarball, not the checkout: these tests use nothing else. They are offline.

const root = join(import.meta.dirname, '..', '..')
const modules = join(root, 'node_modules')
const tool = (...path: string[]): string => join(modules, ...path)

interface Outcome { readonly code: number | null, readonly output: string }

function run (command: string, args: readonly string[], cwd: string): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    // Without NODE_OPTIONS: tap puts its loader and its coverage there, and a user has neither.
    const { NODE_OPTIONS: _, ...env } = process.env
    const child = spawn(command, args, { cwd, env: { ...env, NO_COLOR: '1', FORCE_COLOR: '0' }, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    child.stdout.on('data', (chunk: Buffer) => { output += chunk.toString() })
    child.stderr.on('data', (chunk: Buffer) => { output += chunk.toString() })
    child.on('error', reject)
    child.on('close', code => resolve({ code, output }))
  })
}

interface Manifest {
  readonly name: string
  readonly exports: Record<string, unknown>
  readonly dependencies: Record<string, string>
  readonly peerDependencies: Record<string, string>
  readonly peerDependenciesMeta: Record<string, { readonly optional?: boolean }>
}

const work = realpathSync(mkdtempSync(join(tmpdir(), 'package-')))
t.teardown(() => rmSync(work, { recursive: true }))

// dist/ is fresh, run-tests.mjs saw to that; without --ignore-scripts it would be built again under the feet of other tests.
const packed = await run('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', work], root)
if (packed.code !== 0) throw new Error(packed.output)
const tarball = join(work, packed.output.trim().split('\n').at(-1) ?? '')
await run('tar', ['-xzf', tarball, '-C', work], work)
const manifest = JSON.parse(readFileSync(join(work, 'package', 'package.json'), 'utf8')) as Manifest

/** A project with the package installed, beside links to the packages that it declares, or to those that it cannot do without. */
async function consumer (name: string, { optional = true } = {}): Promise<string> {
  const folder = join(work, name)
  const installed = join(folder, 'node_modules', manifest.name)
  mkdirSync(installed, { recursive: true })
  const unpacked = await run('tar', ['-xzf', tarball, '-C', installed, '--strip-components', '1'], work)
  if (unpacked.code !== 0) throw new Error(unpacked.output)
  // @types/node: any TypeScript project on Node has it.
  const needed = Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies })
    .filter(dependency => optional || manifest.peerDependenciesMeta[dependency]?.optional !== true)
  for (const dependency of [...needed, '@types/node']) {
    const link = join(folder, 'node_modules', dependency)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(join(modules, dependency), link, 'dir')
  }
  return folder
}

const listed = await run('tar', ['-tzf', tarball], work)
const files = listed.output.trim().split('\n').map(file => file.replace(/^package\//, ''))
const contents = (file: string): string => readFileSync(join(work, 'package', file), 'utf8')

t.test('the tarball holds what is published, and no more', async (t) => {
  const needed = [
    'LICENSE', 'README.md', 'package.json', 'dist/esm/plugin.js', 'dist/cjs/plugin.js', 'dist/cjs/package.json', 'dist/client.global.min.js'
  ]
  for (const file of needed) t.ok(files.includes(file), file)
  const folders = /^(dist|docs|example-app|bench\/plots)\//
  // Sources that a page refers to.
  const named = ['lib/backplane/backplane.ts', 'lib/backplane/messages.ts', 'lib/backplane/redis/envelope.ts', 'lib/backplane/streams.ts']
  const single = /^(package\.json|LICENSE|[A-Z]+\.md|bench\/README\.md|scripts\/build\.mjs)$/
  t.strictSame(files.filter(file => !folders.test(file) && !single.test(file) && !named.includes(file)), [])
  t.ok(files.length < 350, `${files.length} files`)
})

t.test('source maps come with their sources, or not at all', async (t) => {
  const maps = files.filter(file => file.endsWith('.map'))
  t.strictSame(maps.flatMap(map => (JSON.parse(contents(map)) as { sources: string[] }).sources
    .map(source => posix.join(posix.dirname(map), source)).filter(source => !files.includes(source))), [])
  for (const file of files.filter(file => /\.[cm]?[jt]s$/.test(file))) {
    const [, map] = /^\/\/# sourceMappingURL=(.*)$/m.exec(contents(file)) ?? []
    if (map) t.ok(files.includes(posix.join(posix.dirname(file), map)), `${file} names ${map}`)
  }
})

/** As GitHub and npm make it of a heading. */
function anchorOf (heading: string): string {
  return heading.trim().toLowerCase().replace(/\]\([^)]*\)/g, ']').replace(/[^\p{L}\p{N}\s_-]/gu, '').replaceAll(' ', '-')
}

function deadLinks (names: readonly string[], read: (file: string) => string): string[] {
  const withoutCode = (file: string): string =>
    read(file).replace(/^```.*?^```/gms, '').replace(/`[^`\n]*`/g, code => code.replace(/[[\]()]/g, ''))
  const anchors = (file: string): string[] => [...withoutCode(file).matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) => anchorOf(heading))
  const isAlive = (file: string, link: string): boolean => {
    if (/^[a-z]+:/.test(link)) return true
    const [path = '', anchor] = link.split('#')
    const target = path === '' ? file : posix.join(posix.dirname(file), path)
    const found = names.some(name => name === target || name.startsWith(target.replace(/\/?$/, '/')))
    return found && (anchor === undefined || !target.endsWith('.md') || anchors(target).includes(anchor))
  }
  return names.filter(file => file.endsWith('.md')).flatMap(file => [...withoutCode(file).matchAll(/\]\(([^)\s]+)\)/g)]
    .filter(([, link = '']) => !isAlive(file, link)).map(([, link]) => `${file}: ${link}`))
}

t.test('every link of its pages leads to a page or a heading in the tarball', async (t) => {
  t.strictSame(deadLinks(files, contents), [])
  const pages: Record<string, string> = {
    'a.md': '# A `b(c)`, d\n[1](docs/b.md#b) [2](docs/) [3](#a-bc-d) [4](https://x.org) `[5](none.md)`\n' +
      '[6](none.md) [7](docs/b.md#a) [8](#b) [9](doc)',
    'docs/b.md': '# B\n[1](../a.md) [2](b.md#b) [3](a.md)'
  }
  const dead = ['a.md: none.md', 'a.md: docs/b.md#a', 'a.md: #b', 'a.md: doc', 'docs/b.md: a.md']
  t.strictSame(deadLinks(Object.keys(pages), file => pages[file] ?? ''), dead, 'the check finds dead ones')
})

t.test('npm and the page of the package know where it comes from, and nothing runs when it is installed', async (t) => {
  const { repository, homepage, bugs, scripts } = JSON.parse(contents('package.json')) as Record<string, Record<string, string>>
  t.match(repository, { type: 'git', url: /^git\+https:/ })
  t.match({ homepage, bugs }, { homepage: /^https:/, bugs: { url: /^https:/ } })
  t.strictSame(Object.keys(scripts ?? {}).filter(name => /^(pre|post)?(install|prepare)$/.test(name)), [])
})

t.test('no development dependency wants a newer Node than the package itself', async (t) => {
  interface Lock { readonly packages: Readonly<Record<string, { readonly engines?: { readonly node?: string } }>> }
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as Lock
  // A range such as `^18.17 || >=20`: the first number of each part is the oldest release line that it admits.
  const oldest = ({ engines }: Lock['packages'][string]): number =>
    Math.min(...(engines?.node ?? '0').split('||').map(part => Number(/\d+/.exec(part)?.[0] ?? 0)))
  t.ok(Object.values(packages).some(one => oldest(one) === 20), 'it reads the ranges')
  t.strictSame(Object.keys(packages).filter(path => oldest(packages[path] ?? {}) > 20), [])
})

t.test('publint has nothing to say', async (t) => {
  const { code, output } = await run(process.execPath, [tool('publint', 'src', 'cli.js'), '--strict', tarball], work)
  t.equal(code, 0, { output })
})

t.test('its types resolve for every kind of consumer', async (t) => {
  // Pages load these files; nobody writes types for them.
  const browserFiles = ['--exclude-entrypoints', 'client.min.js', 'client.global.min.js', 'messages.min.js', 'streams.min.js']
  const { code, output } = await run(
    process.execPath, [tool('@arethetypeswrong', 'cli', 'dist', 'index.js'), tarball, ...browserFiles], work
  )
  t.equal(code, 0, { output })
})

/** The optional plugins. */
const operations = ['metrics', 'health', 'dashboard', 'api']

t.test('the program that npx starts is there, and runs', async (t) => {
  const { bin, name } = JSON.parse(contents('package.json')) as { bin: Record<string, string>, name: string }
  t.strictSame(Object.keys(bin), [name], 'npx finds it by the name of the package')
  const file = join(await consumer('program'), 'node_modules', name, bin[name] ?? '')
  t.match(readFileSync(file, 'utf8'), /^#!\/usr\/bin\/env node\n/)
  t.match(await run(process.execPath, [file, '--help'], work), { code: 0, output: /bench <address> --room/ })
})

t.test('import and require give the same plugin, and a service runs with it', async (t) => {
  const folder = await consumer('javascript')
  const body = `
    assert.equal(typeof plugin, 'function')
    const app = fastify()
    await app.register(plugin)
    await app.ready()
    assert.equal(app.registry.count(), 0)
    await app.close()
    console.log('fine')`
  writeFileSync(join(folder, 'esm.mjs'), `
    import assert from 'node:assert/strict'
    import fastify from 'fastify'
    import plugin from '${manifest.name}'
    import * as contract from '${manifest.name}/contract'
    import { connect } from '${manifest.name}/client'
    import { connect as small } from '${manifest.name}/client.min.js'
    for (const name of ${JSON.stringify(operations)}) assert.equal(typeof (await import('${manifest.name}/' + name)).default, 'function')
    assert.ok(Object.keys(contract).length > 0)
    assert.equal(typeof connect, 'function')
    assert.equal(typeof small, 'function')
    assert.match(import.meta.resolve('${manifest.name}/client.global.min.js'), /dist\\/client\\.global\\.min\\.js$/)
    ${body}`)
  writeFileSync(join(folder, 'cjs.cjs'), `
    const assert = require('node:assert/strict')
    const fastify = require('fastify')
    const { default: plugin, ...named } = require('${manifest.name}')
    assert.ok(Object.keys(require('${manifest.name}/contract')).length > 0)
    for (const name of ${JSON.stringify(operations)}) assert.equal(typeof require('${manifest.name}/' + name).default, 'function')
    assert.equal(require('${manifest.name}/package.json').name, '${manifest.name}')
    assert.equal(typeof require('${manifest.name}/client').connect, 'function')
    assert.equal(typeof require('${manifest.name}/client/messages').connect, 'function')
    assert.equal(typeof require('${manifest.name}/client/streams').streamsOf, 'function')
    // Browsers get these files: they are the same ones however they are found.
    for (const file of ['client.min.js', 'client.global.min.js', 'messages.min.js', 'streams.min.js']) {
      const path = require('node:path').join(__dirname, 'node_modules', '${manifest.name}', 'dist', file)
      assert.equal(require.resolve('${manifest.name}/' + file), path)
    }
    async function main () {${body}
      // what people write who do not think of .default
      const short = fastify()
      await short.register(require('${manifest.name}'))
      await short.close()
      const esm = await import('${manifest.name}')
      assert.deepEqual(Object.keys(named).filter(name => name !== 'module.exports' && !(name in esm)), [])
    }
    main()`)
  for (const file of ['esm.mjs', 'cjs.cjs']) {
    const { code, output } = await run(process.execPath, [file], folder)
    t.equal(code, 0, { output })
    t.match(output, /^fine$/m, file)
  }
})

t.test('without its optional packages all runs but what is made for them, and what is not asked for is not loaded', async (t) => {
  const folder = await consumer('plain', { optional: false })
  const optional = Object.keys(manifest.peerDependenciesMeta)
  t.ok(optional.includes('@opentelemetry/api') && optional.includes('prom-client'))
  writeFileSync(join(folder, 'plain.cjs'), `
    const assert = require('node:assert/strict')
    const fastify = require('fastify')
    const { default: plugin } = require('${manifest.name}')
    for (const name of ${JSON.stringify(optional)}) assert.throws(() => require(name), { code: 'MODULE_NOT_FOUND' })
    async function main () {
      const app = fastify()
      await app.register(plugin)
      await app.ready()
      const loaded = Object.keys(require.cache).filter(file => /fastify-websocket-groups.dist.*(operations|cli|client|testing)/.test(file))
      assert.deepEqual(loaded, [])
      await app.close()
      const operated = fastify()
      await operated.register(plugin)
      for (const name of ${JSON.stringify(operations)}) {
        const auth = ['dashboard', 'api'].includes(name) ? { auth: async () => {} } : {}
        await operated.register(require('${manifest.name}/' + name).default, { prefix: '/' + name, ...auth })
      }
      const { statusCode, body } = await operated.inject('/metrics/metrics')
      assert.equal(statusCode, 200)
      assert.match(body, /^websocket_groups_connections 0$/m)
      await operated.close()
      assert.throws(() => require('${manifest.name}/opentelemetry'), { code: 'MODULE_NOT_FOUND' })
      console.log('fine')
    }
    main()`)
  const { code, output } = await run(process.execPath, ['plain.cjs'], folder)
  t.equal(code, 0, { output })
  t.match(output, /^fine$/m)
})

t.test('ESM and CommonJS consumers in TypeScript compile, with the types of the tarball', async (t) => {
  const folder = await consumer('typescript')
  const source = `
    import fastify from 'fastify'
    import plugin from '${manifest.name}'

    export async function main (): Promise<number> {
      const app = fastify()
      await app.register(plugin, { redis: 'redis://127.0.0.1:6379' })
      // @ts-expect-error an option of a wrong type
      await app.register(plugin, { redis: 6379n })
      // @ts-expect-error no method of the registry: had the types not arrived, everything would be any
      app.registry.noSuchMethod()
      app.get('/ws/:room', { websocket: true }, app.wsHandler({
        async onConnect (connection) { await app.registry.join(connection, 'room') },
        async onMessage (connection, data) { await app.registry.broadcastToGroup('room', data, { except: connection }) }
      }))
      const count: number = app.registry.count()
      return count
    }`
  writeFileSync(join(folder, 'package.json'), '{"private":true}')
  // One program each: both halves of the package in one program would extend Fastify's types twice, and nobody writes that.
  await Promise.all(['mts', 'cts'].map(async (extension) => {
    writeFileSync(join(folder, `consumer.${extension}`), source)
    const contract = `import * as contract from '${manifest.name}/contract'\nexport const names = Object.keys(contract)`
    writeFileSync(join(folder, `contract.${extension}`), contract)
    const project = join(folder, `tsconfig.${extension}.json`)
    writeFileSync(project, JSON.stringify({
      compilerOptions: { target: 'es2022', module: 'nodenext', strict: true, noEmit: true, skipLibCheck: false, types: ['node'] },
      include: [`*.${extension}`]
    }))
    const { output } = await run(process.execPath, [tool('typescript', 'bin', 'tsc'), '--pretty', 'false', '-p', project], folder)
    // Declarations are checked too, but only ours: what other packages publish is not for this test to judge.
    const foreign = /^[^(]*node_modules\/(?!fastify-websocket-groups\/)/
    const ours = output.split('\n').filter(line => /error TS/.test(line) && !foreign.test(line))
    t.strictSame(ours, [], `.${extension}`, { output })
  }))
})
