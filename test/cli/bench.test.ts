import t from 'tap'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { BenchResult } from '../../lib/cli/report.ts'
import { run } from '../../lib/cli/run.ts'
import { childEnvironment, nodeArguments } from '../helpers/child.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { freePort } from '../helpers/ports.ts'
import { startRedis } from '../helpers/redis.ts'
import { serve } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

// Against a server that listens: as a process, and for what needs none as the function that the process calls.
noUnhandled(t)
t.jobs = 4
const redis = await startRedis(t)
const program = fileURLToPath(new URL('../../lib/cli/main.ts', import.meta.url))

interface Outcome { readonly code: number | null, readonly stdout: string, readonly stderr: string }

interface StartOptions { readonly more?: readonly string[], readonly interruptAt?: RegExp }

async function start (args: readonly string[], { more = [], interruptAt }: StartOptions = {}): Promise<Outcome> {
  const child = spawn(
    process.execPath, [...nodeArguments, ...more, program, ...args], { env: childEnvironment(), stdio: ['ignore', 'pipe', 'pipe'] }
  )
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => { stdout += text })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
    if (interruptAt?.test(text) === true) child.kill('SIGINT')
  })
  const [code] = await once(child, 'close') as [number | null]
  return { code, stdout, stderr }
}

async function call (args: readonly string[]): Promise<Outcome> {
  let [stdout, stderr] = ['', '']
  const code = await run(args, {
    stdout: { write: text => (stdout += String(text)) !== '' },
    stderr: { write: text => (stderr += String(text)) !== '', isTTY: false },
    once: () => {},
    off: () => {}
  })
  return { code, stdout, stderr }
}

const bench = async (
  address: string, ...args: readonly string[]
): Promise<Outcome> => await call(['bench', address, '--seconds', '1', ...args])

const { url, registry } = await serve(t, { redis: redis.url }, app => {
  app.wsRoom('/open/:room', { auth: false, group: ({ room }) => `open:${room}` })
  app.wsRoom('/private/:room', { group: ({ room }) => `private:${room}` })
  app.wsRoom('/late/:room', {
    auth: false,
    group: ({ room }) => `late:${room}`,
    onMessage: async (_connection, data, group) => {
      await sleep(700)
      await app.registry.broadcastToGroup(group, data)
    }
  })
  app.wsRoom('/deaf/:room', { auth: false, group: ({ room }) => `deaf:${room}`, onMessage: () => {} })
  app.wsRoom('/strict/:room', {
    auth: false,
    group: ({ room }) => `strict:${room}`,
    onMessage: async (connection, data, group) => {
      const { text } = JSON.parse(String(data)) as { text: string }
      await app.registry.broadcastToGroup(group, JSON.stringify({ said: text }), { from: connection })
    }
  })
  app.get('/ws', { websocket: true }, app.wsHandler({
    mayJoin: (_connection, group) => group.startsWith('mine'),
    onMessage: async (connection, data) => { await app.registry.broadcastToGroup([...connection.groups], data) }
  }))
})

t.test('raw clients of a room: every message is counted, timed, and in a table', async (t) => {
  const args = ['--room', 'lobby', '--clients', '20', '--rate', '50', '--seconds', '1']
  const { code, stdout, stderr } = await start(['bench', `${url}/open/{room}`, ...args])
  t.equal(code, 0, 'nothing was lost', { stdout, stderr })
  t.match(stdout, /20 clients in 1 room, 50 messages\/s of 120 bytes for 1 s$/m)
  t.match(stdout, /^delivery( +\d+\.\d){4}$/m)
  t.match(stdout, /^sent +50 of 50$/m)
  t.match(stdout, /^delivered +950 of 950 \(100 %\), \d+ per second$/m)
  t.match(stdout, /^missing +0$/m)
  t.match(stdout, /^This program: \d+ % of a core/m)
  t.match(stdout, /^The server is on this machine, too/m)
  t.match(stderr, /^connecting: \d+ of 20$/m)
})

t.test('framed clients join several rooms by themselves, and the result is JSON', async (t) => {
  const { code, stdout } = await bench(`${url}/ws`, '--protocol', 'framed', '--room', 'mine', '--rooms', '3', '--clients', '12', '--json')
  t.equal(code, 0)
  const result = JSON.parse(stdout) as BenchResult
  t.match(result, { protocol: 'framed', rooms: 3, connected: 12, sent: 10, due: 30, delivered: 30, doubled: 0, outOfOrder: 0, refused: [] })
  t.type(result.joinMs?.p99, 'number')
  t.type(result.own.cpu, 'number')
})

t.test('each client has its own token and its own headers, and says what the route wants', async (t) => {
  const mine = await bench(`${url}/private/{room}`, '--room', 'a', '--clients', '4', '--token', 'user-{n}', '--json')
  t.match(JSON.parse(mine.stdout), { connected: 4, delivered: 30 })
  const header = await bench(`${url}/private/{room}`, '--room', 'a', '--clients', '4', '--header', 'authorization: Bearer h{n}', '--json')
  t.match(JSON.parse(header.stdout), { connected: 4, delivered: 30 })
  const strict = await bench(`${url}/strict/{room}`, '--room', 'a', '--clients', '4', '--message', '{"text":"{message}"}', '--json')
  t.match(JSON.parse(strict.stdout), { delivered: 40 - 10, failed: [] })
})

t.test('with one sender in each room it begins as soon as with several', async (t) => {
  const args = ['--room', 'one', '--clients', '4', '--senders', '1', '--timeout', '600', '--json']
  const { code, stdout } = await bench(`${url}/open/{room}`, ...args)
  t.equal(code, 0)
  t.match(JSON.parse(stdout), { connected: 4, sent: 10, delivered: 30 })
})

t.test('who does not get in is told why', async (t) => {
  for (const protocol of ['raw', 'framed']) {
    const args = ['--room', 'a', '--clients', '3', '--protocol', protocol]
    const without = await bench(`${url}/private/{room}`, ...args)
    t.match(without, { code: 1, stdout: '', stderr: /none of 3 clients got in: 3 x 401: who are the clients\? See --token/ }, protocol)
    t.match(await bench(`${url}/nowhere/{room}`, ...args), { code: 1, stderr: /3 x 404: is the path right\?/ }, protocol)
    const port = await freePort()
    t.match(await bench(`ws://127.0.0.1:${port}/{room}`, ...args), { code: 1, stderr: /3 x nothing listens at this address/ }, protocol)
  }
  const foreign = await bench(`${url}/ws`, '--protocol', 'framed', '--room', 'theirs', '--clients', '2')
  t.match(foreign, { code: 1, stderr: /2 x the route does not let clients join/ })
})

t.test('some are refused: the others are measured, and the program says so', async (t) => {
  const limited = await serve(t, { limits: { connectionsPerAddress: 5 } }, app => { app.wsRoom('/:room', { auth: false }) })
  const { code, stdout } = await bench(`${limited.url}/{room}`, '--room', 'a', '--clients', '8')
  t.equal(code, 1)
  t.match(stdout, /5 clients in 1 room/)
  t.match(stdout, /^refused +3 x 429: a limit of the server/m)
})

t.test('where too few get in or stay to hear each other, the reasons of the server are told', async (t) => {
  const forOne = await serve(t, { limits: { connectionsPerAddress: 1 } }, app => { app.wsRoom('/:room', { auth: false }) })
  const closing = await serve(t, {}, app => {
    app.get('/framed/:room', { websocket: true }, app.wsHandler({ onConnect: one => one.close(4321, 'enough'), onMessage () {} }))
    // All in one turn, and only when the program knows that all are in: it gives up as soon as one is alone.
    app.get('/raw/:room', { websocket: true }, app.wsHandler({
      onMessage () { for (const one of app.registry.all()) one.close(4321, 'enough') }
    }))
  })
  for (const protocol of ['raw', 'framed']) {
    const args = ['--room', 'a', '--clients', '3', '--protocol', protocol]
    const alone = await bench(`${forOne.url}/{room}`, ...args)
    t.match(alone, { code: 1, stderr: /no room has two clients: 1 of 3 got in and stayed\. The server said: 2 x 429/ }, protocol)
    t.match(await bench(`${closing.url}/${protocol}/{room}`, ...args, '--timeout', '2'), { code: 1, stderr: /3 x .*4321 enough/ }, protocol)
  }
})

t.test('a route that tells nobody is named as the cause', async (t) => {
  const { code, stderr } = await bench(`${url}/deaf/{room}`, '--room', 'a', '--clients', '3', '--timeout', '1')
  t.equal(code, 1)
  t.match(stderr, /no client received what another one sent: does the route send it to the room/)
})

t.test('clients that are cut off are counted, and what others got is measured', async (t) => {
  const running = bench(`${url}/open/{room}`, '--room', 'cut', '--clients', '6', '--rate', '30', '--seconds', '3')
  await until(async () => (await registry.history('open:cut')).messages.length > 5)
  const [one] = registry.filter(({ groups }) => groups.includes('open:cut'))
  t.ok(one)
  if (one !== undefined) await registry.disconnect(one, { code: 4321, reason: 'enough' })
  const { code, stdout } = await running
  t.equal(code, 1)
  t.match(stdout, /^cut off +1 x closed with 4321 enough$/m)
  t.match(stdout, /^delivered +[1-9]/m)
})

t.test('it says when it was the bottleneck itself', async (t) => {
  // Holds the event loop for most of the time.
  const busy = 'setInterval(() => { const end = Date.now() + 60; while (Date.now() < end); }, 70).unref()'
  const { stdout } = await start(
    ['bench', `${url}/open/{room}`, '--room', 'slow', '--clients', '4', '--seconds', '1'],
    { more: ['--import', `data:text/javascript,${encodeURIComponent(busy)}`] }
  )
  t.match(stdout, /^It was the bottleneck: .*its event loop was \d+ ms late/m)
  t.match(stdout, /^The times above are more its own than the server's/m)
  t.match(stdout, /^While the clients connected it was: .*its event loop was \d+ ms late/m)
})

t.test('Ctrl-C ends it early, with what was measured until then', async (t) => {
  const { code, stdout } = await start(
    ['bench', `${url}/late/{room}`, '--room', 'long', '--clients', '4', '--rate', '2', '--seconds', '600'], { interruptAt: /^1 s of 600/m }
  )
  t.equal(code, 0, 'what was under way was received', { stdout })
  t.match(stdout, /messages\/s of 120 bytes for \d(\.\d)? s$/m)
})

t.test('Ctrl-C ends it while clients wait for a server that does not answer', async (t) => {
  const silent = createServer().listen(0, '127.0.0.1')
  await once(silent, 'listening')
  t.teardown(() => silent.close())
  const address = `ws://127.0.0.1:${(silent.address() as AddressInfo).port}/{room}`
  for (const protocol of ['raw', 'framed']) {
    const args = ['bench', address, '--room', 'a', '--clients', '2', '--protocol', protocol, '--timeout', '3600']
    const { code, stderr } = await start(args, { interruptAt: /connecting/ })
    t.equal(code, 1, protocol)
    t.match(stderr, /ended before anything was measured/)
  }
})

t.test('wrong arguments are refused with what would be right', async (t) => {
  const room = ['--room', 'a']
  const wrong: ReadonlyArray<readonly [args: readonly string[], message: RegExp]> = [
    [['attack'], /there is no command attack/],
    [['bench', ...room], /give one address/],
    [['bench', 'ws://x/{room}', 'ws://y', ...room], /give one address/],
    [['bench', 'ws://x/{room}'], /give --room/],
    [['bench', 'ftp://x/{room}', ...room], /must begin with ws:\/\/ or wss:\/\//],
    [['bench', 'ws://x/ws', ...room], /write \{room\} where the room goes/],
    [['bench', 'ws://x/{room}', ...room, '--clients', '1'], /--clients must be an integer from 2 to 100000, not 1/],
    [['bench', 'ws://x/{room}', ...room, '--rate', '1e9'], /--rate must be an integer/],
    [['bench', 'ws://x/{room}', ...room, '--clients', '5', '--rooms', '3'], /each of 3 rooms needs two/],
    [['bench', 'ws://x/{room}', ...room, '--protocol', 'mqtt'], /--protocol must be raw or framed/],
    [['bench', 'ws://x/{room}', ...room, '--message', 'hi'], /must have \{message\} in it/],
    [['bench', 'ws://x/{room}', ...room, '--header', 'no line'], /--header must be a line/],
    [['bench', 'ws://x/{room}', ...room, '--wat'], /--wat/]
  ]
  for (const [args, message] of wrong) t.match(await call(args), { code: 2, stdout: '', stderr: message }, args.join(' '))
  t.match(await call(['--help']), { code: 0, stdout: /^Usage: npx fastify-websocket-groups bench/ })
  t.match(await call(['--version']), { code: 0, stdout: /^\d+\.\d+\.\d+$/m })
})
