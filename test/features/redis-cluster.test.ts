import t from 'tap'
import { Cluster } from 'ioredis'
import { createRequire } from 'node:module'
import { createPublisher, type HistoryOptions, type WebsocketGroupsOptions } from '../../plugin.ts'
import { partitionOf } from '../../lib/backplane/redis/hash-tags.ts'
import { heard, startInstance } from '../helpers/app.ts'
import { upgradeStatus } from '../helpers/client.ts'
import { Local } from '../helpers/local-instance.ts'
import { openFramed } from './framed/framed-client.ts'
import { recordedLog } from '../helpers/loggers.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { slotOfGroup, startRedisCluster } from '../helpers/redis-cluster.ts'
import { startRedis } from '../helpers/redis.ts'
import { serve } from '../helpers/service.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { startTlsProxies } from '../helpers/tls-proxy.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const cluster = await startRedisCluster(t)
const redis = { cluster: [...cluster.addresses] }
const ioredis5 = createRequire(import.meta.url)('ioredis-5') as typeof import('ioredis')
t.afterEach(async () => {
  await cluster.flush()
})

/** Names that lie in different partitions. */
const groups = Array.from({ length: 12 }, (_, n) => `room-${n}`)

t.test('applications on a cluster: groups, users, everyone, members, blocks', async t => {
  t.ok(new Set(groups.map(name => partitionOf(name, 256))).size > 10)
  const [a, b] = [await startInstance(t, { redis }), await startInstance(t, { redis })]
  const [x, y] = [await a.open({ user: 'ann' }), await b.open({ user: 'bob' })]
  for (const name of groups) {
    await a.registry.join(x.id, name)
    await b.registry.join(y.id, name)
  }
  const { instances } = await a.registry.broadcastToGroup(groups, 'to all groups', { volatile: true })
  t.equal(instances, 2)
  await a.registry.broadcastToAll('to everyone')
  await a.registry.sendToUser('bob', 'to bob')
  await until(() => heard(y).length >= 3 && heard(x).length >= 2)
  t.strictSame(heard(x).sort(), ['to all groups', 'to everyone'], 'one copy each')
  t.strictSame(heard(y).sort(), ['to all groups', 'to bob', 'to everyone'])
  for (const name of groups) t.equal(await b.registry.groupCount(name), 2)
  t.strictSame((await a.registry.members(groups[0] ?? '')).map(({ connectionId }) => connectionId).sort(), [x.id, y.id].sort())
  t.equal(await a.registry.disconnect(y.id), 1, 'a connection of another instance')
  await until(async () => await a.registry.groupCount(groups[0] ?? '') === 1)
  t.strictSame([a.registry.health().status, a.registry.health().problems], ['up', []])
})

t.test('users, people, hooks, questions and histories are those of the whole cluster', async t => {
  const told: string[] = []
  const note = (what: string) => (name: string): void => { told.push(`${what} ${name}`) }
  const options: WebsocketGroupsOptions = {
    redis,
    onOccupied: note('occupied'),
    onVacated: note('vacated'),
    onUserOnline: note('online'),
    onUserOffline: note('offline'),
    operationTimeoutMs: 5_000,
    joinTimeoutMs: 5_000
  }
  const start = async (): ReturnType<typeof serve> => await serve(t, options, app => app.wsRoom('/:room', { presence: true }))
  const [a, b] = [await start(), await start()]
  const watcher = await openFramed(t, `${a.url}/lobby`, { token: 'watcher' })
  await watcher.nextOf('members')
  const devices = [await openFramed(t, `${a.url}/lobby`, { token: 'ann' }), await openFramed(t, `${b.url}/lobby`, { token: 'ann' })]
  for (const device of devices) await device.nextOf('joined')

  t.equal(await a.registry.join({ userId: 'ann' }, 'news'), 2)
  t.strictSame(await b.registry.groups({ userId: 'ann' }), ['lobby', 'news'])
  t.match(await b.registry.presence('lobby'), [{ userId: 'ann', connections: 2 }, { userId: 'watcher', connections: 1 }])
  t.strictSame([...await b.registry.groupList({ prefix: 'n' })], ['news'])
  t.strictSame([await a.registry.connectionCount(), await b.registry.userCount()], [3, 2])
  for (const [name, { registry }] of Object.entries({ a, b })) registry.instances.on('who', () => name)
  const { replies, missing } = await a.registry.instances.ask('who', null)
  t.strictSame([[...replies].sort(), missing], [['a', 'b'], 0])

  const positions: string[] = []
  for (let n = 1; n <= 5; n++) positions.push((await b.registry.broadcastToGroup('news', `m${n}`)).position ?? '')
  const page = async (query: HistoryOptions): Promise<unknown[]> => {
    const { messages, more, gap } = await a.registry.history('news', query)
    return [messages.map(({ data }) => data).join(' '), more, gap]
  }
  t.strictSame(await page({ limit: 2 }), ['m4 m5', true, undefined])
  t.strictSame(await page({ since: 'start', limit: 1 }), ['m1', true, undefined])
  t.strictSame(await page({ since: positions[2] }), ['m4 m5', false, undefined])
  t.strictSame(await page({ before: positions[2], reverse: true }), ['m2 m1', false, undefined])

  t.equal(await a.registry.leave({ userId: 'ann' }, 'lobby', { reason: 'be nice' }), 2)
  for (const device of devices) t.match(await device.nextOf('left'), { group: 'lobby', reason: 'be nice' })
  await watcher.nextOf('presence', { event: 'leave' })
  for (const { raw } of [...devices, watcher]) await raw.close(1000)
  await until(() => told.length >= 8)
  t.strictSame(told.sort(), [
    'occupied lobby', 'occupied news', 'offline ann', 'offline watcher', 'online ann', 'online watcher', 'vacated lobby', 'vacated news'
  ])
})

t.test('limits and blocks of users hold on the whole cluster', async t => {
  const limits = { connectionsPerUser: 2 }
  const [a, b] = [await startInstance(t, { redis, limits }), await startInstance(t, { redis, limits })]
  const users = ['ann', 'bob', 'eve', 'max']
  const answers = async ({ url }: { readonly url: string }): Promise<number[]> => await Promise.all(users.map(async user => {
    return (await upgradeStatus(`${url}/ws`, { headers: { authorization: `Bearer ${user}` } })).statusCode
  }))
  for (const user of users) for (const one of [a, b]) await one.open({ user })
  for (const one of [a, b]) t.strictSame(await answers(one), [429, 429, 429, 429], 'nobody has a third connection')
  for (const userId of users) t.equal(await a.registry.block({ userId }, { forMs: 60_000 }), 2)
  for (const one of [a, b]) await until(async () => (await answers(one)).every(status => status === 403), { what: 'all to be blocked' })
  for (const userId of users) await b.registry.unblock({ userId })
  for (const one of [a, b]) await until(async () => !(await answers(one)).includes(403), { what: 'nobody to be blocked' })
})

t.test('the log of a user lies where the user does', async t => {
  const userLog = { maxMessages: 50, ttlMs: 60_000 }
  const [a, b] = [await startInstance(t, { redis, userLog }), await startInstance(t, { redis, userLog })]
  const users = ['ann', 'bob', 'eve', 'max']
  const opened = await Promise.all(users.map(async user => await b.open({ user })))
  for (const user of users) t.match(await a.registry.sendToUser(user, `to ${user}`), { position: String })
  for (const [n, one] of opened.entries()) t.equal(await one.client.next(), `to ${users[n]}`)
  t.equal(await a.registry.disconnect({ userId: 'max' }), 1)
})

t.test('messages to several logged groups: in each log once, in order, and again with their key', async t => {
  const log = { maxMessages: 50, ttlMs: 60_000 }
  const [a, b] = [await startInstance(t, { redis, log }), await startInstance(t, { redis, log })]
  const y = await b.open()
  for (const name of groups) await b.registry.join(y.id, name)
  for (let n = 0; n < 20; n++) await a.registry.broadcastToGroup(groups, `message ${n}`, { idempotencyKey: `key ${n}` })
  const again = await a.registry.broadcastToGroup(groups, 'message 7', { idempotencyKey: 'key 7' })
  t.equal(again.duplicate, true)
  await until(() => heard(y).length === 20)
  t.strictSame([...heard(y)].sort(), Array.from({ length: 20 }, (_, n) => `message ${n}`).sort(), 'one copy of each')
})

t.test('a client that missed thousands of messages to groups of several partitions gets one copy of each', async t => {
  const [one = '', two = ''] = groups
  t.not(partitionOf(one, 256), partitionOf(two, 256))
  const log = { maxMessages: 5_000, maxBytes: 33_554_432, ttlMs: 60_000 }
  const { app, url } = await serve(t, { redis, log, operationTimeoutMs: 10_000 }, app => {
    app.get('/', { websocket: true }, app.wsHandler({
      async onConnect (connection) { for (const group of [one, two]) await app.registry.join(connection, group) },
      onMessage () {}
    }))
  })
  const before = await openFramed(t, url)
  const [first, second] = [await before.nextOf('joined', { group: one }), await before.nextOf('joined', { group: two })]
  before.raw.terminate()
  const texts = Array.from({ length: 3_000 }, (_, n) => `shared ${n}`)
  await Promise.all(texts.map(async text => await app.registry.broadcastToGroup([one, two], text)))
  const back = await openFramed(t, url, {
    hello: {
      session: before.welcome.session,
      resume: { [one]: first.position, [two]: second.position },
      grants: { [one]: first.grant, [two]: second.grant }
    }
  })
  for (const group of [one, two]) await back.nextOf('joined', { group })
  await app.registry.broadcastToGroup(two, 'end')
  await back.nextOf('message', { data: 'end' })
  const received = back.frames.filter(({ type, data }) => type === 'message' && data !== 'end').map(({ data }) => String(data))
  t.strictSame(received.sort(), [...texts].sort())
})

t.test('a publisher, a node given as URL, and an ioredis Cluster, which is left alone', async t => {
  const client = new Cluster([...cluster.addresses], { redisOptions: { connectionName: 'mine' } })
  const client5 = new ioredis5.Cluster([...cluster.addresses])
  for (const each of [client, client5]) {
    t.teardown(() => each.disconnect())
    each.on('error', error => t.fail(error.message))
  }
  const [a, b] = [await startInstance(t, { redis: client }), await startInstance(t, { redis: cluster.nodes[1]?.url })]
  const [x, y] = [await a.enter('lobby'), await b.enter('lobby')]
  for (const given of [redis, client, client5, cluster.nodes[2]?.url ?? '']) {
    await using publisher = createPublisher({ redis: given })
    await publisher.broadcastToGroup(['lobby', ...groups], 'published')
    t.equal(await publisher.groupCount('lobby'), 2)
    t.equal(await publisher.connectionCount(), 2)
    t.equal(await publisher.sendTo(x.id, 'published'), true)
    t.strictSame([...await publisher.groupList()], ['lobby'])
  }
  await until(() => heard(x).length === 8)
  t.strictSame(await Promise.all([a, b].map(async ({ registry }) => await registry.userCount())), [0, 0])
  await until(() => heard(y).length === 4)
  await a.close()
  for (const each of [client, client5]) t.equal(await each.set('still', 'mine'), 'OK')
})

t.test('a node given as URL warns of nothing', async t => {
  const { log, lines } = recordedLog()
  const local = new class extends Local { override readonly log = log }({ redis: cluster.nodes[1]?.url ?? '' })
  await local.start(t)
  t.equal(local.backplane.state, 'up')
  t.strictSame(lines, [])
})

t.test('processes that divide the keys otherwise are kept out', async t => {
  const first = await new Local({ redis }).start(t)
  const other = new Local({ redis, partitions: 16 } as ConstructorParameters<typeof Local>[0])
  t.teardown(async () => await other.backplane.close())
  await t.rejects(
    other.backplane.start(other), { code: 'WSG_REDIS_UNSUPPORTED', message: /256 partitions, this process: schema 1, 16 partitions/ }
  )
  t.equal(first.backplane.state, 'up')
  const apart = await new Local({ redis, partitions: 16, keyPrefix: 'other:' } as ConstructorParameters<typeof Local>[0]).start(t)
  t.equal(apart.backplane.state, 'up', 'with names of its own it may')
})

t.test('a cluster that stops as a whole when one master is out is named as a problem', async t => {
  const setting = 'cluster-require-full-coverage'
  const set = async (value: string): Promise<void> => { for (const { admin } of cluster.nodes) await admin.config('SET', setting, value) }
  await set('yes')
  t.teardown(async () => await set('no'))
  const one = await new Local({ redis }).start(t)
  await until(() => one.backplane.problems.length > 0)
  t.match(one.backplane.problems, [`with ${setting} yes, all masters of the cluster stop when one is out: set ${setting} no`])
  t.equal(one.backplane.state, 'up')
})

t.test('health does not waver when partitions are used for the first time', async t => {
  const one = await new Local({ redis }).start(t)
  let changes = 0
  one.stateChanged = () => { changes++ }
  await Promise.all(Array.from({ length: 60 }, async (_, n) => {
    await one.join(`first-${n}`, `${one.instanceId}.${n}`)
    await one.backplane.subscribe({ kind: 'group', name: `first-${n}` })
  }))
  t.equal(changes, 0)
  t.strictSame([one.backplane.state, one.backplane.problems], ['up', []])
})

t.test('nodes behind addresses of their own are found by natMap', async t => {
  const proxies = await Promise.all(cluster.nodes.map(async ({ port }) => await startProxy(t, port)))
  const natMap = Object.fromEntries(
    cluster.nodes.map(({ port }, index) => [`127.0.0.1:${port}`, { host: '127.0.0.1', port: proxies[index]?.port ?? 0 }])
  )
  const one = await new Local({ redis: { cluster: [`127.0.0.1:${proxies[0]?.port}`], options: { natMap } } }).start(t)
  t.equal(one.backplane.state, 'up')

  // One master cannot be reached by this instance alone.
  const other = await new Local({ redis }).start(t)
  const cut = await cluster.masterOf(0)
  const names = Array.from({ length: 60 }, (_, n) => `cut-${n}`)
  for (const name of names) {
    await one.join(name, `${one.instanceId}.${name}`)
    await one.backplane.subscribe({ kind: 'group', name })
  }
  const proxy = proxies[cluster.nodes.indexOf(cut)]
  await proxy?.refuse(true)
  proxy?.cut()
  await until(() => one.backplane.state === 'degraded')
  for (const name of names) {
    const isCut = await cluster.masterOf(slotOfGroup(name)) === cut
    const published = await one.publish({ kind: 'group', name }, 'x').then(() => true, () => false)
    t.equal(published, !isCut)
    t.equal(one.backplane.interrupted({ kind: 'group', name }), isCut)
  }
  t.equal(other.backplane.state, 'up', 'the others notice nothing')
  await proxy?.refuse(false)
  await until(() => one.backplane.state === 'up')
  for (const name of names) t.equal(await other.backplane.count(name), 1)
})

t.test('a natMap function that fails, or returns no address, is said at boot', async t => {
  const wrong: ReadonlyArray<readonly [natMap: () => unknown, message: RegExp]> = [
    [() => { throw new Error('no such node') }, /the natMap function threw/],
    [() => '127.0.0.1:7000', /natMap must return \{ host, port \} or nothing, got '127\.0\.0\.1:7000'/],
    [() => ({ host: '127.0.0.1' }), /natMap must return/],
    [async () => ({ host: '127.0.0.1', port: 7000 }), /natMap must return .* got an object of class Promise/]
  ]
  for (const [natMap, message] of wrong) {
    const given = { ...redis, options: { natMap: natMap as never } }
    await t.rejects(new Local({ redis: given }).start(t), { code: 'WSG_OPTION_INVALID', message })
    const publisher = createPublisher({ redis: given })
    await t.rejects(publisher.broadcastToGroup('room', 'x'), { code: 'WSG_OPTION_INVALID', message })
    await publisher.close()
  }
})

t.test('a natMap function that fails for one node costs the groups of that node alone', async t => {
  const lost = await cluster.masterOf(0)
  let works = true
  const natMap = (name: string): null => {
    if (!works && name === `127.0.0.1:${lost.port}`) throw new Error('no such node')
    return null
  }
  const one = await new Local({ redis: { ...redis, options: { natMap } } }).start(t)
  works = false
  await until(() => one.backplane.state === 'degraded')
  for (const name of groups) {
    const isLost = await cluster.masterOf(slotOfGroup(name)) === lost
    t.equal(await one.publish({ kind: 'group', name }, 'x').then(() => true, () => false), !isLost)
  }
  works = true
  await until(() => one.backplane.state === 'up')
})

t.test('nodes behind TLS, and a call to groups of which some cannot be reached', async t => {
  const { ports, cert } = await startTlsProxies(t, cluster.nodes.map(({ port }) => port))
  let cut = -1
  const natMap = (name: string): { host: string, port: number } => {
    const node = cluster.nodes.findIndex(({ port }) => name === `127.0.0.1:${port}`)
    return { host: 'localhost', port: node === cut ? 1 : ports[node] ?? 0 }
  }
  const secured = { cluster: [`rediss://localhost:${ports[0]}`], options: { natMap, redisOptions: { tls: { ca: cert } } } }
  const owners = await Promise.all(groups.map(async name => await cluster.masterOf(slotOfGroup(name))))
  const [a, b] = [await startInstance(t, { redis: secured }), await startInstance(t, { redis })]
  const y = await b.open()
  for (const name of groups) await b.registry.join(y.id, name)
  t.equal((await a.registry.broadcastToGroup(groups, 'to all')).instances, undefined)
  await until(() => heard(y).length === 1)
  await a.close()

  // This instance boots without one of the masters.
  cut = cluster.nodes.findIndex(node => node === owners[0])
  const c = await startInstance(t, { redis: secured, bootTimeoutMs: 1_000 })
  t.match(c.registry.health().problems.join(), /\(partitions? [\d, -]+ of 256\)/)
  const reached = groups.filter((_, index) => owners[index] !== owners[0])
  const error: unknown = await c.registry.broadcastToGroup(groups, 'some').catch((error: unknown) => error)
  t.match(error, { code: 'WSG_TIMEOUT', message: /sent to some of the groups only/ })
  t.strictSame([...(error as { sentTo: string[] }).sentTo].sort(), [...reached].sort(), 'the error names who has it')
  t.match(await c.registry.broadcastToGroup(groups, 'some volatile', { volatile: true }), { scope: 'local' }, 'not all have it')
  await until(() => heard(y).length === 3)
  t.strictSame(heard(y), ['to all', 'some', 'some volatile'])
  const away = groups.filter(name => !reached.includes(name))
  await t.rejects(c.registry.broadcastToGroup(away, 'none'), { code: 'WSG_BACKPLANE_UNAVAILABLE', sentTo: undefined })
})

t.test('a server that is no cluster is refused as one', async t => {
  const single = await startRedis(t)
  const one = new Local({ redis: { cluster: [single.url] }, bootTimeoutMs: 1_000 })
  t.teardown(async () => await one.backplane.close())
  await t.rejects(one.backplane.start(one), { code: 'WSG_REDIS_UNSUPPORTED', message: /not part of a Redis Cluster/ })
})
