import t, { type Test } from 'tap'
import Fastify, { type FastifyInstance } from 'fastify'
import { mock } from 'node:test'
import { WebSocket } from 'ws'
import { testCluster, type TestCluster, type TestClusterOptions } from '../../lib/testing/index.ts'
import websocketGroups, { type WebsocketGroupsOptions } from '../../plugin.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const redis = await startRedis(t)

async function buildApp (options: WebsocketGroupsOptions): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(websocketGroups, {
    authenticate: token => token === 'stranger' ? null : { userId: token, expiresAt: Date.now() + 60_000 },
    leaseMs: 1_000,
    ...options
  })
  app.wsRoom('/ws/:room', { presence: true })
  return app
}

async function start (t: Test, options: Partial<TestClusterOptions> = {}): Promise<TestCluster> {
  const cluster = await testCluster({ app: buildApp, ...options })
  t.teardown(async () => await cluster.close())
  return cluster
}

for (const [name, options] of [['memory', {}], ['redis', { redis: redis.url }]] as const) {
  t.test(`instances know each other, and clients are given what they wait for (${name})`, async t => {
    const cluster = await start(t, options)
    t.equal(cluster.instances.length, 2)
    const [ann, bob] = [await cluster.open('/ws/lobby', { token: 'ann' }), await cluster.open('/ws/lobby', { token: 'bob' })]
    t.strictSame(cluster.instances.map(({ app }) => app.registry.count()), [1, 1], 'raw clients take the instances in turn')
    await until(async () => await cluster.instances[0]?.app.registry.groupCount('lobby') === 2)
    for (const text of ['one', 'two', 'three']) ann.send(text)
    t.equal(await bob.next(), 'one')
    t.equal(await bob.until(message => message === 'three'), 'three')
    t.strictSame(bob.messages, ['one', 'two', 'three'])
    bob.send(Buffer.from([7]))
    t.strictSame(await bob.next(), Buffer.from([7]))
    const [, second] = cluster.instances
    t.equal(await second?.app.registry.disconnect({ userId: 'ann' }, { code: 4403, reason: 'out' }), 1)
    t.strictSame(await ann.closed(), { code: 4403, reason: 'out' })
    await t.rejects(ann.until(message => message === 'never'), /no such message before the connection closed with 4403 out; 4 came so far/)
    await t.rejects(bob.next({ timeoutMs: 20 }), /no such message within 20 ms; 4 came so far, the latest: two, three/)
    await t.rejects(bob.closed({ timeoutMs: 20 }), /still open/)
    await t.rejects(cluster.open('/ws/lobby', { token: 'stranger' }), /401/)
    const third = await cluster.start()
    const eve = await cluster.open('/ws/lobby', { token: 'eve', instance: third })
    t.equal(third.app.registry.count(), 1)
    eve.close(1000, 'bye')
    t.strictSame(await eve.closed(), { code: 1000, reason: 'bye' })
  })

  t.test(`a link that is cut, a backplane that is out, an instance that is killed (${name})`, async t => {
    const cluster = await start(t, options)
    const registry = (): FastifyInstance['registry'] => cluster.instances[0]?.app.registry as FastifyInstance['registry']
    const ann = await cluster.connect('/ws/lobby', { token: 'ann' })
    await until(() => ann.client.groups.length === 1)
    await registry().broadcastToGroup('lobby', 'before')
    t.match(await ann.next(), { data: 'before', group: 'lobby' })
    // Before the cut: it may be back at once.
    const left = new Promise(resolve => ann.client.on('state', resolve))
    ann.cut()
    await left
    await registry().broadcastToGroup('lobby', 'meanwhile')
    t.match(await ann.next(), { data: 'meanwhile' }, 'it came back, and resumed')

    await cluster.cutBackplane()
    for (const { app } of cluster.instances) t.equal(app.registry.health().status, 'down')
    await t.rejects(registry().broadcastToGroup('lobby', 'lost'), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
    const late = await cluster.open('/ws/lobby', { token: 'bob' })
    await cluster.mendBackplane()
    await until(async () => await registry().groupCount('lobby') === 2)
    await registry().broadcastToGroup('lobby', 'after')
    t.equal(await late.next(), 'after')
    t.match(await ann.next(), { data: 'after' })

    const held = await cluster.open('/ws/other', { token: 'eve' })
    const victim = cluster.instances.find(({ app }) => app.registry.all().some(({ userId }) => userId === 'eve'))
    await victim?.kill()
    await victim?.close()
    t.equal(cluster.instances.length, 1, 'the other one is still counted, also when one is ended twice')
    t.match(await held.closed(), { code: 1006 }, 'no close frame')
    await until(() => ann.client.state === 'open')
    await until(async () => await registry().groupCount('other') === 0)
    await until(async () => (await registry().presence('lobby')).some(({ userId }) => userId === 'ann'))
    await registry().broadcastToGroup('lobby', 'at the other')
    await ann.until(({ data }) => data === 'at the other')
  })

  t.test(`streams and instances that start share an outage, and a crash tells nobody (${name})`, async t => {
    const cluster = await start(t, { ...options, app: async given => await buildApp({ ...given, bootTimeoutMs: 100 }) })
    const [first, second] = cluster.instances
    const textOf = async (id: string): Promise<unknown> => await second?.app.registry.readStream('lobby', id)
    const [dying, going] = [first?.app.registry.stream('lobby', 'dying'), second?.app.registry.stream('lobby', 'going')]
    for (const stream of [dying, going]) stream?.append('one')
    await until(async () => (await Promise.all(['dying', 'going'].map(textOf))).every(read => (read as { text?: string })?.text === 'one'))
    await first?.kill()
    t.match(await textOf('dying'), { state: 'open', text: 'one' })

    await cluster.cutBackplane()
    going?.append(' two')
    const late = await cluster.start()
    t.equal(late.app.registry.health().status, 'down')
    await t.rejects(second?.app.registry.readStream('lobby', 'going') as Promise<unknown>, { code: 'WSG_BACKPLANE_UNAVAILABLE' })
    await cluster.mendBackplane()
    await until(async () => (await late.app.registry.readStream('lobby', 'going'))?.text === 'one two')
    await going?.done()
  })
}

t.test('a client that does not get in ends with the cluster', async t => {
  const cluster = await start(t, {
    app: async options => {
      const app = await buildApp(options)
      app.addHook('onRequest', async (request, reply) => { if (request.url === '/ws/full') await reply.code(503).send() })
      return app
    }
  })
  const refused = t.rejects(cluster.connect('/ws/full', { token: 'ann' }), /closed with 1000/)
  await cluster.close()
  await refused
})

t.test('nothing of a client is left when the cluster has closed', async t => {
  const cluster = await testCluster({ app: buildApp, instances: 1 })
  const ann = await cluster.open('/ws/lobby', { token: 'ann' })
  const bob = await cluster.connect('/ws/framed', { token: 'bob' })
  // It does not read the close frame of the server: ws would wait for that half a minute.
  ann.socket.pause()
  await cluster.close()
  t.strictSame([ann.socket.readyState, bob.client.state], [WebSocket.CLOSED, 'closed'])
})

t.test('what a predicate throws is for whoever waits, and the next call may follow', async t => {
  const cluster = await start(t, { instances: 1 })
  const ann = await cluster.open('/ws/lobby', { token: 'ann' })
  const parsed = ann.until(message => JSON.parse(String(message)) === 1)
  ann.send('no JSON')
  await t.rejects(parsed, SyntaxError)
  ann.send('more')
  t.equal(await ann.next(), 'more')
})

t.test('time may be fake: tokens end when the test says so', async t => {
  await using cluster = await testCluster({ app: buildApp, instances: 1 })
  mock.timers.enable({ apis: ['setTimeout', 'Date'], now: Date.now() })
  t.teardown(() => mock.timers.reset())
  const ann = await cluster.open('/ws/lobby', { token: 'ann' })
  await until(() => cluster.instances[0]?.app.registry.count() === 1, { what: 'the connection' })
  mock.timers.tick(59_000)
  ann.send('still here')
  t.equal(await ann.next(), 'still here')
  mock.timers.tick(1_000)
  t.match(await ann.closed(), { code: 4401 })
  mock.timers.reset()
})

t.test('a Redis is found by REDIS_URL, and the cluster keeps to keys of its own there', async t => {
  const { REDIS_URL: before } = process.env
  process.env.REDIS_URL = redis.url
  t.teardown(() => {
    if (before === undefined) delete process.env.REDIS_URL
    else process.env.REDIS_URL = before
  })
  const cluster = await start(t, { redis: 'find', instances: 1 })
  const ann = await cluster.open('/ws/found', { token: 'ann' })
  ann.send('hello')
  t.equal(await ann.next(), 'hello')
  const keys = (await redis.keys()).filter(key => key.includes('found'))
  t.ok(keys.length > 0)
  t.strictSame(keys.filter(key => !/^wsg-test-[0-9a-f]{12}:/.test(key)), [])
})

t.test('a Redis may have an IPv6 address', async t => {
  const { port } = await startRedis(t, { args: ['--bind', '127.0.0.1', '::1'] })
  const cluster = await start(t, { redis: `redis://[::1]:${port}` })
  const [ann, bob] = [await cluster.open('/ws/lobby', { token: 'ann' }), await cluster.open('/ws/lobby', { token: 'bob' })]
  await until(async () => await cluster.instances[0]?.app.registry.groupCount('lobby') === 2)
  ann.send('hello')
  t.equal(await bob.next(), 'hello')
  await t.rejects(testCluster({ app: buildApp, redis: 'redis://[::1]:1' }), { message: /no Redis at ::1:1/ })
})

t.test('a Redis that is not there is named, and nothing is left of a cluster that could not start', async t => {
  await t.rejects(testCluster({ app: buildApp, redis: 'redis://127.0.0.1:1' }), {
    code: 'WSG_BACKPLANE_UNAVAILABLE', message: /no Redis at 127\.0\.0\.1:1/
  })
  let closed = 0
  let started = 0
  await t.rejects(testCluster({
    app: async options => {
      if (++started === 2) throw new Error('no second one')
      const app = await buildApp(options)
      app.addHook('onClose', async () => { closed++ })
      return app
    }
  }), /no second one/)
  t.equal(closed, 1)

  const openSockets = (): number => process.getActiveResourcesInfo().filter(resource => resource.startsWith('TCP')).length
  const before = openSockets()
  await t.rejects(testCluster({
    redis: redis.url,
    app: async options => {
      const app = await buildApp(options)
      app.addHook('onReady', async () => { throw new Error('not ready') })
      return app
    }
  }), /not ready/)
  await until(() => openSockets() <= before, { what: 'the end of all connections of the instance' })
  const failing = await testCluster({
    redis: redis.url,
    instances: 1,
    app: async options => {
      const app = await buildApp(options)
      app.addHook('onClose', async () => { throw new Error('not closed') })
      return app
    }
  })
  await t.rejects(failing.close(), /not closed/)
  await until(() => openSockets() <= before, { what: 'the same where a hook throws at the end' })
  const empty = await start(t, { instances: 0 })
  await t.rejects(empty.open('/ws/lobby'), /no instance runs/)
})
