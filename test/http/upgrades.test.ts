import t, { type Test } from 'tap'
import { execFile } from 'node:child_process'
import { request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { promisify } from 'node:util'
import websocket from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import websocketGroups from '../../plugin.ts'
import { connect, upgradeStatus } from '../helpers/client.ts'
import { bareService, service } from '../helpers/service.ts'
import { rawConnection, requestHead, upgradeHead } from './raw.ts'

const h2c = { Connection: 'Upgrade, HTTP2-Settings', Upgrade: 'h2c', 'HTTP2-Settings': 'AAMAAABkAAQCAAAAAAIAAAAA' }
const chunked = { 'Content-Type': 'application/json', 'Transfer-Encoding': 'chunked' }
const json = (body: string): Record<string, string> => ({ 'Content-Type': 'application/json', 'Content-Length': String(body.length) })

function addRoutes (app: FastifyInstance): void {
  app.get('/healthz', async () => ({ ok: true }))
  app.post('/echo', async ({ body }) => ({ got: body }))
}

/** What each service answers to the same bytes, without the date. */
async function both (t: Test, bytes: string, answers: number): Promise<{ bare: string, withPlugin: string }> {
  const bare = bareService(t)
  addRoutes(bare.app)
  const { app, listen } = await service(t)
  addRoutes(app)
  app.wsRoom('/ws/:room', { auth: false })
  const seen = await Promise.all([bare.listen(), listen()].map(async url => {
    const connection = await rawConnection(t, await url)
    connection.write(bytes)
    return (await connection.answers(answers)).replaceAll(/Date: .*\r\n/g, '')
  }))
  return { bare: seen[0] ?? '', withPlugin: seen[1] ?? '' }
}

t.test('a request that offers another upgrade is answered as without the plugin', async t => {
  const body = '{"hello":"x"}'
  const cases = {
    'GET h2c': requestHead('GET /healthz', h2c),
    'POST h2c with a body': requestHead('POST /echo', { ...h2c, ...json(body) }) + body,
    'POST h2c with a chunked body': `${requestHead('POST /echo', { ...h2c, ...chunked })}d\r\n${body}\r\n0\r\n\r\n`,
    'GET TLS/1.0': requestHead('GET /healthz', { Connection: 'Upgrade', Upgrade: 'TLS/1.0' }),
    'GET with a list': requestHead('GET /healthz', { ...h2c, Upgrade: 'h2c, websocket' }),
    'POST websocket': requestHead('POST /echo', { Connection: 'Upgrade', Upgrade: 'websocket', ...json(body) }) + body,
    'GET websocket of HTTP/1.0': upgradeHead('/healthz').replace('HTTP/1.1', 'HTTP/1.0'),
    'unknown path': requestHead('GET /nothing', h2c)
  }
  for (const [name, bytes] of Object.entries(cases)) {
    const { bare, withPlugin } = await both(t, bytes, 1)
    t.equal(withPlugin, bare, name)
    t.match(bare, /^HTTP\/1\.1 (200|404)/)
  }
})

t.test('such requests keep their connection, and the last may become a WebSocket', async t => {
  const body = '{"hello":"x"}'
  const post = requestHead('POST /echo', { ...h2c, ...json(body) }) + body
  const get = requestHead('GET /healthz', h2c)
  // Node itself gives up on what follows such a request in the same packet, but not on what comes before.
  const { bare, withPlugin } = await both(t, requestHead('GET /healthz') + requestHead('GET /healthz') + post, 3)
  t.equal(withPlugin, bare)

  const { app, listen } = await service(t)
  addRoutes(app)
  app.get('/ws', { websocket: true }, app.wsHandler({ onMessage () {}, onConnect: connection => { connection.send('hello') } }))
  const connection = await rawConnection(t, await listen())
  for (let n = 1; n <= 20; n++) {
    connection.write(n % 2 === 0 ? get : post)
    await connection.answers(n)
  }
  connection.write(upgradeHead('/ws'))
  t.match(await connection.answers(21), /HTTP\/1\.1 101 /)
})

t.test('curl --http2 and an HTTP client that offers h2c get their answers', async t => {
  const { app, listen } = await service(t)
  addRoutes(app)
  const url = await listen()
  const run = promisify(execFile)
  const hasCurl = await run('curl', ['--version']).then(({ stdout }) => /HTTP2/.test(stdout), () => false)
  if (hasCurl) {
    t.equal((await run('curl', ['-s', '-m', '5', '--http2', `${url}/healthz`])).stdout, '{"ok":true}')
    const posted = await run('curl', ['-s', '-m', '5', '--http2', '-H', 'content-type: application/json', '-d', '{"a":1}', `${url}/echo`])
    t.equal(posted.stdout, '{"got":{"a":1}}')
  }
  const large = JSON.stringify('x'.repeat(500_000))
  const answer = await new Promise<string>((resolve, reject) => {
    const sent = request(`${url}/echo`, { method: 'POST', headers: { ...h2c, ...json(large) } }, response => {
      let text = ''
      response.on('data', chunk => { text += String(chunk) }).on('end', () => resolve(text))
    })
    sent.on('error', reject).end(large)
  })
  t.equal(answer, `{"got":${large}}`)
})

t.test('an application that listens for upgrades itself goes on getting other protocols', async t => {
  const { app, listen } = await service(t)
  const seen: unknown[] = []
  app.server.on('upgrade', (request, socket) => {
    if (request.headers.upgrade !== 'echo') return
    seen.push(request.url)
  })
  app.get('/healthz', async () => 'ok')
  const connection = await rawConnection(t, await listen())
  connection.write(requestHead('GET /tunnel', { Connection: 'Upgrade', Upgrade: 'echo' }))
  await connection.answers(1)
  t.strictSame(seen, ['/tunnel'])
})

t.test('also on the second address of localhost', async t => {
  const { app } = await service(t)
  addRoutes(app)
  app.get('/ws', { websocket: true }, app.wsHandler({ onMessage () {}, onConnect: connection => { connection.send('hello') } }))
  await app.listen({ port: 0, host: 'localhost' })
  for (const { address, family, port } of app.addresses() as AddressInfo[]) {
    const host = family === 'IPv6' ? `[${address}]` : address
    const connection = await rawConnection(t, `http://${host}:${port}`)
    connection.write(requestHead('GET /healthz', h2c))
    t.match(await connection.answers(1), /^HTTP\/1\.1 200 /, address)
    t.equal(await connect(t, `ws://${host}:${port}/ws`).next(), 'hello')
  }
})

t.test('an upgrade of a route that takes none, or of nothing, gets a plain 404, and no handler runs', async t => {
  const { app, listen } = await service(t)
  let ran = 0
  app.get('/plain', async () => { ran++ })
  app.route({ method: ['GET', 'POST'], url: '/both', handler: async () => { ran++ } })
  await app.register(async scope => { scope.get('/inside', async () => { ran++ }) }, { prefix: '/scope' })
  app.get('/ws', { websocket: true }, () => {})
  app.route({ method: 'GET', url: '/two', handler: async () => 'http', wsHandler: socket => { socket.send('websocket') } })
  const url = await listen()
  for (const path of ['/plain', '/both', '/scope/inside']) {
    const { statusCode, body } = await upgradeStatus(url + path)
    t.equal(statusCode, 404, path)
    t.match(JSON.parse(body), { code: 'WSG_NO_WEBSOCKET_ROUTE', message: 'this route does not accept WebSocket upgrades' })
  }
  t.equal((await upgradeStatus(`${url}/nothing`)).statusCode, 404)
  t.equal(ran, 0)
  t.match(app.registry.stats(), { upgradesRefused: 4, refusedNoRoute: 4, refusedFailed: 0 }, 'and each is counted')
  t.equal((await upgradeStatus(`${url}/ws`)).statusCode, 101)
  t.equal((await app.inject('/two')).body, 'http')
  t.equal(await connect(t, `${url}/two`).next(), 'websocket')
})

t.test('so does a route that was there before the plugin, unless @fastify/websocket was there before it', async t => {
  const early = bareService(t)
  early.app.get('/plain', async () => 'plain')
  await early.app.register(websocketGroups)
  const url = await early.listen()
  t.equal((await upgradeStatus(`${url}/plain`)).statusCode, 404)
  const connection = await rawConnection(t, url)
  connection.write(requestHead('GET /plain', h2c))
  t.match(await connection.answers(1), /plain$/)

  const second = bareService(t)
  await second.app.register(websocket)
  second.app.get('/theirs', { websocket: true }, socket => { socket.send('theirs') })
  await second.app.register(websocketGroups)
  second.app.get('/plain', async () => 'plain')
  const other = await second.listen()
  t.equal(await connect(t, `${other}/theirs`).next(), 'theirs')
  t.equal((await upgradeStatus(`${other}/plain`)).statusCode, 404)
  const h2cThere = await rawConnection(t, other)
  h2cThere.write(requestHead('GET /plain', h2c))
  t.match(await h2cThere.answers(1), /plain$/)
})

t.test('where Node asks whether to upgrade, it is told, and the application\'s own answer counts too', async t => {
  const { divertOtherUpgrades } = await import('../../lib/http/upgrade-requests.ts')
  const { EventEmitter } = await import('node:events')
  const server = Object.assign(new EventEmitter(), { shouldUpgradeCallback: (_request: object): boolean => true })
  let others = false
  divertOtherUpgrades(server, () => others)
  const asks = (method: string, upgrade: string, httpVersionMinor = 1): boolean =>
    server.shouldUpgradeCallback({ method, headers: { upgrade }, httpVersionMinor })
  t.strictSame([asks('GET', 'WebSocket'), asks('GET', 'h2c'), asks('POST', 'websocket')], [true, false, false])
  t.equal(asks('GET', 'websocket', 0), false)
  others = true
  t.equal(asks('GET', 'h2c'), true)
  t.equal(server.listenerCount('connection'), 0)

  const refusing = Object.assign(new EventEmitter(), { shouldUpgradeCallback: (_request: object): boolean => false })
  divertOtherUpgrades(refusing, () => true)
  t.equal(refusing.shouldUpgradeCallback({ method: 'GET', headers: { upgrade: 'websocket' }, httpVersionMinor: 1 }), false)
})
