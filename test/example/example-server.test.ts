import t, { type Test } from 'tap'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { connect as connectFramed } from 'fastify-websocket-groups/client'
import { WebSocket } from 'ws'
import { ConfigError, readConfig } from '../../example-app/config.ts'
import { connect, type TestClient } from '../helpers/client.ts'
import { freePort } from '../helpers/ports.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { bearer, getJson, postJson } from './instances.ts'
import { startServer, type ServerProcess } from './server-process.ts'

/** Without PORT the ports are 8080 and 8081; on a loopback address of this test's own they are surely free. */
const ownHost = process.platform === 'linux'
  ? `127.${1 + Math.floor(Math.random() * 254)}.${Math.floor(Math.random() * 256)}.7`
  : '127.0.0.1'

async function taken (port: number, host: string): Promise<boolean> {
  const server = createServer()
  return await new Promise(resolve => {
    server.once('error', () => resolve(true))
    server.listen(port, host, () => server.close(() => resolve(false)))
  })
}

const portsTaken = (await Promise.all([8080, 8081].map(async port => await taken(port, ownHost)))).includes(true)
const needsFixedPorts = { skip: portsTaken && 'port 8080 or 8081 is in use on this machine' }

const chat = (t: Test, url: string, token: string): TestClient => connect(t, `${url}/ws/chat/lobby`, { headers: bearer(token) })

/** The whole story of the README, on two instances. */
async function talk (t: Test, one: string, two: string): Promise<void> {
  const john = chat(t, one, 'valid-token')
  t.equal(await john.next(), 'Welcome John Doe to lobby!')
  t.equal(await john.next(), 'John Doe joined the room')
  const jane = chat(t, two, 'jane-token')
  t.equal(await jane.next(), 'Welcome Jane Roe to lobby!')
  t.equal(await jane.next(), 'Jane Roe joined the room')
  t.equal(await john.next(), 'Jane Roe joined the room')
  john.send('hi')
  t.equal(await john.next(), '[John Doe]: hi')
  t.equal(await jane.next(), '[John Doe]: hi')
  t.match(await getJson(`${two}/groups/lobby`, bearer('valid-token')), { status: 200, body: { group: 'lobby', count: 2 } })
  await jane.close()
  t.equal(await john.next(), 'Jane Roe left the room')
  await john.close()
}

async function endsCleanly (t: Test, server: ServerProcess, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
  server.kill(signal)
  t.strictSame(await server.exited, { code: 0, signal: null }, `${signal} ends it cleanly`)
  t.equal(server.stderr, '')
}

t.test('without any setting: two instances in one process, joined in memory', needsFixedPorts, async t => {
  const server = startServer(t, { HOST: ownHost })
  await server.greeted()
  t.strictSame(server.urls, [`http://${ownHost}:8080`, `http://${ownHost}:8081`])
  t.match(server.stdout, /2 instances of the chat run in this process/)
  t.match(server.stdout, /joined in memory, inside this one process; no Redis is needed/)
  t.match(server.stdout, `npx wscat -c ws://${ownHost}:8081/ws/chat/lobby -H 'Authorization: Bearer valid-token'`)
  t.match(server.stdout, 'valid-token (John Doe)')
  await talk(t, `http://${ownHost}:8080`, `http://${ownHost}:8081`)

  const said = (what: string): object | undefined => {
    return server.log.find(({ msg, group, instance }) => msg === what && group === 'lobby' && instance === 'inst1')
  }
  t.match(said('broadcasting'), { level: 30, totalInGroup: Number }, 'before a broadcast its group is logged')
  const broadcast = said('broadcast')
  t.match(broadcast, { level: 30, localSent: 1, remotePending: 0, scope: 'cluster' }, 'a broadcast is logged with who serves its members')

  // The first instance is started already when the second one finds its port taken.
  const second = startServer(t, { HOST: ownHost })
  t.strictSame(await second.exited, { code: 1, signal: null })
  t.equal(second.stderr, 'Port 8080 is in use already: end what runs there, or set PORT to another one.\n')

  await endsCleanly(t, server)
})

t.test('two processes and one Redis are a cluster, and leave nothing behind', async t => {
  const redis = await startRedis(t)
  const start = async (id: string): Promise<ServerProcess> => {
    const server = startServer(t, { INSTANCE_ID: id, PORT: String(await freePort()), REDIS_URL: redis.url })
    await server.greeted()
    return server
  }
  const [one, two] = await Promise.all([start('inst1'), start('inst2')])
  t.match(one.stdout, /One instance of the chat runs here/)
  t.match(one.stdout, `Joined to all others by the Redis at 127.0.0.1:${redis.port}.`)
  t.match(one.urls, [/^http:\/\/127\.0\.0\.1:\d+$/])
  const [first = '', second = ''] = [...one.urls, ...two.urls]
  await talk(t, first, second)
  const broadcast = await until(() => one.log.find(({ msg }) => msg === 'broadcast'), { what: 'the log to get here' })
  t.match(broadcast, { instance: 'inst1', group: 'lobby', localSent: 1 })
  const shared = await until(() => one.log.find(({ msg, remotePending }) => msg === 'broadcast' && remotePending === 1))
  t.match(shared, { instance: 'inst1', group: 'lobby', localSent: 1 }, 'one member here, and one whom the other instance serves')
  t.ok(one.log.some(({ msg, group, totalInGroup }) => msg === 'broadcasting' && group === 'lobby' && totalInGroup === 2))

  // Members on both, while both stop.
  await Promise.all([chat(t, first, 'valid-token'), chat(t, second, 'jane-token')].map(async client => await client.next()))
  await Promise.all([endsCleanly(t, one), endsCleanly(t, two, 'SIGINT')])
  t.strictSame(await redis.channels(), [])
  const left = await redis.keys()
  t.ok(left.length > 0)
  t.strictSame(left.filter(key => !/:[hl]:lobby$/.test(key)), [], 'but the log of the room, for a while')
  for (const key of left) t.ok(await redis.admin.ttl(key) > 0, key)
})

t.test('without Redis it is alive, says what is wrong, and the room goes on where it is', async t => {
  const redis = await startRedis(t)
  const server = startServer(t, { PORT: '0', REDIS_URL: redis.url, LOG_LEVEL: 'fatal' })
  await server.greeted()
  const [url = ''] = server.urls
  const john = chat(t, url, 'valid-token')
  await john.nextWhere(message => message === 'John Doe joined the room')
  const post = async (room: string): Promise<unknown> => {
    return await postJson(`${url}/groups/${room}/messages`, { text: 'by HTTP' }, bearer('jane-token'))
  }
  t.match(await post('den'), { status: 404 })

  await redis.kill()
  await until(async () => ((await getJson(`${url}/readyz`)).body as { status: string }).status === 'down')
  t.match(await getJson(`${url}/healthz`), { status: 200, body: { status: 'ok' } })
  t.match(await getJson(`${url}/readyz`), { status: 200, body: { ready: true, status: 'down', problems: [String] } })
  john.send('anybody?')
  t.equal(await john.next(), '[John Doe]: anybody?')
  const inDen = connect(t, `${url}/ws/chat/den`, { headers: bearer('valid-token') })
  await inDen.nextWhere(message => message === 'John Doe joined the room')
  t.match(await post('den'), { status: 202, body: { scope: 'local', localRecipients: 1 } })
  t.equal(await inDen.next(), '[Jane Roe]: by HTTP')
  const page = connectFramed(`${url}/ws/chat/lobby`, { token: 'jane-token', WebSocket })
  t.teardown(() => page.close())
  await t.rejects(page.send('anybody?'), { code: 'WSG_BACKPLANE_UNAVAILABLE' }, 'who can be told is told that not all would get it')
  t.equal(page.state, 'open')
  t.strictSame(server.log, [], 'LOG_LEVEL was heeded')
  await endsCleanly(t, server)
})

t.test('a Redis that is not there yet does not keep it from starting', async t => {
  const port = await freePort()
  const server = startServer(t, { PORT: '0', REDIS_URL: `redis://127.0.0.1:${port}` })
  await server.greeted()
  t.match(server.stdout, `The Redis at 127.0.0.1:${port} does not answer.`)
  const john = chat(t, server.urls[0] ?? '', 'valid-token')
  t.equal(await john.next(), 'Welcome John Doe to lobby!')
  await endsCleanly(t, server)
})

t.test('with REDIS_URL alone the two instances of one process meet in Redis', needsFixedPorts, async t => {
  const redis = await startRedis(t)
  const server = startServer(t, { HOST: ownHost, REDIS_URL: redis.url, LOG_LEVEL: 'warn' })
  await server.greeted()
  t.match(server.stdout, `Joined to all others by the Redis at 127.0.0.1:${redis.port}.`)
  t.ok((await redis.channels()).length > 0)
  await talk(t, `http://${ownHost}:8080`, `http://${ownHost}:8081`)
  t.strictSame(server.log, [])
  await endsCleanly(t, server)
})

t.test('a setting that makes no sense gives one sentence', async t => {
  const cases: ReadonlyArray<readonly [settings: Record<string, string>, sentence: string]> = [
    [{ PORT: 'abc' }, "PORT must be a number from 0 to 65535, got 'abc'."],
    [{ PORT: '65536' }, "PORT must be a number from 0 to 65535, got '65536'."],
    [{ PORT: '-1' }, "PORT must be a number from 0 to 65535, got '-1'."],
    [{ LOG_LEVEL: 'loud' }, "LOG_LEVEL must be one of fatal, error, warn, info, debug, trace, silent, got 'loud'."],
    [{ PORT: '0', INSTANCE_ID: 'x'.repeat(101) }, 'INSTANCE_ID must have at most 100 characters, got 101.'],
    [{ REDIS_URL: 'localhost:6379' }, 'REDIS_URL must be a URL such as redis://localhost:6379 or rediss://user:password@host:6380.']
  ]
  for (const [settings, sentence] of cases) t.throws(() => readConfig(settings), new ConfigError(sentence))
})

t.test('and ends the server with it', async t => {
  const ends = async (settings: Record<string, string>, sentence: string): Promise<void> => {
    const server = startServer(t, settings)
    t.strictSame(await server.exited, { code: 1, signal: null }, JSON.stringify(settings))
    t.equal(server.stderr, `${sentence}\n`)
    t.equal(server.stdout, '')
  }
  await Promise.all([
    ends({ PORT: 'abc' }, "PORT must be a number from 0 to 65535, got 'abc'."),
    ends({
      PORT: '0', HOST: '203.0.113.7', LOG_LEVEL: 'silent'
    }, 'HOST is not an address of this machine: listen EADDRNOTAVAIL: address not available 203.0.113.7.')
  ])
})

t.test('a password that Redis refuses ends it with one sentence', async t => {
  const redis = await startRedis(t)
  await redis.admin.config('SET', 'requirepass', 'right')
  const server = startServer(t, { PORT: '0', REDIS_URL: redis.url.replace('//', '//:wrong@') })
  t.strictSame(await server.exited, { code: 1, signal: null })
  t.match(server.stderr, /^The Redis of REDIS_URL refuses: WRONGPASS [^\n]+\n$/)
})

t.test('an empty setting is none', async t => {
  const server = startServer(t, { PORT: '0', HOST: '', INSTANCE_ID: '', REDIS_URL: '', LOG_LEVEL: '' })
  await server.greeted()
  t.match(server.urls, [/^http:\/\/127\.0\.0\.1:\d+$/])
  const isReady = ({ msg }: Readonly<Record<string, unknown>>): boolean => msg === 'websocket groups ready'
  await until(() => server.log.some(isReady))
  t.match(server.log.find(isReady), { backplane: 'memory', instance: 'port-0' })
  await endsCleanly(t, server)
})

t.test('a port in use ends it with one sentence', async t => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  t.teardown(() => { other.close() })
  const address = other.address()
  const port = typeof address === 'object' ? address?.port : undefined
  const server = startServer(t, { PORT: String(port) })
  t.strictSame(await server.exited, { code: 1, signal: null })
  t.equal(server.stderr, `Port ${port} is in use already: end what runs there, or set PORT to another one.\n`)
})

t.test('a second signal does not wait for slow clients', async t => {
  const server = startServer(t, { PORT: '0' })
  await server.greeted()
  const client = chat(t, server.urls[0] ?? '', 'valid-token')
  await client.next()
  client.ws.pause() // it never answers the close frame
  server.kill('SIGTERM')
  const impatience = setInterval(() => server.kill('SIGTERM'), 50)
  t.teardown(() => clearInterval(impatience))
  t.strictSame(await server.exited, { code: 1, signal: null })
})
