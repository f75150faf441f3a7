import t from 'tap'
import dns from 'node:dns'
import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import { Connection } from '../../../lib/backplane/redis/link/connection.ts'
import { Dialer } from '../../../lib/backplane/redis/link/connect.ts'
import type { RedisSource } from '../../../lib/backplane/redis/link/source.ts'
import { startRedis } from '../../helpers/redis.ts'
import { until } from '../../helpers/until.ts'

function connectTo (t: { teardown (end: () => void): void }, source: RedisSource) {
  const happened: string[] = []
  const connection = new Connection(source, 'command', {
    opened () {},
    ready () { happened.push('ready') },
    ended () { happened.push('ended') },
    error () {},
    message () {}
  })
  t.teardown(() => connection.close())
  return { connection, happened }
}

/** What ioredis does inside when a sentinel tells of a failover. */
function failover (redis: Redis): void {
  (redis as unknown as { connector: { disconnect (): void } }).connector.disconnect()
}

t.test('whatever a client ends with, the next one is ready soon', async t => {
  const redis = await startRedis(t)
  const { connection, happened } = connectTo(t, redis.url)
  await until(() => connection.ready)
  const ends: Record<string, (client: Redis) => unknown> = {
    'the library is told to disconnect': client => client.disconnect(),
    'and to reconnect, which it may not': client => client.disconnect(true),
    'the server is asked to quit': async client => await client.quit(),
    'the socket breaks': client => client.stream.destroy(),
    'a failover is noticed': failover
  }
  for (const [name, end] of Object.entries(ends)) {
    const client = connection.redis
    happened.length = 0
    await end(client)
    await until(() => connection.ready && connection.redis !== client, { what: name })
    t.strictSame(happened, ['ended', 'ready'], name)
  }
})

t.test('a failover that is noticed while the client connects leaves no link behind', async t => {
  const redis = await startRedis(t)
  const { connection } = connectTo(t, redis.url)
  const client = connection.redis
  t.equal(client.status, 'connecting')
  failover(client)
  await until(() => client.status === 'end')
  await until(() => connection.ready)
  t.not(connection.redis, client)
})

t.test('a client that ended unnoticed is replaced by the next check', async t => {
  const redis = await startRedis(t)
  const { connection } = connectTo(t, redis.url)
  const client = connection.redis
  client.removeAllListeners('end')
  failover(client)
  await until(() => client.status === 'end')
  connection.check()
  await until(() => connection.ready)
})

t.test('each connection resolves the name anew', async t => {
  const redis = await startRedis(t)
  const { lookup } = dns
  t.teardown(() => { dns.lookup = lookup })
  let address = '127.0.0.2'
  const asked: string[] = []
  dns.lookup = ((name: string, options: { all?: boolean }, callback: (error: null, found: unknown, family?: number) => void) => {
    asked.push(name)
    if (options.all) callback(null, [{ address, family: 4 }])
    else callback(null, address, 4)
  }) as typeof dns.lookup
  const { connection } = connectTo(t, { host: 'redis.example', port: redis.port })
  await until(() => asked.length > 1)
  t.notOk(connection.ready, 'nobody listens at the first address')
  address = '127.0.0.1'
  await until(() => connection.ready)
})

t.test('a name with several addresses: the next one is dialled where the first hangs, answers no more, or is of no use', async t => {
  const redis = await startRedis(t)
  // It accepts connections and says nothing.
  const hung = createServer(socket => sockets.add(socket))
  const sockets = new Set<Socket>()
  await once(hung.listen(redis.port, '127.0.0.3'), 'listening')
  t.teardown(() => {
    hung.close()
    for (const socket of sockets) socket.destroy()
  })
  const { lookup } = dns
  t.teardown(() => { dns.lookup = lookup })
  for (const [first, what] of [['127.0.0.3', 'hangs'], ['127.0.0.2', 'is dead']] as const) {
    dns.lookup = ((_name: string, options: { all?: boolean }, callback: (error: null, found: unknown, family?: number) => void) => {
      if (options.all) callback(null, [{ address: first, family: 4 }, { address: '127.0.0.1', family: 4 }])
      else callback(null, first, 4)
    }) as typeof dns.lookup
    // With a family, as ioredis 5 has it by default, a socket tries the first address alone.
    for (const family of [0, 4] as const) {
      const { connection } = connectTo(t, { host: 'redis.example', port: redis.port, family })
      if (what === 'hangs') {
        await until(() => connection.shakingHands)
        // As the link does when nothing comes.
        connection.reset()
      }
      await until(() => connection.ready, { what: `the other address when the first ${what}, family ${family}` })
      t.equal(connection.address?.host, '127.0.0.1')
      connection.close()
    }
  }
  const { connection } = connectTo(t, { host: 'redis.example', port: redis.port })
  await until(() => connection.ready)
  dns.lookup = ((_name: string, _options: unknown, callback: (error: null, found: unknown) => void) => {
    callback(null, [{ address: '127.0.0.1', family: 4 }, { address: '127.0.0.3', family: 4 }])
  }) as typeof dns.lookup
  sockets.clear()
  connection.blame()
  await until(() => sockets.size > 0, { what: 'the second address to be dialled after a server that is of no use' })
})

t.test('a resolver that hangs or knows the name no more keeps no connection from being tried, and none is made after the end', async t => {
  const { lookup } = dns
  t.teardown(() => { dns.lookup = lookup })
  let asked = 0
  dns.lookup = ((_name: string, _options: unknown, callback: (error: Error) => void) => {
    asked++
    callback(new Error('ENOTFOUND'))
  }) as typeof dns.lookup
  const { connection } = connectTo(t, { host: 'redis.example' })
  await until(() => asked > 3)
  dns.lookup = (() => { asked = 0 }) as unknown as typeof dns.lookup
  await until(() => asked === 0)
  connection.close()
  await sleep(2_500)
  t.equal(connection.redis.status, 'end')
  t.equal(asked, 0)
})

t.test('nothing is dialled after the end, and a dial that is given up is not counted as slow', async t => {
  const sockets = new Set<Socket>()
  const server = createServer(socket => { sockets.add(socket) }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  const { port } = server.address() as AddressInfo
  const { connection } = connectTo(t, { host: '127.0.0.1', port })
  await until(() => connection.shakingHands)
  connection.reset()
  t.notOk(connection.shakingHands)
  await until(() => connection.shakingHands)
  t.equal(connection.patienceMs, 2_000)
  connection.reset()
  connection.reset()
  connection.close()
  await sleep(600)
  t.equal(sockets.size, 2)
})

t.test('steps of a dial may take longer after each one that was too slow, up to a limit', async t => {
  const dialer = new Dialer('redis://127.0.0.1:1', 'command')
  const patience = [2_000, 4_000, 8_000, 16_000, 16_000]
  for (const [index, ms] of patience.entries()) {
    t.equal(dialer.patienceMs, ms)
    t.ok(dialer.pauseMs <= Math.min(500, 50 * 4 ** index))
    dialer.failed(10)
    t.equal(dialer.patienceMs, ms, 'a refusal at once says nothing of time')
    dialer.failed(ms)
  }
  dialer.succeeded()
  t.equal(dialer.patienceMs, 2_000)
  t.ok(dialer.pauseMs <= 50)
})
