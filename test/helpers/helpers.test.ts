import t from 'tap'
import { once } from 'node:events'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import { connect as connectTcp, createServer as createTcpServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { WebSocketServer } from 'ws'
import { childEnvironment, nodeArguments } from './child.ts'
import { connect, upgradeStatus } from './client.ts'
import { startRedis } from './redis.ts'
import { startRedisCluster } from './redis-cluster.ts'
import { startProxy } from './tcp-proxy.ts'
import { until } from './until.ts'

// These tests are about the tests' own instruments: a fault that is not really caused proves nothing.

const PATIENT = { retryStrategy: () => 20, maxRetriesPerRequest: null, disconnectTimeout: 50 }

function client (t: Tap, url: string, options: object = {}): Redis {
  const redis = new Redis(url, { ...PATIENT, ...options })
  redis.on('error', () => {})
  t.teardown(() => redis.disconnect())
  return redis
}
type Tap = Parameters<typeof startRedis>[0]

// not once(): that rejects on the 'error' which comes before
const gone = (redis: Redis): Promise<void> => new Promise(resolve => redis.once('close', () => resolve()))

const alive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

t.test('a private Redis is killed, stopped and started again on its port', async (t) => {
  const redis = await startRedis(t)
  await redis.admin.set('b', '1')
  await redis.admin.set('a', '1')
  t.strictSame(await redis.keys(), ['a', 'b'])

  const subscriber = client(t, redis.url)
  await subscriber.subscribe('news')
  t.strictSame(await redis.channels(), ['news'])

  redis.stop()
  await t.rejects(until(() => redis.admin.ping(), { timeoutMs: 100, what: 'PONG' }), /timed out after 100 ms waiting for PONG/)
  redis.cont()
  t.equal(await redis.admin.ping(), 'PONG')

  const { pid } = redis
  await redis.kill()
  t.notOk(alive(pid))
  await redis.kill()
  await redis.restart()
  t.not(redis.pid, pid)
  t.strictSame(await redis.keys(), [], 'nothing was kept')
  // The subscription that the client library repeats by itself would be rejected, and by nobody caught, if the test ended now.
  await until(async () => (await redis.channels()).length === 1, { what: 'the subscriber to be back' })
})

t.test('a Redis with an append-only file keeps its data through a kill', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'redis-aof-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const redis = await startRedis(t, { appendonly: folder })
  await redis.admin.set('kept', 'yes')
  await redis.kill()
  await redis.restart()
  t.equal(await redis.admin.get('kept'), 'yes')
})

t.test('a stopped Redis still ends with its test', async (t) => {
  let pid = 0
  await t.test('the test that leaves it stopped', async (t) => {
    const redis = await startRedis(t)
    pid = redis.pid
    redis.stop()
  })
  t.notOk(alive(pid))
})

t.test('a Redis dies with the process that started it, even by SIGKILL', async (t) => {
  const source = `
    import t from 'tap'
    import { startRedis } from ${JSON.stringify(new URL('redis.ts', import.meta.url).href)}
    console.error('pid ' + (await startRedis(t)).pid)
    setInterval(() => {}, 1000)`
  const child = spawn(process.execPath, [...nodeArguments, '--input-type=module', '-e', source], {
    env: childEnvironment(), stdio: ['ignore', 'ignore', 'pipe']
  })
  t.teardown(() => child.kill('SIGKILL'))
  let pid = 0
  for await (const line of createInterface({ input: child.stderr })) {
    pid = Number(/^pid (\d+)$/.exec(line)?.[1] ?? 0)
    if (pid > 0) break
  }
  t.ok(alive(pid))
  child.kill('SIGKILL')
  await until(() => !alive(pid), { what: 'the orphan to end' })
})

t.test('the servers of a shard of a cluster replace each other as often as they are asked to', async t => {
  const cluster = await startRedisCluster(t, { replicas: 1 })
  for (const how of [undefined, 'FORCE', undefined, 'FORCE', 'FORCE', 'TAKEOVER', undefined] as const) {
    const replica = await cluster.replicaOf(await cluster.masterOf(0))
    await cluster.failover(replica, how)
    t.equal(await cluster.masterOf(0), replica, how ?? 'with the consent of the master')
  }
})

t.test('a proxy keeps what it carries in order, also when its delay is shortened meanwhile', async t => {
  const received: Buffer[] = []
  const target = createTcpServer(socket => socket.on('error', () => {}).on('data', chunk => received.push(chunk)))
  await new Promise<void>(resolve => { target.listen(0, '127.0.0.1', resolve) })
  const proxy = await startProxy(t, (target.address() as AddressInfo).port)
  t.teardown(() => target.close())
  const socket = connectTcp(proxy.port, '127.0.0.1').setNoDelay().on('error', () => {}) // the proxy ends with a reset
  t.teardown(() => socket.destroy())
  const sent: number[] = []
  for (let i = 0; i < 200; i++) {
    proxy.delay([9, 4, 7, 0, 12, 1][i % 6] ?? 0)
    socket.write(Buffer.of(i))
    sent.push(i)
    await new Promise(resolve => setImmediate(resolve))
  }
  await until(() => Buffer.concat(received).length === sent.length, { what: 'all bytes to arrive' })
  t.strictSame([...Buffer.concat(received)], sent)
})

t.test('a proxy passes, cuts, delays, refuses and swallows', async (t) => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const through = client(t, proxy.url)
  t.equal(await through.ping(), 'PONG')
  t.equal(proxy.links, 1)

  const big = Buffer.alloc(20_000_000, 'x')
  await through.set('big', big)
  t.ok((await through.getBuffer('big'))?.equals(big), 'back pressure loses nothing')

  proxy.cut()
  await gone(through)
  t.equal(proxy.links, 0)
  t.equal(await through.ping(), 'PONG', 'a new connection is let in')

  proxy.delay(100)
  const before = performance.now()
  await through.ping()
  t.ok(performance.now() - before > 190, 'there and back')
  proxy.delay(0)

  await proxy.refuse(true)
  t.equal(await through.ping(), 'PONG', 'what is connected stays')
  proxy.cut()
  const [err] = await once(client(t, proxy.url), 'error') as [NodeJS.ErrnoException]
  t.equal(err.code, 'ECONNREFUSED')
  await proxy.refuse(false)
  t.equal(await through.ping(), 'PONG')

  proxy.blackhole(true)
  const fresh = client(t, proxy.url)
  await once(fresh, 'connect')
  const answer = through.ping()
  t.equal(await Promise.race([answer, sleep(200, 'silence')]), 'silence')
  t.equal(through.status, 'ready', 'nothing was closed')
  proxy.blackhole(false)
  await gone(through)
  t.equal(await answer, 'PONG', 'sent again by the client after its reconnect')
  t.equal(await fresh.ping(), 'PONG')

  await redis.kill()
  await until(() => proxy.links === 0 || through.status !== 'ready', { what: 'the end of the server to get through' })
})

t.test('a client misses nothing, and tells closed sockets from slow ones', async (t) => {
  const http = createServer()
  const server = new WebSocketServer({ server: http, handleProtocols: protocols => [...protocols].at(-1) ?? false })
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  t.teardown(() => { http.close() })
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`
  server.on('connection', (socket, request) => {
    socket.send('early')
    socket.send(Buffer.from([1, 2]))
    socket.send(String(request.headers['x-who']))
    socket.on('message', () => socket.close(4001, 'bye'))
  })
  const a = connect(t, url, { protocols: ['one', 'two'], headers: { 'x-who': 'me' } })
  await a.opened
  t.equal(a.ws.protocol, 'two')
  t.equal(await a.next(), 'early')
  t.equal(await a.nextWhere(message => typeof message === 'string'), 'me')
  t.equal(a.messages.length, 3)
  await t.rejects(a.next(20), /no message within 20 ms, after 3 before/)
  const pending = a.next()
  const caught = t.rejects(pending, /closed with 4001 bye/)
  a.send('x')
  t.strictSame(await a.closed, { code: 4001, reason: 'bye' })
  await caught
  await t.rejects(a.next(), /closed with 4001 bye/)

  t.match(await upgradeStatus(url, { protocols: 'one' }), { statusCode: 101, headers: { 'sec-websocket-protocol': 'one' } })
  const b = connect(t, url)
  await b.opened
  b.terminate()
  t.equal((await b.closed).code, 1006)
})

t.test('a refused upgrade shows its plain HTTP reply', async (t) => {
  const http = createServer()
  http.on('upgrade', (_, socket) => socket.end('HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nX-Why: token\r\n\r\nno'))
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  t.teardown(() => { http.close() })
  const url = `ws://127.0.0.1:${(http.address() as AddressInfo).port}/`
  t.match(await upgradeStatus(url), { statusCode: 401, headers: { 'x-why': 'token' }, body: 'no' })
  const refused = connect(t, url)
  await t.rejects(refused.opened, /401/)
  t.equal((await refused.closed).code, 1006)
})

t.test('until says what it waited for', async (t) => {
  let calls = 0
  t.equal(await until(() => ++calls === 3 && 'third', { everyMs: 1 }), 'third')
  const err: Error = await until(() => { throw new Error('boom') }, { timeoutMs: 30, what: 'calm' }).catch(err => err)
  t.match(err, { message: /waiting for calm/, cause: { message: 'boom' } })
})
