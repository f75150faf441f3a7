import t from 'tap'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { watchMachine } from '../helpers/machine.ts'
import { until } from '../helpers/until.ts'
import { fakeTime } from './fake-time.ts'
import { isOpen, message, position, recordedClient, scriptedServer } from './scripted-server.ts'

const machine = watchMachine(t)
// A wait is drawn at random, and may be over before anybody saw that the client waits.
t.intercept(Math, 'random', { value: () => 0.9 })

// What a page is to the client, without a browser; test/client/browser.test.ts has one.
class Listeners {
  readonly all = new Map<string, Set<() => void>>()
  addEventListener = (name: string, listener: () => void): void => { this.all.set(name, (this.all.get(name) ?? new Set()).add(listener)) }
  removeEventListener = (name: string, listener: () => void): void => { this.all.get(name)?.delete(listener) }
  fire (name: string): void { for (const listener of this.all.get(name) ?? []) listener() }
  get count (): number { return [...this.all.values()].reduce((sum, { size }) => sum + size, 0) }
}

const page = new Listeners()
const document = Object.assign(new Listeners(), { visibilityState: 'visible' })
const navigator = { onLine: true }
const { addEventListener, removeEventListener } = page
for (const [name, value] of Object.entries({ addEventListener, removeEventListener, document, navigator })) {
  Object.defineProperty(globalThis, name, { value, configurable: true })
}
const { connect } = await import('../../lib/client/index.ts')

t.beforeEach(() => {
  navigator.onLine = true
  document.visibilityState = 'visible'
})

t.test('after close() no listener is left', async (t) => {
  const server = await scriptedServer(t)
  t.equal(page.count + document.count, 0)
  const { client } = recordedClient(t, server.url)
  t.equal(page.count + document.count, 6)
  client.close()
  t.equal(page.count + document.count, 0)
  const peer = connect(server.url, { WebSocket: (await import('ws')).WebSocket })
  peer.close()
  t.equal(page.count + document.count, 0)
})

t.test('offline: a connection that is dead is left, the client waits for the network and comes back with it', async (t) => {
  const time = fakeTime(t)
  const server = await scriptedServer(t, { welcome: { pingMs: 100 }, pong: false })
  const { client } = recordedClient(t, server.url, { backoff: { minMs: 1, maxMs: 30_000 } })
  const peer = await server.peer(0)
  await isOpen(client)
  navigator.onLine = false
  page.fire('offline')
  await peer.got('ping')
  time.pass(100)
  await until(() => client.state === 'offline')
  time.pass(60_000)
  t.equal(client.state, 'offline', 'no attempts meanwhile')
  t.equal(server.peers.length, 1)
  navigator.onLine = true
  page.fire('online')
  t.equal(client.state, 'connecting')
  await server.peer(1)
})

t.test('offline that is not true does not end a connection that works, nor keep the client away for ever', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url, { backoff: { minMs: 1, maxMs: 100 } })
  const peer = await server.peer(0)
  await isOpen(client)
  navigator.onLine = false
  page.fire('offline')
  await peer.got('ping')
  await new Promise(resolve => setTimeout(resolve, 50))
  t.equal(client.state, 'open')
  peer.ws.terminate()
  await until(() => client.state === 'offline')
  await server.peer(1)
  await isOpen(client)
})

t.test('a client that waits becomes offline, and goes on waiting for nothing but the network', async (t) => {
  const server = await scriptedServer(t, { refuse: () => 503 })
  const { client, events } = recordedClient(t, server.url, { backoff: { minMs: 20_000, maxMs: 25_000 } })
  await until(() => client.state === 'waiting')
  navigator.onLine = false
  page.fire('offline')
  t.match(events.state.at(-1), { state: 'offline', previous: 'waiting', retryInMs: 25_000 })
  page.fire('online')
  t.equal(client.state, 'connecting')
})

for (const [target, name] of [[page, 'pageshow'], [document, 'resume'], [document, 'visibilitychange']] as const) {
  t.test(`on ${name} a client that waits tries at once, and one that is open is asked whether it lives`, async (t) => {
    const server = await scriptedServer(t)
    const { client } = recordedClient(t, server.url, { backoff: { minMs: 30_000 } })
    const first = await server.peer(0)
    await isOpen(client)
    target.fire(name)
    await first.got('ping')
    first.ws.terminate()
    await until(() => client.state === 'waiting')
    target.fire(name)
    await server.peer(1)
  })
}

t.test('but not before the server wants it back', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url)
  const first = await server.peer(0)
  await isOpen(client)
  first.send({ type: 'reconnect', afterMs: 400 })
  first.ws.close(1001)
  await until(() => client.state === 'waiting')
  page.fire('online')
  t.equal(client.state, 'waiting')
  await server.peer(1)
})

t.test('nor when the network goes meanwhile', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url, { backoff: { minMs: 1, maxMs: 1 } })
  const first = await server.peer(0)
  await isOpen(client)
  first.send({ type: 'reconnect', afterMs: 60_000 })
  first.ws.close(1001)
  await until(() => client.state === 'waiting')
  navigator.onLine = false
  page.fire('offline')
  t.match(events.state.at(-1), { state: 'offline' })
  t.ok((events.state.at(-1)?.retryInMs ?? 0) > 50_000, 'it was offline after the server had said so')

  const other = recordedClient(t, server.url, { backoff: { minMs: 1, maxMs: 1 } })
  const second = await server.peer(1)
  await isOpen(other.client)
  second.send({ type: 'reconnect', afterMs: 60_000 })
  second.ws.close(1001)
  await until(() => other.client.state === 'offline')
  t.ok((other.events.state.at(-1)?.retryInMs ?? 0) >= 60_000, 'it was offline before')
})

t.test('pagehide closes the connection for a while, so that the page may be cached', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url, { backoff: { minMs: 30_000 } })
  await server.peer(0)
  await isOpen(client)
  page.fire('pagehide')
  t.equal(client.state, 'waiting')
  page.fire('pageshow')
  await server.peer(1)
})

t.test('positions and session are kept in the storage when the page may go, and taken from there', async (t) => {
  const server = await scriptedServer(t)
  const items = new Map<string, string>()
  const storage = { getItem: (key: string) => items.get(key) ?? null, setItem: (key: string, value: string) => { items.set(key, value) } }
  const first = recordedClient(t, server.url, { storage })
  const peer = await server.peer(0)
  peer.send({ type: 'joined', group: 'g', position: position(1) }, message('g', 2))
  await until(() => first.events.message.length === 1)
  t.equal(items.size, 0)
  document.visibilityState = 'hidden'
  document.fire('visibilitychange')
  t.equal(items.size, 1)
  peer.send(message('g', 3))
  await until(() => first.events.message.length === 2)
  first.client.close()

  const second = recordedClient(t, server.url, { storage })
  t.match((await server.peer(1)).frames[0], { session: 's1', resume: { g: position(3) } })
  second.client.close()
  const own = recordedClient(t, server.url, { storage, positions: {}, session: 'mine' })
  t.match((await server.peer(2)).frames[0], { session: 'mine', resume: {} })
  own.client.close()
  const anew = recordedClient(t, server.url, { storage, keep: 'session' })
  t.match(
    (await server.peer(3)).frames[0], { session: String, resume: {} }, 'with `keep: session` it is the same client, and gets history anew'
  )
  anew.client.close()
  t.strictSame(Object.keys(JSON.parse([...items.values()][0] ?? '') as object), ['session'], 'and no positions are kept')

  for (const broken of ['{', null, 'null']) {
    const throwing = { getItem: () => broken, setItem: () => { throw new Error('full') } }
    const { client } = recordedClient(t, server.url, { storage: throwing })
    await isOpen(client)
    client.close()
  }
})

t.test('a session that another page uses is left to that page, where the browser has Web Locks', async (t) => {
  const held = new Set<string>()
  const request = async (name: string, _options: object, use: (lock: object | null) => Promise<void> | undefined): Promise<void> => {
    if (held.has(name)) return await use(null)
    held.add(name)
    await use({ name })
    held.delete(name)
  }
  Object.assign(navigator, { locks: { request } })
  t.teardown(() => Reflect.deleteProperty(navigator, 'locks'))
  let sessions = 0
  const server = await scriptedServer(t, {
    welcome: false,
    onFrame: ({ send }, { type, session }) => {
      if (type === 'hello') send({ type: 'welcome', connectionId: 'c', session: session ?? `s${++sessions}`, pingMs: 0, resumeMs: 0 })
    }
  })
  const items = new Map<string, string>()
  const storage = { getItem: (key: string) => items.get(key) ?? null, setItem: (key: string, value: string) => { items.set(key, value) } }
  const tab = recordedClient(t, server.url, { storage })
  await isOpen(tab.client)
  document.visibilityState = 'hidden'
  document.fire('visibilitychange')
  const copied = new Map(items)
  const copy = recordedClient(t, server.url, { storage: { ...storage, getItem: key => copied.get(key) ?? null } })
  await isOpen(copy.client)
  t.strictSame([tab.client.session, copy.client.session], ['s1', 's2'])
  tab.client.close()
  await until(() => !held.has('wsg:s1'))
  const reloaded = recordedClient(t, server.url, { storage: { ...storage, getItem: key => copied.get(key) ?? null } })
  await isOpen(reloaded.client)
  t.equal(reloaded.client.session, 's1', 'once it is free')
  const given = recordedClient(t, server.url, { session: 's1' })
  await isOpen(given.client)
  t.equal(given.client.session, 's1', 'a session that the page names is taken as it is')
  for (const { client } of [copy, reloaded, given]) client.close()
  await until(() => held.size === 0)
})

t.test('after close() nothing holds the process: not in any state', async (t) => {
  const server = await scriptedServer(t, { welcome: { pingMs: 60_000 } })
  const refusing = await scriptedServer(t, { refuse: () => 503 })
  const script = `
    import { WebSocket } from 'ws'
    import { connect } from ${JSON.stringify(join(import.meta.dirname, '..', '..', 'lib', 'client', 'index.ts'))}
    const options = { WebSocket, backoff: { minMs: 60_000 }, token: () => ({ token: 'x', expiresAt: Date.now() + 3_600_000 }) }
    const closing = []
    for (const [url, state] of [['${server.url}', 'open'], ['${server.url}', 'connecting'], ['${refusing.url}', 'waiting']]) {
      const client = connect(url, options)
      const end = () => { client.close(); console.log('closed in ' + state) }
      if (state === 'connecting') end()
      else client.on('state', change => { if (change.state === state) end() })
    }`
  const { NODE_OPTIONS: _, ...env } = process.env
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
    cwd: join(import.meta.dirname, '..', '..'), env, stdio: ['ignore', 'pipe', 'inherit']
  })
  t.teardown(() => child.kill('SIGKILL'))
  let output = ''
  let lastAt = 0
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
    lastAt = Date.now()
  })
  const code = await new Promise(resolve => child.on('close', resolve))
  t.equal(code, 0)
  t.strictSame(output.trim().split('\n').sort(), ['closed in connecting', 'closed in open', 'closed in waiting'])
  machine.within(t, Date.now() - lastAt, 2_000, 'the process ended')
})
