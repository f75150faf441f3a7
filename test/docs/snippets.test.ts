import t, { type Test } from 'tap'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { connect } from '../helpers/client.ts'
import { freePort } from '../helpers/ports.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import {
  complaints, isProgram, nameOf, optionalWithoutUndefined, project, publicDeclarations, readPage, snippetsOf, writeProgram, type Snippet
} from './snippets.ts'

const root = join(import.meta.dirname, '..', '..')
const pages = [
  ...readdirSync(root).filter(name => name.endsWith('.md')),
  ...readdirSync(join(root, 'docs')).filter(name => name.endsWith('.md')).map(name => `docs/${name}`),
  'bench/README.md',
  'example-app/README.md',
  'example-app/workspace/README.md'
]
const snippets = pages.flatMap(page => snippetsOf(page, readPage(page)))
const services = snippets.filter(({ kind }) => kind === 'serve') as [Snippet, Snippet]

const folder = project()
t.teardown(() => rmSync(folder, { recursive: true }))

interface Running { readonly ended: Promise<number | null>, readonly output: string, kill (signal: NodeJS.Signals): void }

/** Starts a program with the package installed and nothing else; ends it with the test. */
function start (t: Test, file: string, env: Readonly<Record<string, string>>): Running {
  // Without NODE_OPTIONS: tap puts its loader and its coverage there.
  const { NODE_OPTIONS: _, ...inherited } = process.env
  const child = spawn(process.execPath, [file], { cwd: folder, env: { ...inherited, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (chunk: string) => { output += chunk })
  const ended = once(child, 'close').then(([code]) => code as number | null)
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
  })
  return { ended, get output () { return output }, kill: signal => { child.kill(signal) } }
}

t.test('every snippet compiles: strict, and with exact optional properties', async (t) => {
  t.ok(snippets.length > 10, 'there are snippets')
  t.strictSame(complaints(snippets, folder), [])
})

t.test('an optional property of a public type takes `undefined`, so that exact optional properties are no burden', async (t) => {
  const files = publicDeclarations()
  t.ok(files.length > 10, 'there are declarations')
  t.strictSame(optionalWithoutUndefined(files), [])
})

t.test('programs that end by themselves end well', async (t) => {
  const redis = await startRedis(t)
  const programs = snippets.filter(({ kind }) => kind === 'run')
  t.ok(programs.length > 0, 'there are programs')
  for (const program of programs) {
    const running = start(t, writeProgram(program, folder), { REDIS_URL: redis.url })
    t.equal(await running.ended, 0, nameOf(program), { output: running.output })
  }
})

t.test('every program that goes on has a test below', async (t) => {
  t.strictSame(services.map(({ page }) => page), ['README.md', 'docs/operations.md'])
})

t.test('the service of the README does what the README says, on two instances', async (t) => {
  const redis = await startRedis(t)
  const [service] = services
  const ports = [await freePort(), await freePort()] as const
  const file = writeProgram(service, folder)
  for (const port of ports) {
    const running = start(t, file, { REDIS_URL: redis.url, PORT: String(port) })
    await until(() => running.output.includes(`:${port}`), { timeoutMs: 30_000, what: 'the service to listen' })
  }
  const headers = { authorization: 'Bearer valid-token' }
  const clients = ports.map(port => connect(t, `http://localhost:${port}/ws/chat/lobby`, { headers }))
  for (const client of clients) await client.opened
  // A broadcast may come before the second client is in the room: the first one that both hear is what counts.
  const everywhere = async (text: string, say: () => unknown): Promise<void> => {
    await until(async () => {
      await say()
      return clients.every(client => client.messages.includes(text))
    }, { everyMs: 100, what: `both clients to hear '${text}'` })
  }
  await everywhere('hi', () => clients[0]?.send('hi'))
  await everywhere('hello from HTTP', () => fetch(`http://localhost:${ports[1]}/rooms/lobby`, { method: 'POST' }))
  t.pass('both clients heard each other and the HTTP route')

  const refused = await fetch(`http://localhost:${ports[0]}/ws/chat/lobby`, { headers: { authorization: 'Bearer no-token' } })
  t.not(refused.status, 200)
})

t.test('the service of docs/operations.md serves until it is told to end, and ends well', async (t) => {
  const [, service] = services
  const port = await freePort()
  const code = service.code.replace('port: 3000', `port: ${port}`)
  t.not(code, service.code, 'on a port of its own')
  const running = start(t, writeProgram({ ...service, code }, folder), {})
  await until(async () => (await fetch(`http://127.0.0.1:${port}/readyz`)).status === 200, { timeoutMs: 30_000 })
  running.kill('SIGTERM')
  t.equal(await running.ended, 0, { output: running.output })
})

t.test('the checks above find what they look for', async (t) => {
  const page = [
    '# Title', '', '```ts', "import { createPublisher } from 'fastify-websocket-groups'", 'createPublisher({ redis: 5 })', '```', '',
    '<!-- snippet: in a service -->', '```js', 'app.registry.noSuch()', '```', '', '<!-- snippet: in space -->', '```ts', '1', '```', '',
    '<!-- snippet: run -->', '```js', 'const a: number = ""', '```'
  ].join('\n')
  const found = snippetsOf('page.md', page)
  t.strictSame(found.map(snippet => [snippet.line, snippet.kind, isProgram(snippet)]), [
    [4, 'module', false], [10, 'in a service', false], [15, 'in space', false], [20, 'run', true]
  ])
  t.match(complaints(found, folder), [
    "page.md:15: there is no kind of snippet called 'in space'",
    /^page\.md:5: .*number/,
    /^page\.md:10: .*noSuch/,
    /^page\.md:20: .*not assignable/
  ])

  const declarations = join(folder, 'declarations.d.ts')
  writeFileSync(declarations, `
    export interface Direct { a?: string, right?: string | undefined, any?: unknown }
    export type Both = { b?: string } & { c?: { d?: true } | undefined }
    export declare class Class { e?: string; method (options: { f?: string }, last?: string): void }
    declare module 'fastify' { interface FastifyInstance { own: <T>(options: { g?: T }) => void } }
  `)
  t.strictSame(optionalWithoutUndefined([declarations]).map(place => place.at(-1)), ['a', 'b', 'd', 'e', 'f', 'g'])
})
