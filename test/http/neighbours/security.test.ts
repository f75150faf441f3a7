// The plugins that most services have for sign-in and protection, beside this one: each does for a socket route what it does for others.
import t, { type Test } from 'tap'
import cookie from '@fastify/cookie'
import cors from '@fastify/cors'
import helmet from '@fastify/helmet'
import jwt from '@fastify/jwt'
import rateLimit from '@fastify/rate-limit'
import session from '@fastify/session'
import underPressure from '@fastify/under-pressure'
import type { FastifyInstance } from 'fastify'
import websocketGroups, { type Identity } from '../../../plugin.ts'
import { connect, upgradeStatus, type ConnectOptions } from '../../helpers/client.ts'
import { bareService, service } from '../../helpers/service.ts'
import { until } from '../../helpers/until.ts'

declare module 'fastify' {
  interface Session { userId?: string }
}

const group = ({ room = '' }: Readonly<Record<string, string>>): string => `chat:${room}`

async function statusOf (url: string, options?: ConnectOptions): Promise<number> {
  return (await upgradeStatus(url, options)).statusCode
}

/** Two clients come, one speaks, the other hears it. */
async function relays (t: Test, app: FastifyInstance, url: string, name: string, options?: ConnectOptions): Promise<void> {
  const [a, b] = [connect(t, url, options), connect(t, url, options)]
  await Promise.all([a.opened, b.opened])
  await until(async () => await app.registry.groupCount(name) === 2)
  a.send('hi')
  t.equal(await b.next(), 'hi')
  await Promise.all([a.close(), b.close()])
}

t.test('@fastify/jwt: its verify authenticates, and exp ends the connection', async t => {
  const { app, listen } = await service(t)
  await app.register(jwt, { secret: 'only for this test, and long enough' })
  app.wsRoom('/ws/:room', { auth: { authenticate: token => app.jwt.verify<Identity>(token) }, group })
  const url = await listen()
  await relays(t, app, `${url}/ws/lobby`, 'chat:lobby', { protocols: ['bearer', app.jwt.sign({ userId: 'ann' })] })
  t.equal(await statusOf(`${url}/ws/lobby`, { protocols: ['bearer', 'rubbish'] }), 401)
  const brief = connect(t, `${url}/ws/lobby`, { protocols: ['bearer', app.jwt.sign({ userId: 'ann' }, { expiresIn: '2s' })] })
  await brief.opened
  t.equal((await brief.closed).code, 4401)
})

t.test('@fastify/cookie and @fastify/session: a preHandler makes the identity of the session', async t => {
  const { app, listen } = await service(t)
  await app.register(cookie)
  await app.register(session, { secret: 'only for this test, and at least 32 characters', cookie: { secure: false } })
  app.post('/login', async request => { request.session.userId = 'ann' })
  app.wsRoom('/ws/:room', {
    auth: false,
    group,
    async preHandler (request, reply) {
      if (request.session.userId === undefined) return await reply.code(401).send()
      request.identity = { userId: request.session.userId }
    },
    onJoin (connection) { connection.send(String(connection.userId)) }
  })
  const url = await listen()
  t.equal(await statusOf(`${url}/ws/lobby`), 401)
  const login = await fetch(`${url}/login`, { method: 'POST' })
  const [cookieHeader = ''] = (login.headers.get('set-cookie') ?? '').split(';')
  t.equal(await connect(t, `${url}/ws/lobby`, { headers: { cookie: cookieHeader } }).next(), 'ann')
})

for (const order of ['before', 'after'] as const) {
  t.test(`@fastify/rate-limit, global and registered ${order}: refuses upgrades over its limit with 429`, async t => {
    const { app, listen } = bareService(t)
    const limit = async (): Promise<unknown> => await app.register(rateLimit, { max: 2, timeWindow: '1 minute' })
    if (order === 'before') await limit()
    await app.register(websocketGroups, {})
    if (order === 'after') await limit()
    await app.register(async scope => { scope.wsRoom('/ws/:room', { auth: false, group }) })
    const url = await listen()
    const clients = [connect(t, `${url}/ws/lobby`), connect(t, `${url}/ws/lobby`)]
    await Promise.all(clients.map(async ({ opened }) => await opened))
    t.equal(await statusOf(`${url}/ws/lobby`), 429)
    t.equal((await fetch(`${url}/ws/lobby`)).status, 429, 'one count for the address')
    await until(async () => await app.registry.groupCount('chat:lobby') === 2)
  })
}

t.test('@fastify/rate-limit for one route, which names its limit in its config', async t => {
  const { app, listen } = await service(t)
  await app.register(rateLimit, { global: false })
  const onlyOne = { rateLimit: { max: 1, timeWindow: '1 minute' } }
  app.get('/ws', { websocket: true, config: onlyOne }, app.wsHandler({ onMessage () {} }))
  app.get('/free', { websocket: true }, app.wsHandler({ onMessage () {} }))
  app.wsRoom('/rooms/:room', { auth: false, group, config: onlyOne })
  const url = await listen()
  for (const path of ['/ws', '/rooms/lobby']) {
    await connect(t, `${url}${path}`).opened
    t.equal(await statusOf(`${url}${path}`), 429, path)
  }
  await Promise.all(Array.from({ length: 3 }, async () => await connect(t, `${url}/free`).opened))
})

t.test('@fastify/rate-limit, registered before: limits the rooms of the option `rooms`, all of them or each by itself', async t => {
  for (const [global, config] of [[true, {}], [false, { rateLimit: { max: 1, timeWindow: '1 minute' } }]] as const) {
    const { app, listen } = bareService(t)
    await app.register(rateLimit, { global, max: 1, timeWindow: '1 minute' })
    await app.register(websocketGroups, { rooms: { '/ws/:room': { auth: false, group, config } } })
    const url = await listen()
    await connect(t, `${url}/ws/lobby`).opened
    t.equal(await statusOf(`${url}/ws/lobby`), 429)
  }
})

t.test('@fastify/helmet and @fastify/cors: their headers are on refusals, and sockets open', async t => {
  const { app, listen } = await service(t)
  await app.register(helmet)
  await app.register(cors, { origin: 'https://app.example' })
  app.wsRoom('/ws/:room', { auth: false, group })
  const url = await listen()
  await relays(t, app, `${url}/ws/lobby`, 'chat:lobby', { headers: { origin: 'https://app.example' } })
  const plain = await fetch(`${url}/ws/lobby`)
  t.equal(plain.headers.get('x-content-type-options'), 'nosniff')
  t.equal(plain.headers.get('access-control-allow-origin'), 'https://app.example')
})

t.test('CORS does not protect sockets, as no browser asks for it: allowedOrigins does', async t => {
  const { app, listen } = await service(t)
  await app.register(cors, { origin: 'https://app.example' })
  app.wsRoom('/open/:room', { auth: false, group })
  app.wsRoom('/ws/:room', {
    auth: { authenticate: () => ({ userId: 'ann' }), allowedOrigins: ['https://app.example'] }, group
  })
  const url = await listen()
  const elsewhere = { headers: { origin: 'https://evil.example' }, protocols: ['bearer', 'token'] }
  await connect(t, `${url}/open/lobby`, elsewhere).opened
  t.equal(await statusOf(`${url}/ws/lobby`, elsewhere), 403)
})

t.test('@fastify/under-pressure: refuses upgrades with 503 while it is under pressure, and lets those go on that are open', async t => {
  const { app, listen } = await service(t)
  let pressed = false
  await app.register(underPressure, { healthCheck: async () => !pressed, healthCheckInterval: 10 })
  app.wsRoom('/ws/:room', { auth: false, group })
  const url = await listen()
  const client = connect(t, `${url}/ws/lobby`)
  await client.opened
  await until(async () => await app.registry.groupCount('chat:lobby') === 1)
  pressed = true
  await until(async () => await statusOf(`${url}/ws/lobby`) === 503)
  t.match(JSON.parse((await upgradeStatus(`${url}/ws/lobby`)).body), { statusCode: 503, code: 'FST_UNDER_PRESSURE' })
  client.send('still here')
  t.equal(await client.next(), 'still here')
})
