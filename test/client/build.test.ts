import t from 'tap'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { createContext, runInContext } from 'node:vm'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { WebSocket } from 'ws'
import type * as Api from '../../lib/client/index.ts'
import { buildClient } from '../../scripts/build-client.mjs'
import { until } from '../helpers/until.ts'
import { message, position, scriptedServer } from './scripted-server.ts'

const root = join(import.meta.dirname, '..', '..')
const folder = mkdtempSync(join(tmpdir(), 'client-'))
t.teardown(() => rmSync(folder, { recursive: true }))
writeFileSync(join(folder, 'package.json'), '{"type":"module"}')
await buildClient(root, folder)
const small = await import(pathToFileURL(join(folder, 'client.min.js')).href) as typeof Api

t.test('the single file is smaller than 6 KB, compressed', async (t) => {
  const source = readFileSync(join(folder, 'client.min.js'))
  // The program compresses otherwise than the zlib in Node, and puts the name of the file into the result.
  const bytes = execFileSync('gzip', ['-9c', 'client.min.js'], { cwd: folder }).length
  t.comment(`${source.length} bytes, ${bytes} compressed`)
  t.ok(bytes < 6_144, `${bytes} bytes`)
  t.notMatch(source.toString(), /\b(import|require)\s*\(|from\s*["']/, 'it needs nothing else')
})

t.test('messages by name take less than 0.7 KB more, and less than 6.65 KB in all', async (t) => {
  const [plain = 0, withMessages = 0] = ['client.min.js', 'messages.min.js'].map(
    file => gzipSync(readFileSync(join(folder, file)), { level: 9 }).length
  )
  t.comment(`${withMessages - plain} bytes, compressed, of ${withMessages}`)
  t.ok(withMessages - plain < 717, `${withMessages - plain} bytes`)
  t.ok(withMessages < 6_810, `${withMessages} bytes`)
})

t.test('a bundle of one\'s own has under 6.3 KB, compressed, and under 6.95 KB with messages by name', async (t) => {
  for (const [file, most] of [['index', 6.3], ['messages', 6.95]] as const) {
    const contents = `import { connect } from './lib/client/${file}.ts'; globalThis.connect = connect`
    const { outputFiles } = await build({
      stdin: { contents, resolveDir: root }, bundle: true, minify: true, write: false, format: 'esm', target: 'es2022'
    })
    const bytes = gzipSync(outputFiles[0]?.contents ?? '', { level: 9 }).length
    t.comment(`${file}: ${bytes} bytes, compressed`)
    t.ok(bytes > 5_000 && bytes < most * 1_024, `${bytes} bytes`)
  }
})

t.test('the reader of streams takes less than 1.75 KB, compressed, beside the client', async (t) => {
  const source = readFileSync(join(folder, 'streams.min.js'))
  const bytes = gzipSync(source, { level: 9 }).length
  t.comment(`${source.length} bytes, ${bytes} compressed`)
  t.ok(bytes < 1_792, `${bytes} bytes`)
})

t.test('the hooks for React take less than 2 KB, compressed, beside React and the client', async (t) => {
  const { outputFiles } = await build({
    entryPoints: [join(root, 'lib', 'client', 'react.ts')],
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    external: ['react', './*.ts']
  })
  const bytes = gzipSync(outputFiles[0]?.contents ?? '', { level: 9 }).length
  t.comment(`${bytes} bytes compressed`)
  t.ok(bytes > 500 && bytes < 2_048, `${bytes} bytes`)
})

t.test('a bundle that imports the client and does not use it has nothing of it', async (t) => {
  const sizeOf = async (statement: string): Promise<number> => {
    const bundle = { bundle: true, minify: true, write: false, format: 'esm' } as const
    const { outputFiles } = await build({ ...bundle, stdin: { contents: statement, resolveDir: root } })
    return outputFiles[0]?.contents.length ?? NaN
  }
  for (const file of [join(root, 'lib', 'client', 'index.ts'), join(folder, 'client.min.js')]) {
    t.equal(await sizeOf(`import { connect } from ${JSON.stringify(file)}`), 0)
    t.ok(await sizeOf(`import { connect } from ${JSON.stringify(file)}; connect('')`) > 10_000, 'used, it is there')
  }
})

t.test('the client imports itself and protocol/ alone, and protocol/ imports nothing', async (t) => {
  const importsOf = (folder: string): string[] => readdirSync(join(root, 'lib', folder)).flatMap(file => {
    const source = readFileSync(join(root, 'lib', folder, file), 'utf8')
    const found = source.matchAll(/^(?:import|export)\b.*\bfrom '(.*)'$|\bimport\('(.*)'\)/gm)
    return [...found].map(([, from, called = '']) => `${file}: ${from ?? called}`)
  })
  const client = importsOf('client')
  t.ok(client.length > 30, 'it finds the imports')
  t.strictSame(client.filter(line => !/: (\.|\.\.\/protocol)\/[\w-]+\.ts$/.test(line)), ['react.ts: react'])
  t.strictSame(importsOf('protocol'), [])
})

t.test('the files with messages and streams have all methods of the sources by their names', async t => {
  for (const [file, name] of [['messages', 'MessageClient'], ['streams', 'Streams']] as const) {
    const [source, built] = await Promise.all([join(root, 'lib', 'client', `${file}.ts`), join(folder, `${file}.min.js`)].map(
      async path => await import(pathToFileURL(path).href) as Record<string, new () => object>
    ))
    const names = Object.getOwnPropertyNames(source?.[name]?.prototype)
    t.ok(names.length > 3, `it finds ${names.join()}`)
    t.strictSame(Object.getOwnPropertyNames(built?.[name]?.prototype), names)
  }
})

t.test('the small file does what the sources do: its shortened names are its own', async (t) => {
  const server = await scriptedServer(t, { welcome: { pingMs: 1_000 } })
  const got: unknown[] = []
  const client = small.connect(server.url, {
    WebSocket,
    token: () => ({ token: 'abc', expiresAt: Date.now() + 3_000 }),
    backoff: { minMs: 10 },
    queue: { maxMessages: 10 },
    positions: { old: position(9) }
  })
  t.teardown(() => client.close())
  for (const name of ['message', 'presence', 'members', 'joined', 'left', 'gap'] as const) {
    client.on(name, (event: object) => got.push({ ...event, type: name }))
  }
  const joining = client.join('g')
  const peer = await server.peer(0)
  await joining
  t.match(peer.frames, [{ type: 'hello', resume: { old: position(9) } }, { type: 'join', group: 'g' }])
  const member = { session: 'y', joinedAt: 1, connections: 1 }
  const frames = [
    { type: 'joined', group: 'g', position: position(1) },
    { type: 'members', group: 'g', members: [member] },
    { type: 'presence', group: 'g', event: 'leave', member, count: 1 },
    message('g', 2),
    { type: 'gap', group: 'g', reason: 'trimmed', position: position(5) }
  ]
  peer.send(...frames)
  await until(() => got.length === frames.length)
  t.strictSame(got, frames)
  t.strictSame(client.positions, { old: position(9), g: position(5) })
  t.strictSame([client.groups, client.members('g'), client.session, client.connectionId, client.state], [['g'], [], 's1', 'c1', 'open'])
  await client.send(new Uint8Array([1, 2]))
  client.send('x', { ack: false })
  await peer.got('token')
  await peer.got('ping')
  await client.leave('g')
  t.match(peer.frames.filter(({ type }) => type === 'message'), [{ data: 'AQI=', binary: true }, { data: 'x' }])
  peer.send({ type: 'reconnect', afterMs: 5 })
  peer.ws.close(1001)
  t.match((await server.peer(1)).frames[0], { session: 's1' })
  client.close()
  await t.rejects(client.send('late'), { code: 'CLOSED', name: 'ClientError' })
  t.equal(typeof small.ClientError, 'function')
})

t.test('the global build sets one global', async (t) => {
  const context = createContext({ URL, setTimeout, clearTimeout })
  runInContext(readFileSync(join(folder, 'client.global.min.js'), 'utf8'), context)
  t.strictSame(Object.keys(context).filter(name => !['URL', 'setTimeout', 'clearTimeout'].includes(name)), ['websocketGroups'])
  t.strictSame(Object.keys((context as unknown as { websocketGroups: object }).websocketGroups).sort(), ['ClientError', 'connect'])
})
