import t, { type Test } from 'tap'
import cookie from '@fastify/cookie'
import jwt from '@fastify/jwt'
import type { FastifyRequest } from 'fastify'
import websocketGroups, { type Identity, type WebsocketGroupsOptions, type WsAuthOptions } from '../../plugin.ts'
import { connect, upgradeStatus, type ConnectOptions } from '../helpers/client.ts'
import { bareService, service, type Service } from '../helpers/service.ts'

const users: Record<string, Identity> = { 'good-token': { userId: 'john', name: 'John' }, 'other-token': { userId: 'jane', name: 'Jane' } }

function authenticate (token: string): Identity | undefined {
  return users[token]
}

/** A service with one route, `/ws`, that greets by name. */
async function guarded (
  t: Test, auth: WsAuthOptions = {}, options: WebsocketGroupsOptions = { authenticate }
): Promise<Service & { url: string, upgrades: () => number }> {
  const built = await service(t, options)
  let upgrades = 0
  built.app.get('/ws', { websocket: true, preHandler: built.app.wsAuth(auth) }, built.app.wsHandler({
    onConnect (connection) {
      upgrades++
      connection.send(`hello ${connection.identity?.name ?? 'nobody'}`)
    },
    onMessage () {}
  }))
  return { ...built, url: `${await built.listen()}/ws`, upgrades: () => upgrades }
}

async function greeting (t: Test, url: string, options: ConnectOptions = {}): Promise<unknown> {
  return await connect(t, url, options).next()
}

const bearer = (token: string): ConnectOptions => ({ headers: { authorization: `Bearer ${token}` } })

t.test('a missing or bad token is a plain HTTP 401 with a JSON body and a challenge; nothing is upgraded', async t => {
  const { url, upgrades, app } = await guarded(t)
  const cases: ReadonlyArray<readonly [ConnectOptions, string]> = [
    [{}, 'Bearer'],
    [{ headers: { authorization: 'Basic am9objpkb2U=' } }, 'Bearer'],
    [{ protocols: ['bearer'] }, 'Bearer'],
    [bearer('bad-token'), 'Bearer error="invalid_token"'],
    [{ protocols: ['bearer', 'bad-token'] }, 'Bearer error="invalid_token"']
  ]
  for (const [options, challenge] of cases) {
    const { statusCode, headers, body } = await upgradeStatus(url, options)
    t.equal(statusCode, 401)
    t.match(headers['content-type'], /^application\/json/)
    t.equal(headers['www-authenticate'], challenge)
    t.equal(headers.upgrade, undefined)
    t.strictSame(
      JSON.parse(body), { statusCode: 401, code: 'WSG_UNAUTHORIZED', error: 'Unauthorized', message: 'a valid token is required' }
    )
  }
  t.equal(upgrades(), 0)
  t.equal(app.registry.stats().connectionsOpened, 0)
})

t.test('a good token is taken from the Authorization header', async t => {
  const { url } = await guarded(t)
  t.equal(await greeting(t, url, bearer('good-token')), 'hello John')
})

t.test('a good token is taken from the subprotocol, which answers bearer and never the token', async t => {
  const { url } = await guarded(t)
  for (const [protocols, selected] of [
    [['bearer', 'good-token'], 'bearer'],
    [['chat.v1', 'bearer', 'good-token'], 'chat.v1'],
    [['bearer', 'good-token', 'chat.v1'], 'chat.v1']
  ] as const) {
    const client = connect(t, url, { protocols })
    t.equal(await client.next(), 'hello John')
    t.equal(client.ws.protocol, selected)
  }
})

t.test('a cookie counts only when it is switched on', async t => {
  const headers = { cookie: 'theme=dark; sid=good-token' }
  t.equal((await upgradeStatus((await guarded(t)).url, { headers })).statusCode, 401)
  t.equal(await greeting(t, (await guarded(t, { cookie: 'sid' })).url, { headers }), 'hello John')
})

t.test('a cookie works with @fastify/cookie too', async t => {
  const { app, listen } = bareService(t)
  await app.register(cookie)
  await app.register(websocketGroups, { authenticate })
  app.get('/ws', { websocket: true, preHandler: app.wsAuth({ cookie: 'sid' }) }, app.wsHandler({
    onConnect: connection => connection.send(String(connection.identity?.name)),
    onMessage () {}
  }))
  t.equal(await greeting(t, `${await listen()}/ws`, { headers: { cookie: 'sid=good-token' } }), 'John')
})

t.test('a query parameter counts only when it is switched on', async t => {
  t.equal((await upgradeStatus(`${(await guarded(t)).url}?token=good-token`)).statusCode, 401)
  t.equal(await greeting(t, `${(await guarded(t, { query: 'token' })).url}?token=good-token`), 'hello John')
})

t.test('authorize false is a 403', async t => {
  const { url } = await guarded(t, { authorize: async (identity, request) => identity.userId === 'john' && request.url === '/ws' })
  t.equal(await greeting(t, url, bearer('good-token')), 'hello John')
  const { statusCode, body } = await upgradeStatus(url, bearer('other-token'))
  t.equal(statusCode, 403)
  t.strictSame(JSON.parse(body), { statusCode: 403, code: 'WSG_FORBIDDEN', error: 'Forbidden', message: 'not allowed' })
})

t.test('what authenticate throws is a 401, but a 403 stays a 403 and an outage stays an outage', async t => {
  const throwing = async (error: unknown): Promise<{ statusCode: number, body: string }> => {
    const { url } = await guarded(t, { authenticate () { throw error } })
    return await upgradeStatus(url, bearer('some-token'))
  }
  for (const error of [
    new Error('jwt expired'), 'text', null, Object.assign(new Error('x'), { statusCode: 400 }),
    Object.assign(new Error('x'), { status: 404 })
  ]) {
    t.match(await throwing(error), { statusCode: 401 })
  }
  const forbidden = await throwing(Object.assign(new Error('account 17 is locked'), { statusCode: 403 }))
  t.match(JSON.parse(forbidden.body), { statusCode: 403, code: 'WSG_FORBIDDEN', message: 'not allowed' })
  t.match(await throwing(Object.assign(new Error('auth service is down'), { statusCode: 503 })), { statusCode: 503 })
  t.match(await throwing(Object.assign(new Error('auth service is down'), { status: 502 })), { statusCode: 502 })
  const busy = new Error('GET http://auth.internal: 429')
  t.match(await throwing(Object.assign(busy, { status: 429 })), { statusCode: 500, body: /^(?!.*internal:)/ }, 'no token is thrown away')
  t.match(await throwing(Object.assign(new Error('ask again later'), { statusCode: 429 })), { statusCode: 429, body: /ask again later/ })
})

t.test('the token is in no log line', async t => {
  const { url, logs } = await guarded(t, { authenticate (token) { throw new Error(`cannot verify ${token}`) }, cookie: 'sid' })
  for (const options of [bearer('very-secret'), { protocols: ['bearer', 'very-secret'] }, { headers: { cookie: 'sid=very-secret' } }]) {
    t.equal((await upgradeStatus(url, options)).statusCode, 401)
  }
  t.match(logs.filter(line => line.msg === 'token refused'), [{ reason: 'Error: cannot verify ***' }, {}, {}])
  t.notMatch(JSON.stringify(logs), /very-secret/)
})

t.test('an identity that ended already is a 401', async t => {
  for (const ended of [{ expiresAt: Date.now() - 1 }, { exp: Math.floor(Date.now() / 1000) - 10 }]) {
    const { url } = await guarded(t, { authenticate: () => ended })
    t.equal((await upgradeStatus(url, bearer('x'))).statusCode, 401)
  }
})

t.test('without required, no token is nobody, but a bad token is still a 401', async t => {
  const { url } = await guarded(t, { required: false, authorize: identity => identity.userId === 'john' })
  t.equal(await greeting(t, url), 'hello nobody')
  t.equal(await greeting(t, url, bearer('good-token')), 'hello John')
  t.equal((await upgradeStatus(url, bearer('bad-token'))).statusCode, 401)
  t.equal((await upgradeStatus(url, bearer('other-token'))).statusCode, 403)
})

t.test('works with the verify of @fastify/jwt', async t => {
  const { app, listen } = bareService(t)
  await app.register(jwt, { secret: 'a-secret-of-the-test' })
  await app.register(websocketGroups, { authenticate: token => app.jwt.verify<Identity>(token) })
  app.get('/ws', { websocket: true, preHandler: app.wsAuth() }, app.wsHandler({
    onConnect: connection => connection.send(`${String(connection.identity?.name)} is ${connection.userId ?? ''}`),
    onMessage () {}
  }))
  const url = `${await listen()}/ws`
  const sign = (expiresIn: string): string => app.jwt.sign({ sub: 'u1', name: 'John' }, { expiresIn })
  t.equal(await greeting(t, url, { protocols: ['bearer', sign('1h')] }), 'John is u1')
  t.equal(await greeting(t, url, bearer(sign('1h'))), 'John is u1')
  t.equal((await upgradeStatus(url, bearer(app.jwt.sign({ sub: 'u1', exp: 1 })))).statusCode, 401)
  t.equal((await upgradeStatus(url, bearer(`${sign('1h')}x`))).statusCode, 401)
})

t.test('works on a plain HTTP route as it does on an upgrade', async t => {
  const plain = await service(t, { authenticate })
  plain.app.post('/messages', { preHandler: plain.app.wsAuth() }, async (request: FastifyRequest) => ({ by: request.identity?.name }))
  plain.app.get('/open', async (request: FastifyRequest) => ({ by: request.identity }))
  const ok = await plain.app.inject({ method: 'POST', url: '/messages', headers: { authorization: 'Bearer good-token' } })
  t.strictSame([ok.statusCode, ok.json()], [200, { by: 'John' }])
  const refused = await plain.app.inject({ method: 'POST', url: '/messages' })
  t.equal(refused.statusCode, 401)
  t.equal(refused.headers['www-authenticate'], 'Bearer')
  t.strictSame((await plain.app.inject('/open')).json(), { by: null })
})

t.test('allowedOrigins keeps pages of other origins out with a 403', async t => {
  const { url, upgrades } = await guarded(t, { allowedOrigins: ['https://app.example'] })
  const from =
    (origin?: string): ConnectOptions => ({ headers: { authorization: 'Bearer good-token', ...(origin === undefined ? {} : { origin }) } })
  const { body } = await upgradeStatus(url, from('https://evil.example'))
  t.match(JSON.parse(body), { statusCode: 403, code: 'WSG_FORBIDDEN', message: /origin/ })
  t.equal(upgrades(), 0)
  t.equal(await greeting(t, url, from('https://app.example')), 'hello John')
  t.equal(await greeting(t, url, from()), 'hello John')
})

t.test('with the cookie on, only pages of the own host may connect', async t => {
  const { url } = await guarded(t, { cookie: 'sid' })
  const from = (origin: string): ConnectOptions => ({ headers: { cookie: 'sid=good-token', origin } })
  t.equal((await upgradeStatus(url, from('https://evil.example'))).statusCode, 403)
  t.equal((await upgradeStatus(url, from('null'))).statusCode, 403)
  t.equal(await greeting(t, url, from(new URL(url).origin)), 'hello John')
})

t.test('each route may have its own authenticate', async t => {
  const { app, listen } = await service(t, { authenticate: () => null })
  app.get('/ws', { websocket: true, preHandler: app.wsAuth({ authenticate }) }, app.wsHandler({
    onConnect: connection => connection.send(String(connection.identity?.name)),
    onMessage () {}
  }))
  t.equal(await greeting(t, `${await listen()}/ws`, bearer('good-token')), 'John')
})

t.test('wrong options are refused when wsAuth is called', async t => {
  const { app } = await service(t)
  t.throws(() => app.wsAuth(), { code: 'WSG_OPTION_INVALID', message: /wsAuth\(\) needs `authenticate`/ })
  const wrong: ReadonlyArray<readonly [object, RegExp]> = [
    [{ authenticate: 'x' }, /wsAuth\.authenticate must be a function, got 'x'/],
    [{ authorise: () => true }, /no option wsAuth\.authorise.*authorize/],
    [{ required: 'yes' }, /wsAuth\.required must be true or false, got 'yes'/],
    [{ cookie: true }, /wsAuth\.cookie must be a name or false, got true/],
    [{ query: '' }, /wsAuth\.query must be a name or false, got ''/],
    [{ allowedOrigins: '*' }, /wsAuth\.allowedOrigins must be an array of origins or a function, got '\*'/],
    [{ allowedOrigins: ['https://a.example/'] }, /wsAuth\.allowedOrigins must hold origins/]
  ]
  const neverSent = [
    'https://*.example', 'https://a.example/path', 'https://a.example?x', 'https://ann@a.example', 'wss://a.example', 'ftp://a.example',
    'https://a.example:0', 'https://a.example:99999', 'https://a..example', 'https://.example', 'null', '*', 'a.example', /a/, null
  ] as unknown as string[]
  for (const origin of neverSent) {
    t.throws(() => app.wsAuth({ authenticate, allowedOrigins: [origin] }), { message: /wsAuth\.allowedOrigins must hold origins/ })
  }
  for (const [options, message] of wrong) t.throws(() => app.wsAuth({ authenticate, ...options }), { code: 'WSG_OPTION_INVALID', message })
  t.throws(() => app.wsAuth(null as unknown as WsAuthOptions), { message: /wsAuth must be an object, got null/ })
})
