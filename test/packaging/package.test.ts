import t from 'tap'
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

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
}

const work = realpathSync(mkdtempSync(join(tmpdir(), 'package-')))
t.teardown(() => rmSync(work, { recursive: true }))

// dist/ is fresh, run-tests.mjs saw to that; without --ignore-scripts it would be built again under the feet of other tests.
const packed = await run('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', work], root)
if (packed.code !== 0) throw new Error(packed.output)
const tarball = join(work, packed.output.trim().split('\n').at(-1) ?? '')
await run('tar', ['-xzf', tarball, '-C', work], work)
const manifest = JSON.parse(readFileSync(join(work, 'package', 'package.json'), 'utf8')) as Manifest

/** A project with the package installed, beside links to the packages that it declares and to nothing else. */
async function consumer (name: string): Promise<string> {
  const folder = join(work, name)
  const installed = join(folder, 'node_modules', manifest.name)
  mkdirSync(installed, { recursive: true })
  const unpacked = await run('tar', ['-xzf', tarball, '-C', installed, '--strip-components', '1'], work)
  if (unpacked.code !== 0) throw new Error(unpacked.output)
  // @types/node: any TypeScript project on Node has it.
  for (const dependency of [...Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies }), '@types/node']) {
    const link = join(folder, 'node_modules', dependency)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(join(modules, dependency), link, 'dir')
  }
  return folder
}

t.test('the tarball holds what is published, and no more', async (t) => {
  const { output } = await run('tar', ['-tzf', tarball], work)
  const files = output.trim().split('\n').map(file => file.replace(/^package\//, ''))
  for (const file of ['LICENSE', 'README.md', 'package.json', 'plugin.ts', 'dist/esm/plugin.js', 'dist/cjs/plugin.js', 'dist/cjs/package.json']) {
    t.ok(files.includes(file), file)
  }
  const expected = /^(dist|lib|docs)\/|^(plugin\.ts|test\/contract\/suite\.ts|scripts\/build\.mjs|package\.json|README\.md|LICENSE|CHANGELOG\.md)$/
  t.strictSame(files.filter(file => !expected.test(file)), [])

  // Both halves come from the same sources.
  const half = (name: string): string[] => files.filter(file => file.startsWith(`dist/${name}/`)).map(file => file.slice(9)).sort()
  t.strictSame(half('cjs').filter(file => file !== 'package.json'), half('esm'))
})

t.test('publint has nothing to say', async (t) => {
  const { code, output } = await run(process.execPath, [tool('publint', 'src', 'cli.js'), '--strict', tarball], work)
  t.equal(code, 0, { output })
})

t.test('its types resolve for every kind of consumer', async (t) => {
  const { code, output } = await run(process.execPath, [tool('@arethetypeswrong', 'cli', 'dist', 'index.js'), tarball], work)
  t.equal(code, 0, { output })
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
    assert.ok(Object.keys(contract).length > 0)
    ${body}`)
  writeFileSync(join(folder, 'cjs.cjs'), `
    const assert = require('node:assert/strict')
    const fastify = require('fastify')
    const { default: plugin, ...named } = require('${manifest.name}')
    assert.ok(Object.keys(require('${manifest.name}/contract')).length > 0)
    assert.equal(require('${manifest.name}/package.json').name, '${manifest.name}')
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
    writeFileSync(join(folder, `contract.${extension}`), `import * as contract from '${manifest.name}/contract'\nexport const names = Object.keys(contract)`)
    const project = join(folder, `tsconfig.${extension}.json`)
    writeFileSync(project, JSON.stringify({
      compilerOptions: { target: 'es2022', module: 'nodenext', strict: true, noEmit: true, skipLibCheck: false, types: ['node'] }, include: [`*.${extension}`]
    }))
    const { output } = await run(process.execPath, [tool('typescript', 'bin', 'tsc'), '--pretty', 'false', '-p', project], folder)
    // Declarations are checked too, but only ours: what other packages publish is not for this test to judge.
    const ours = output.split('\n').filter(line => /error TS/.test(line) && !/^[^(]*node_modules\/(?!fastify-websocket-groups\/)/.test(line))
    t.strictSame(ours, [], `.${extension}`, { output })
  }))
})
