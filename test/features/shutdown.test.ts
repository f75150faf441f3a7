import t from 'tap'
import { once } from 'node:events'
import { join } from 'node:path'
import { deferred } from '../../lib/deadline.ts'
import { heard, onEveryCluster, onRedis, redisCluster, startInstance, type InstanceOptions } from '../helpers/app.ts'
import { forkProgram } from '../helpers/child.ts'
import { connect, upgradeStatus } from '../helpers/client.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { freePort } from '../helpers/ports.ts'
import { startRedis } from '../helpers/redis.ts'
import { service } from '../helpers/service.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const machine = watchMachine(t)
const redis = await startRedis(t)

onEveryCluster(t, redis, 'an instance that closes under traffic takes its members with it, and disturbs no other', async (t, cluster) => {
  const [a, b, c] = [await cluster.start(), await cluster.start(), await cluster.start()]
  const staying = await Promise.all([a, c].flatMap(instance => Array.from({ length: 5 }, async () => await instance.enter('room'))))
  const leaving = await Promise.all(Array.from({ length: 50 }, async (_, n) => await b.enter(n % 2 === 0 ? 'room' : `own-${n}`)))
  let sending = 0
  const sent: string[] = []
  const results: Array<Promise<unknown>> = []
  const traffic = setInterval(() => {
    for (const { registry } of [a, c]) {
      const text = `message ${sending++}`
      sent.push(text)
      results.push(registry.broadcastToGroup('room', text))
    }
  }, 1)
  await until(() => sending > 100)
  await b.close()
  t.equal(await a.registry.groupCount('room'), 10, 'gone the moment close resolves')
  t.equal(await c.registry.groupCount('own-1'), 0)
  t.strictSame((await c.registry.members('room')).filter(({ instanceId }) => instanceId === b.id), [])
  const closedAt = sending
  await until(() => sending > closedAt + 100)
  clearInterval(traffic)
  await Promise.all(results)
  await until(() => staying.every(member => heard(member).length === sent.length))
  const [first, ...others] = staying.map(heard)
  t.strictSame([...first ?? []].sort(), sent.sort(), 'nothing is lost on those that stay')
  for (const other of others) t.strictSame(other, first)
  for (const { client } of leaving) t.strictSame(await client.closed, { code: 1001, reason: 'server is going away' })
  t.match(b.registry.health(), { status: 'closing', ready: false })
})

onEveryCluster(t, redis, 'the last words of the connections of a closing instance reach the others', async (t, cluster) => {
  const routes: InstanceOptions['routes'] = app => app.wsRoom('/talkative/:room', {
    auth: false,
    group: ({ room }) => room,
    onJoin: connection => connection.send(connection.id),
    async onLeave (connection, group) {
      await new Promise(resolve => setTimeout(resolve, 50))
      await app.registry.broadcastToGroup(group, `${connection.id} left, ${await app.registry.groupCount(group)} remain`)
    }
  })
  const [a, b] = [await cluster.start({ routes }), await cluster.start()]
  const watcher = await b.enter('room')
  const clients = Array.from({ length: 20 }, () => connect(t, `${a.url}/talkative/room`))
  const ids = await Promise.all(clients.map(async client => String(await client.next())))
  await a.close()
  await until(() => heard(watcher).length >= 20)
  t.strictSame(heard(watcher).map(text => String(text).split(' ')[0]).sort(), ids.sort())
  t.ok(heard(watcher).every(text => String(text).endsWith('left, 1 remain')), String(heard(watcher)[0]))
})

onEveryCluster(t, redis, 'a client that does not answer the close delays the shutdown by closeGraceMs at most', async (t, cluster) => {
  const left: string[] = []
  const [a, b] = [await cluster.start({
    closeGraceMs: 200,
    shutdownCode: 1012,
    routes: app => app.wsRoom('/deaf/:room', {
      auth: false,
      group: ({ room }) => room,
      onJoin: connection => connection.send(connection.id),
      onLeave: connection => { left.push(connection.id) }
    })
  }), await cluster.start()]
  const [deaf, polite] = [connect(t, `${a.url}/deaf/room`), connect(t, `${a.url}/deaf/room`)]
  const ids = [String(await deaf.next()), String(await polite.next())]
  deaf.ws.pause()
  machine.restart()
  const started = performance.now()
  await a.close()
  const took = performance.now() - started
  t.ok(took >= 190, `${took.toFixed()} ms`)
  machine.within(t, took, 1_000, 'done')
  t.strictSame(await polite.closed, { code: 1012, reason: 'server restarts' })
  t.strictSame(left.sort(), ids.sort(), 'onLeave ran for both, once')
  t.equal(await b.registry.groupCount('room'), 0)
  deaf.ws.resume()
  t.equal((await deaf.closed).code, 1012)
})

onEveryCluster(t, redis, 'close may be called twice, and what is called afterwards says that it is closed', async (t, cluster) => {
  const a = await cluster.start({ outage: { broadcast: 'reject', join: 'reject', reads: 'reject' } })
  const { connection, id } = await a.enter('room', { user: 'ann' })
  await Promise.all([a.close(), a.close()])
  await a.close()
  const gone = 'WSG_CLOSED'
  await t.rejects(a.registry.broadcastToGroup('room', 'x'), { code: gone })
  await t.rejects(a.registry.broadcastToAll('x'), { code: gone })
  await t.rejects(a.registry.sendToUser('ann', 'x'), { code: gone })
  await t.rejects(a.registry.groupCount('room'), { code: gone })
  await t.rejects(a.registry.members('room'), { code: gone })
  await t.rejects(a.registry.disconnect({ userId: 'ann' }), { code: gone })
  await t.rejects(a.registry.sendTo('0000000000.1', 'x'), { code: gone })
  await t.rejects(a.registry.join(connection, 'other'), { code: gone })
  await t.rejects(a.registry.sendTo(id, 'x'), { code: gone })
  await t.rejects(a.registry.leave(id, 'room'), { code: gone })
  t.equal(a.registry.count(), 0)
  t.equal(a.registry.stats().groups, 0)
})

onRedis(t, redis, 'all that is in Redis goes when the last instance closes, whoever closes first', async (t, cluster) => {
  const instances = [
    await cluster.start({ lingerMs: 60_000 }), await cluster.start({ lingerMs: 60_000 }), await cluster.start({ lingerMs: 0 })
  ]
  const opened = await Promise.all(instances.flatMap(
    instance => Array.from({ length: 30 }, async (_, n) => await instance.enter(`room-${n % 10}`, { user: `user-${n % 4}` }))
  ))
  await Promise.all(opened.flatMap(
    ({ id }, n) => Array.from({ length: 5 }, async (_, k) => await instances[n % 3]?.registry.join(id, `more-${n % 3}-${k}`))
  ))
  for (const { client } of opened.slice(0, 20)) client.terminate()
  await Promise.all(instances.map(async instance => await instance.close()))
  t.strictSame(await redis.leftovers(), [])
})

t.test('an instance that closes while its Redis hangs, or is cut off, or is gone, is done within two seconds and a grace', async (t) => {
  machine.restart()
  await Promise.all((['hangs', 'is cut off', 'is gone'] as const).map(async trouble => {
    const own = await startRedis(t)
    const proxy = await startProxy(t, own.port)
    const cluster = await redisCluster(t, own, { redis: proxy.url, operationTimeoutMs: 500, joinTimeoutMs: 1_000 })
    const a = await cluster.start()
    const { client } = await a.enter('room')
    if (trouble === 'hangs') own.stop()
    if (trouble === 'is cut off') proxy.blackhole(true)
    if (trouble === 'is gone') await own.kill()
    const started = performance.now()
    await a.close()
    const took = performance.now() - started
    machine.within(t, took, 3_200, `Redis ${trouble}`)
    t.equal((await client.closed).code, 1001)
  }))
})

t.test('an instance that closes in the moment Redis comes back leaves nothing in it', async (t) => {
  const own = await startRedis(t)
  for (let turns = 0; turns < 20; turns++) {
    const a = await startInstance(t, { redis: own.url })
    await a.enter('room')
    await own.kill()
    await until(() => a.registry.health().status === 'down')
    const back = own.restart()
    const nextTurn = async (): Promise<void> => { await new Promise(resolve => setImmediate(resolve)) }
    while (a.registry.health().problems.some(problem => problem.includes('command link'))) await nextTurn()
    for (let turn = 0; turn < turns; turn++) await nextTurn()
    await a.close()
    await back
    t.strictSame(await own.leftovers(), [], `closed ${turns} turns of the event loop after the link came back`)
  }
})

t.test('an application that is closed before it is ready, or while it boots without Redis, is closed and leaves nothing', async (t) => {
  const { app: unready } = await service(t, { redis: redis.url })
  await unready.close()
  t.strictSame(await redis.leftovers(), [])

  const redisUrl = `redis://127.0.0.1:${await freePort()}`
  for (const pauseMs of [0, 50]) {
    const { app: booting } = await service(t, { redis: redisUrl, bootTimeoutMs: 300 })
    machine.restart()
    const started = performance.now()
    const ready = Promise.resolve(booting.ready()).catch((error: unknown) => error)
    if (pauseMs > 0) await new Promise(resolve => setTimeout(resolve, pauseMs))
    // Fastify may finish the boot first, which takes as long as a boot may.
    await booting.close()
    await ready
    machine.within(t, performance.now() - started, 1_000, 'done')
    t.match(booting.registry.health(), { status: 'closing', ready: false })
  }

  const instance = await startInstance(t, { redis: redisUrl, bootTimeoutMs: 100 })
  machine.restart()
  const closing = performance.now()
  await instance.close()
  machine.within(t, performance.now() - closing, 500, 'done')
})

t.test('an upgrade that waits still when the shutdown begins gets 503, and what it waits for may end later', async (t) => {
  const held = deferred()
  let reached = false
  const a = await startInstance(t, {
    closeGraceMs: 1_000,
    routes (app) {
      app.get('/slow', {
        websocket: true,
        async preHandler () {
          reached = true
          await held.promise
        }
      }, app.wsHandler({ onConnect () { t.fail('nobody hears of it') }, onMessage () {} }))
      app.wsRoom('/holding/:room', {
        auth: false, group: ({ room }) => room, onLeave: async () => await new Promise(resolve => setTimeout(resolve, 300))
      })
    }
  })
  const holding = connect(t, `${a.url}/holding/room`)
  await holding.opened
  const late = upgradeStatus(`${a.url}/slow`)
  await until(() => reached && a.registry.count() === 1)
  const closing = a.close()
  const { statusCode, body } = await late
  t.equal(statusCode, 503)
  t.match(JSON.parse(body), { code: 'WSG_REFUSED', error: 'Service Unavailable' })
  held.resolve()
  await closing
})

for (const [name, url] of [
  ['memory', async () => ''], ['Redis', async () => redis.url],
  ['a Redis that is not there', async () => `redis://127.0.0.1:${await freePort()}`]
] as const) {
  t.test(`a process that served and closed ends by itself, with ${name}`, async (t) => {
    const child = forkProgram(join(import.meta.dirname, 'programs', 'serve.ts'), [await url()])
    t.teardown(() => child.kill('SIGKILL'))
    const exited = once(child, 'exit')
    const [report] = await once(child, 'message')
    machine.restart()
    const reported = performance.now()
    t.strictSame(report, { message: 'hi', code: 1001 })
    const [exitCode] = await exited as [number]
    t.equal(exitCode, 0)
    machine.within(t, performance.now() - reported, 2_000, 'done')
  })
}
