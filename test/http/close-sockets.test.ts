import t, { type Test } from 'tap'
import websocket from '@fastify/websocket'
import type { FastifyInstance, preHandlerHookHandler } from 'fastify'
import { connect as connectTcp, type AddressInfo } from 'node:net'
import websocketGroups, { type WebsocketGroupsOptions } from '../../plugin.ts'
import { connect } from '../helpers/client.ts'
import { FakeBackplane } from '../helpers/fakes.ts'
import { watchMachine } from '../helpers/machine.ts'
import { until } from '../helpers/until.ts'
import { bareService, gate, service, type Service } from '../helpers/service.ts'
import { rawConnection, requestHead, upgradeHead, type RawConnection } from './raw.ts'

const machine = watchMachine(t)

const closeGraceMs = 400
/** What `app.close()` may take: the machine may be busy, but what this is about takes 30 s and more. */
const limitMs = closeGraceMs + 1_000

interface Closing extends Service {
  readonly url: string
  /** Closes the app; resolves with how long that took. */
  close (): Promise<number>
}

async function start (t: Test, routes: (app: FastifyInstance) => void, options: WebsocketGroupsOptions = {}): Promise<Closing> {
  const built = await service(t, { closeGraceMs, ...options })
  routes(built.app)
  const url = await built.listen()
  return {
    ...built,
    url,
    async close () {
      const startedAt = performance.now()
      await built.app.close()
      return performance.now() - startedAt
    }
  }
}

async function says (t: Test, url: string, text: string): Promise<RawConnection> {
  const connection = await rawConnection(t, url)
  connection.write(text)
  return connection
}

t.test('an upgrade that waits for `authenticate` or a preHandler for ever gets 503, and holds up nothing', async t => {
  let waiting = 0
  const never = async (): Promise<never> => {
    waiting++
    return await new Promise(() => {})
  }
  const { url, close } = await start(t, app => {
    app.get('/auth', { websocket: true, preHandler: app.wsAuth({ authenticate: never }) }, app.wsHandler({ onMessage () {} }))
    app.get('/own', { websocket: true, preHandler: never }, app.wsHandler({ onMessage () {} }))
    app.get('/plain', { preHandler: app.wsAuth({ authenticate: never }) }, async () => 'plain')
  })
  const token = { Authorization: 'Bearer x' }
  const clients = [
    await says(t, url, upgradeHead('/auth', token)),
    await says(t, url, upgradeHead('/own')),
    await says(t, url, requestHead('GET /plain', token))
  ]
  const gone = await says(t, url, upgradeHead('/own'))
  await until(() => waiting === 4)
  gone.socket.destroy()
  const took = await close()
  machine.within(t, took, limitMs, 'closed')
  for (const client of clients) t.match(await client.answers(1), /^HTTP\/1\.1 503 [^]*"code":"WSG_REFUSED"/)
  await until(() => clients.every(({ over }) => over))
})

t.test('each upgrade that the shutdown refuses is counted once, also when its check fails afterwards', async t => {
  const checks: Array<(error: Error) => void> = []
  const check = async (): Promise<never> => await new Promise((_resolve, reject) => { checks.push(reject) })
  const failAll = (): void => { for (const fail of checks) fail(new Error('the service behind the check closed its connections')) }
  const closing = gate()
  const { app, url, close } = await start(t, app => {
    app.wsRoom('/auth/:room', { auth: { authenticate: check }, group: ({ room }) => `auth:${room}` })
    app.wsRoom('/group/:room', { auth: false, group: check as () => Promise<string> })
    app.get('/own', { websocket: true, preHandler: check }, app.wsHandler({ onMessage () {} }))
    app.get('/open', { websocket: true }, app.wsHandler({ onMessage () {}, onDisconnect: async () => await closing.opened }))
    app.get('/plain', { preHandler: app.wsAuth({ authenticate: check }) }, async () => 'plain')
  })
  const token = { Authorization: 'Bearer x' }
  const open = await says(t, url, upgradeHead('/open'))
  await until(() => app.registry.count() === 1)
  const clients = [
    await says(t, url, upgradeHead('/auth/a', token)),
    await says(t, url, upgradeHead('/group/a')),
    await says(t, url, upgradeHead('/own')),
    await says(t, url, requestHead('GET /plain', token))
  ]
  await until(() => checks.length === 4)
  const late = await rawConnection(t, url)
  const closed = close()
  for (const client of clients) t.match(await client.answers(1), /^HTTP\/1\.1 503 /)
  late.write(upgradeHead('/own'))
  t.match(await late.answers(1), /^HTTP\/1\.1 503 /)
  failAll()
  closing.open()
  await closed
  t.match(app.registry.stats(), { upgradesRefused: 4, refusedFailed: 0, refusedUnauthorized: 0 })
  open.socket.destroy()
})

t.test('an upgrade that the shutdown refuses while its user is counted is counted once', async t => {
  const backplane = new FakeBackplane()
  let answer: ((elsewhere: number) => void) | undefined
  backplane.onUser = async () => await new Promise(resolve => { answer = resolve })
  const closing = gate()
  const { app, url, close } = await start(t, app => {
    const identify: preHandlerHookHandler = (request, _reply, done) => {
      request.identity = { userId: 'ann' }
      done()
    }
    app.get('/own', { websocket: true, preHandler: identify }, app.wsHandler({ onMessage () {} }))
    app.get('/open', { websocket: true }, app.wsHandler({ onMessage () {}, onDisconnect: async () => await closing.opened }))
  }, { backplane, redis: undefined })
  const open = await says(t, url, upgradeHead('/open'))
  await until(() => app.registry.count() === 1)
  const client = await says(t, url, upgradeHead('/own'))
  await until(() => answer !== undefined)
  const closed = close()
  t.match(await client.answers(1), /^HTTP\/1\.1 503 /)
  answer?.(1_000)
  await until(() => app.registry.stats().admitted === 0)
  const { upgradesRefused, refusedUserFull } = app.registry.stats()
  closing.open()
  await closed
  t.strictSame({ upgradesRefused, refusedUserFull }, { upgradesRefused: 1, refusedUserFull: 0 })
  open.socket.destroy()
})

t.test('half a request, half a body, a silent and an idle connection hold up nothing', async t => {
  const { url, close } = await start(t, app => {
    app.get('/', async () => 'ok')
    app.post('/', async ({ body }) => body)
  })
  const idle = await says(t, url, requestHead('GET /', { Connection: 'keep-alive' }))
  await idle.answers(1)
  const clients = [
    idle,
    await says(t, url, ''),
    await says(t, url, 'GET / HTTP/1.1\r\nHost: te'),
    await says(t, url, requestHead('POST /', { 'Content-Type': 'application/json', 'Content-Length': '100' }) + '{"a":'),
    await says(t, url, upgradeHead('/').slice(0, -10))
  ]
  const took = await close()
  machine.within(t, took, limitMs, 'closed')
  await until(() => clients.every(({ over }) => over))
})

t.test('a client that does not read its answer holds up nothing; a handler that works on gets its time', async t => {
  const working = gate()
  let reached = false
  const { url, close } = await start(t, app => {
    app.get('/large', async () => Buffer.alloc(50_000_000))
    app.get('/working', async () => {
      reached = true
      await working.opened
      return 'worked'
    })
  })
  const slow = await rawConnection(t, url)
  slow.socket.pause()
  slow.write(requestHead('GET /large'))
  await until(() => slow.socket.readableLength > 0 || slow.socket.bytesRead > 0)
  const patient = await says(t, url, requestHead('GET /working'))
  await until(() => reached)
  const closed = close()
  await new Promise(resolve => setTimeout(resolve, limitMs))
  working.open()
  t.match(await patient.answers(1), /worked$/)
  await closed
})

t.test('WebSockets that the application handles itself are closed, and terminated when they do not answer', async t => {
  const codes: number[] = []
  const { url, close } = await start(t, app => {
    app.get('/own', { websocket: true }, socket => { socket.on('close', code => { codes.push(code) }) })
  })
  const polite = connect(t, `${url}/own`)
  const mute = await says(t, url, upgradeHead('/own'))
  await polite.opened
  await mute.answers(1)
  const took = await close()
  machine.within(t, took, limitMs, 'closed')
  t.equal((await polite.closed).code, 1005)
  await until(() => codes.length === 2)
})

t.test('upgrades of routes that take none, and of nothing, leave no socket behind', async t => {
  const { url, close } = await start(t, app => { app.get('/plain', async () => 'plain') })
  const clients: RawConnection[] = []
  for (const path of ['/plain', '/nothing']) clients.push(await says(t, url, upgradeHead(path)))
  for (const client of clients) t.match(await client.answers(1), /^HTTP\/1\.1 404 /)
  machine.within(t, await close(), limitMs, 'closed')
  await until(() => clients.every(({ over }) => over))
})

t.test('clients of injectWS cost no time', async t => {
  const { app, close } = await start(t, app => { app.wsRoom('/ws/:room', { auth: false }) }, { closeGraceMs: 20_000 })
  const clients = [await app.injectWS('/ws/a'), await app.injectWS('/ws/a')]
  await until(async () => await app.registry.groupCount('a') === 2)
  const closed = clients.map(async client => await new Promise(resolve => client.on('close', resolve)))
  clients[0]?.close(4_001)
  t.equal(await closed[0], 4_001)
  await until(() => app.registry.stats().connectionsClosed === 1)
  const took = await close()
  t.equal(await closed[1], 1_001)
  machine.within(t, took, 1_000, 'closed')
})

t.test('a second address, and what its clients leave undone', async t => {
  const { app } = await service(t, { closeGraceMs })
  app.get('/', async () => 'ok')
  await app.listen({ port: 0, host: 'localhost' })
  const sockets = (app.addresses() as AddressInfo[]).map(({ address, port }) => connectTcp({ host: address, port }))
  for (const socket of sockets) {
    socket.on('error', () => {}).write('GET / HTTP/1.1\r\nHost: te')
    t.teardown(() => socket.destroy())
  }
  await until(() => sockets.every(socket => socket.bytesWritten > 0 && !socket.connecting))
  const startedAt = performance.now()
  await app.close()
  machine.within(t, performance.now() - startedAt, limitMs, 'closed')
  await until(() => sockets.every(socket => socket.destroyed || socket.readableEnded))
})

t.test('an application that registered @fastify/websocket itself closes as fast', async t => {
  const { app, listen } = bareService(t)
  await app.register(websocket)
  await app.register(websocketGroups, { closeGraceMs })
  app.get('/own', { websocket: true }, () => {})
  const url = await listen()
  const mute = await says(t, url, upgradeHead('/own'))
  t.match(await mute.answers(1), /^HTTP\/1\.1 101 /)
  const startedAt = performance.now()
  await app.close()
  machine.within(t, performance.now() - startedAt, limitMs, 'closed')
})
