import t from 'tap'
import type { FastifyInstance } from 'fastify'
import { heard, reach, redisCluster, startInstance, type InstanceOptions, type RedisCluster, type TestInstance } from '../helpers/app.ts'
import { atOnce } from '../helpers/at-once.ts'
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

type Run = (
  t: Parameters<typeof startRedis>[0], cluster: RedisCluster, start: (options?: InstanceOptions) => Promise<TestInstance>
) => Promise<void>

/** Every test kills a Redis of its own; whatever happened meanwhile, nothing is left when all is closed. */
function outage (name: string, run: Run, groups: 'logged' | 'volatile' = 'logged'): void {
  void t.test(groups === 'logged' ? name : `${name} (volatile groups)`, async t => {
    const cluster = await redisCluster(t, undefined, groups === 'logged' ? {} : { log: false })
    await run(t, cluster, cluster.start)
    if (cluster.redis.admin.status !== 'ready') await cluster.redis.restart()
    t.strictSame(await cluster.close(), [], 'nothing is left behind')
  })
}

async function kill (cluster: RedisCluster, ...instances: TestInstance[]): Promise<void> {
  await cluster.redis.kill()
  await until(() => instances.every(({ registry }) => registry.health().status === 'down'), { what: 'the instances to know' })
}

async function revive (cluster: RedisCluster, ...instances: TestInstance[]): Promise<void> {
  await cluster.redis.restart()
  await until(
    () => instances.every(({ registry }) => registry.health().status === 'up'), { timeoutMs: 60_000, what: 'the instances to be up again' }
  )
}

outage('join `local`: a member here at once, and for everyone once Redis is back', async (t, cluster, start) => {
  const [a, b] = [await start(), await start()]
  const { client, connection, id } = await a.open()
  await kill(cluster, a, b)
  t.strictSame(await atOnce(t, 'join', async () => await a.registry.join(connection, 'local')), { scope: 'local' })
  t.strictSame(connection.groups, ['local'])
  t.strictSame(await a.registry.broadcastToGroup('local', 'here', { volatile: true }), { scope: 'local', localRecipients: 1 })
  t.equal(await client.next(), 'here')
  t.equal(await a.registry.leave(connection, 'local'), true)
  await atOnce(t, 'leave', async () => await a.registry.leave(connection, 'local'))
  await a.registry.join(id, 'local')
  const during = await a.enter('local')
  await revive(cluster, a, b)
  t.equal(await b.registry.groupCount('local'), 2)
  t.strictSame((await b.registry.members('local')).map(({ connectionId }) => connectionId).sort(), [id, during.id].sort())
  t.strictSame(reach(await b.registry.broadcastToGroup('local', 'from b')), { scope: 'cluster', localRecipients: 0 })
  for (const one of [client, during.client]) t.equal(await one.next(), 'from b')
  t.ok(Number(a.registry.stats().joinsLocal) >= 3)
  t.strictSame(await a.registry.join(id, 'local'), { scope: 'cluster' })
})

outage('join `local` while only the subscriptions are cut: registered all the same', async (t, cluster, start) => {
  const proxy = await startProxy(t, cluster.redis.port)
  const [a, b] = [await start({ redis: proxy.url }), await start()]
  const { client, connection } = await a.open()
  await proxy.refuse(true)
  await cluster.redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await until(() => a.registry.health().status === 'down' && b.registry.health().status === 'up')
  await b.registry.broadcastToGroup('cut', 'before the join')
  t.strictSame(await a.registry.join(connection, 'cut'), { scope: 'local' })
  t.strictSame(await a.registry.broadcastToGroup('cut', 'volatile', { volatile: true }), {
    scope: 'cluster', localRecipients: 1, instances: 0
  }, 'the command link works')
  t.equal(await client.next(), 'volatile')
  t.strictSame(
    reach(await a.registry.broadcastToGroup('cut', 'logged')), { scope: 'cluster', localRecipients: 1 }, 'the message is in the log'
  )
  await b.registry.broadcastToGroup('cut', 'logged by b')
  await until(async () => await b.registry.groupCount('cut') === 1)
  const second = await a.open()
  t.strictSame(await a.registry.join(second.connection, 'cut'), { scope: 'local' })
  await b.registry.broadcastToGroup('cut', 'logged later')
  await proxy.refuse(false)
  await until(() => a.registry.health().status === 'up')
  t.equal(await b.registry.groupCount('cut'), 2)
  await b.registry.broadcastToGroup('cut', 'from b')
  await Promise.all([client, second.client].map(async one => await one.nextWhere(message => message === 'from b')))
  const logged = ['logged', 'logged by b', 'logged later', 'from b']
  t.strictSame(heard({ client }), ['volatile', ...logged], 'what was logged since the join comes out of the log')
  t.strictSame(heard(second), logged, 'the instance goes on where the log ended for the first member that joined')
})

outage('a client that resumes while the subscriptions are cut gets what it missed, then what comes, once', async (t, cluster, start) => {
  const proxy = await startProxy(t, cluster.redis.port)
  const [a, b] = [await start({ redis: proxy.url }), await start()]
  const { position } = await b.registry.broadcastToGroup('cut', 'seen')
  await b.registry.broadcastToGroup('cut', 'missed')
  const { client, connection } = await a.open()
  await proxy.refuse(true)
  await cluster.redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await until(() => a.registry.health().status === 'down' && b.registry.health().status === 'up')
  const joined = await a.registry.join(connection, 'cut', { since: position ?? '' })
  t.match(joined, { scope: 'local', recovered: true })
  await b.registry.broadcastToGroup('cut', 'meanwhile')
  await proxy.refuse(false)
  await until(() => a.registry.health().status === 'up')
  await b.registry.broadcastToGroup('cut', 'after')
  await client.nextWhere(message => message === 'after')
  t.strictSame(heard({ client }), ['missed', 'meanwhile', 'after'])
})

outage('join `reject`: refused at once, and nothing is half joined', async (t, cluster, start) => {
  const a = await start({ outage: { join: 'reject' } })
  const { client, connection } = await a.enter('before')
  await kill(cluster, a)
  t.equal(await atOnce(t, 'join', async () => await a.registry.join(connection, 'rejected')), 'WSG_BACKPLANE_UNAVAILABLE')
  await t.rejects(a.registry.join(connection, 'rejected'), { code: 'WSG_BACKPLANE_UNAVAILABLE', statusCode: 503 })
  t.strictSame(connection.groups, ['before'])
  const refused = connect(t, `${a.url}/ws/rejected`)
  t.strictSame(await refused.closed, { code: 1013, reason: 'temporarily unavailable' })
  await revive(cluster, a)
  t.equal(await a.registry.groupCount('rejected'), 0)
  t.equal(await a.registry.groupCount('before'), 1)
  t.strictSame(await a.registry.join(connection, 'rejected'), { scope: 'cluster' })
  await a.registry.broadcastToGroup('rejected', 'now')
  t.equal(await client.next(), 'now')
})

outage('broadcast `local`: the members of this instance get it, once, and the result says so', async (t, cluster, start) => {
  const [a, b] = [await start(), await start()]
  const [x, y, far] = [await a.enter('room', { user: 'ann' }), await a.enter('room'), await b.enter('room', { user: 'ann' })]
  await a.registry.join(x.id, 'other')
  await kill(cluster, a, b)
  t.strictSame(
    await a.registry.broadcastToGroup('room', Buffer.from([1]), { except: y.connection }), { scope: 'local', localRecipients: 1 }
  )
  t.strictSame(await a.registry.broadcastToGroup(['room', 'other'], 'once'), { scope: 'local', localRecipients: 2 })
  t.strictSame(await a.registry.broadcastToGroup(['other', 'room'], 'again'), { scope: 'local', localRecipients: 2 })
  t.strictSame(await a.registry.sendToUser('ann', 'user'), { scope: 'local', localRecipients: 1 })
  t.strictSame(await a.registry.sendToUser('nobody', 'user'), { scope: 'local', localRecipients: 0 })
  t.strictSame(await a.registry.broadcastToAll('all'), { scope: 'local', localRecipients: 2 })
  await a.registry.sendTo(x.id, 'end')
  await a.registry.sendTo(y.id, 'end')
  for (const { client } of [x, y]) await client.nextWhere(message => message === 'end')
  t.strictSame(heard(x), [Buffer.from([1]), 'once', 'again', 'user', 'all', 'end'])
  t.strictSame(heard(y), ['once', 'again', 'all', 'end'])
  t.match(a.registry.stats(), { publishedLocally: 6, framesSent: 12 }, 'what is sent without the backplane is counted too')
  await atOnce(t, 'broadcastToGroup', async () => await a.registry.broadcastToGroup('room', 'x'))
  await atOnce(t, 'broadcast to several', async () => await a.registry.broadcastToGroup(['room', 'other'], 'x'))
  await atOnce(t, 'sendToUser', async () => await a.registry.sendToUser('ann', 'x'))
  await atOnce(t, 'broadcastToAll', async () => await a.registry.broadcastToAll('x'))
  await revive(cluster, a, b)
  await a.registry.broadcastToGroup('room', 'back')
  for (const { client } of [x, y, far]) await client.nextWhere(message => message === 'back')
  t.strictSame(heard(far), ['back'], 'the other instance never gets what was local')
  t.equal(heard(x).at(-1), 'back')
}, 'volatile')

outage('a logged message is refused at once, and nobody gets it', async (t, cluster, start) => {
  const a = await start({ outage: { broadcast: 'local', loggedBroadcast: 'reject' } })
  const member = await a.enter('room')
  await a.registry.join(member.id, 'other')
  await kill(cluster, a)
  t.equal(await atOnce(t, 'broadcast', async () => await a.registry.broadcastToGroup('room', 'x')), 'WSG_BACKPLANE_UNAVAILABLE')
  t.equal(
    await atOnce(t, 'broadcast to several', async () => await a.registry.broadcastToGroup(['room', 'other'], 'x')),
    'WSG_BACKPLANE_UNAVAILABLE'
  )
  await t.rejects(a.registry.broadcastToGroup('room', 'x'), { code: 'WSG_BACKPLANE_UNAVAILABLE', statusCode: 503 })
  await revive(cluster, a)
  await a.registry.broadcastToGroup('room', 'back')
  t.equal(await member.client.next(), 'back')
})

outage('broadcast `drop`: nobody gets it, and the result says so', async (t, cluster, start) => {
  const a = await start({ outage: { broadcast: 'drop' } })
  const member = await a.enter('room', { user: 'ann' })
  await kill(cluster, a)
  t.strictSame(
    await atOnce(t, 'broadcast', async () => await a.registry.broadcastToGroup('room', 'dropped')), { scope: 'none', localRecipients: 1 }
  )
  t.strictSame(await a.registry.broadcastToAll('dropped'), { scope: 'none', localRecipients: 1 })
  t.strictSame(await a.registry.sendToUser('ann', 'dropped'), { scope: 'none', localRecipients: 1 })
  await a.registry.sendTo(member.id, 'end')
  t.equal(await member.client.next(), 'end')
  t.ok(Number(a.registry.stats().publishesDropped) >= 3)
}, 'volatile')

outage('broadcast `reject`: refused at once, and nobody gets it', async (t, cluster, start) => {
  const a = await start({ outage: { broadcast: 'reject' } })
  const member = await a.enter('room', { user: 'ann' })
  await kill(cluster, a)
  t.equal(await atOnce(t, 'broadcast', async () => await a.registry.broadcastToGroup('room', 'x')), 'WSG_BACKPLANE_UNAVAILABLE')
  t.equal(
    await atOnce(t, 'broadcast to several', async () => await a.registry.broadcastToGroup(['room', 'other'], 'x')),
    'WSG_BACKPLANE_UNAVAILABLE'
  )
  await t.rejects(a.registry.broadcastToAll('x'), { code: 'WSG_BACKPLANE_UNAVAILABLE', statusCode: 503 })
  await t.rejects(a.registry.sendToUser('ann', 'x'), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
  await t.rejects(a.registry.broadcastToGroup('', 'x'), { code: 'WSG_GROUP_NAME_INVALID' }, 'what is wrong in itself is still said first')
  await a.registry.sendTo(member.id, 'end')
  t.equal(await member.client.next(), 'end')
}, 'volatile')

outage('what needs another instance is refused at once, what does not goes on', async (t, cluster, start) => {
  const [a, b] = [await start(), await start()]
  const [here, alsoHere, there] = [await a.open({ user: 'ann' }), await a.open(), await b.open({ user: 'ann' })]
  await kill(cluster, a, b)
  for (const [what, call] of Object.entries({
    sendTo: async () => await a.registry.sendTo(there.id, 'x'),
    join: async () => await a.registry.join(there.id, 'g'),
    leave: async () => await a.registry.leave(there.id, 'g'),
    leaveAll: async () => await a.registry.leaveAll(there.id),
    groups: async () => await a.registry.groups(there.id),
    disconnect: async () => await a.registry.disconnect(there.id)
  })) t.equal(await atOnce(t, what, call), 'WSG_BACKPLANE_UNAVAILABLE')
  t.equal(await a.registry.sendTo(alsoHere.id, 'x'), true)
  t.equal(await alsoHere.client.next(), 'x')
  t.equal(await a.registry.disconnect(alsoHere.id), 1)
  await alsoHere.client.closed
  t.equal(
    await atOnce(t, 'disconnect of a user', async () => await a.registry.disconnect({ userId: 'ann' }, { code: 4403 })),
    'WSG_BACKPLANE_UNAVAILABLE'
  )
  await until(() => here.connection.closed)
  t.equal((await here.client.closed).code, 4403, 'a user is shut out here even when nobody knows about elsewhere')
  t.equal(there.connection.closed, false)
})

outage('a question to all instances is answered by the one that asks, and says so', async (t, cluster, start) => {
  const [a, b] = [await start(), await start()]
  for (const { id, registry } of [a, b]) registry.instances.on('load', () => id)
  t.match(await a.registry.instances.ask('load', null), { missing: 0, scope: undefined })
  await kill(cluster, a, b)
  t.strictSame(await atOnce(t, 'ask', async () => await a.registry.instances.ask('load', null)), {
    replies: [a.id], missing: 1, scope: 'local'
  })
  t.strictSame(await a.registry.instances.ask('nobody answers', null), { replies: [], missing: 2, scope: 'local' })
  a.registry.instances.on('hangs', async () => await new Promise(() => {}))
  t.strictSame(await a.registry.instances.ask('hangs', null, { timeoutMs: 50 }), { replies: [], missing: 2, scope: 'local' })
  await t.rejects(a.registry.instances.emit('load', null), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
})

outage('reads `stale`: the last known values with their age', async (t, cluster, start) => {
  const [a, b] = [await start(), await start()]
  const [x, y] = [await a.enter('read'), await b.enter('read')]
  await a.enter('never-read')
  await b.enter('elsewhere')
  const read = performance.now()
  t.equal((await a.registry.members('read')).ageMs, 0)
  t.equal(await a.registry.groupCount('read'), 2)
  await kill(cluster, a, b)
  await a.enter('read')
  t.equal(await atOnce(t, 'groupCount', async () => await a.registry.groupCount('read')), 2)
  await atOnce(t, 'members', async () => await a.registry.members('read'))
  const members = await a.registry.members('read')
  t.strictSame(members.map(({ connectionId }) => connectionId).sort(), [x.id, y.id].sort())
  t.ok(members.ageMs > 0 && members.ageMs <= performance.now() - read, `${members.ageMs} ms`)
  t.equal((await a.registry.members('read', { maxAgeMs: 60_000 })).length, 2)
  await t.rejects(a.registry.members('read', { maxAgeMs: 0 }), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
  await t.rejects(a.registry.groupCount('read', { maxAgeMs: 0 }), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
  const own = await a.registry.members('never-read')
  t.strictSame([own.length, own.ageMs], [1, Infinity], 'never read before: its own members, of an age that nobody knows')
  t.equal(await a.registry.groupCount('never-read'), 1)
  await t.rejects(a.registry.members('never-read', { maxAgeMs: 1_000 }), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
  t.equal(await atOnce(t, 'members of an unknown group', async () => await a.registry.members('elsewhere')), 'WSG_BACKPLANE_UNAVAILABLE')
  await revive(cluster, a, b)
  t.equal(await a.registry.groupCount('read'), 3)
  t.equal((await a.registry.members('read')).ageMs, 0)
})

outage('reads `reject`: refused at once', async (t, cluster, start) => {
  const a = await start({ outage: { reads: 'reject' } })
  await a.enter('read')
  await a.registry.members('read')
  await kill(cluster, a)
  t.equal(await atOnce(t, 'groupCount', async () => await a.registry.groupCount('read')), 'WSG_BACKPLANE_UNAVAILABLE')
  t.equal(await atOnce(t, 'members', async () => await a.registry.members('read')), 'WSG_BACKPLANE_UNAVAILABLE')
})

outage('upgrade `accept`: sockets are served by this instance alone', async (t, cluster, start) => {
  const a = await start()
  await kill(cluster, a)
  t.equal(a.registry.health().ready, true)
  const [x, y] = [await a.enter('alone', { user: 'ann' }), await a.enter('alone')]
  await a.registry.broadcastToGroup('alone', 'hi', { volatile: true })
  for (const { client } of [x, y]) t.equal(await client.next(), 'hi')
  await a.registry.sendToUser('ann', 'user', { volatile: true })
  t.equal(await x.client.next(), 'user')
  await x.client.close()
  await until(() => a.registry.count() === 1)
  await revive(cluster, a)
  t.equal(await a.registry.groupCount('alone'), 1)
})

outage('a client\'s message to a room that cannot be logged reaches nobody, and closes nobody', async (t, cluster, start) => {
  const a = await start()
  const members = [await a.enter('room'), await a.enter('room')]
  await kill(cluster, a)
  members[0]?.client.send('lost')
  await until(() => a.registry.stats().messagesFailed === 1)
  await revive(cluster, a)
  members[0]?.client.send('hi')
  for (const { client } of members) t.equal(await client.next(), 'hi')
})

outage('a client\'s message to a room reaches the members of this instance', async (t, cluster, start) => {
  const a = await start()
  const members = [await a.enter('room'), await a.enter('room')]
  await kill(cluster, a)
  members[0]?.client.send('hi')
  for (const { client } of members) t.equal(await client.next(), 'hi')
}, 'volatile')

outage('upgrade `refuse`: 503 with Retry-After, and those there are stay', async (t, cluster, start) => {
  const a = await start({ outage: { upgrade: 'refuse' } })
  const { client, connection } = await a.enter('room')
  await kill(cluster, a)
  t.equal(a.registry.health().ready, false)
  const refusal = await upgradeStatus(`${a.url}/ws/room`)
  t.equal(refusal.statusCode, 503)
  t.match(refusal.headers, { 'retry-after': /^\d+$/, 'content-type': /^application\/json/ })
  t.match(JSON.parse(refusal.body), { statusCode: 503, code: 'WSG_REFUSED' })
  t.equal(connection.closed, false)
  t.equal(a.registry.stats().upgradesRefused, 1)
  await revive(cluster, a)
  t.equal(a.registry.health().ready, true)
  await a.registry.broadcastToGroup('room', 'still here')
  t.equal(await client.next(), 'still here')
  await a.enter('room')
})

outage('health names what is wrong, and only while it is', async (t, cluster, start) => {
  const a = await start()
  await a.enter('room')
  t.match(a.registry.health(), { status: 'up', since: Number, ready: true, instanceId: a.id, backplane: 'redis', problems: [] })
  await kill(cluster, a)
  const { problems, ...health } = a.registry.health()
  t.match(health, { status: 'down', since: Number, ready: true, instanceId: a.id, backplane: 'redis' })
  t.ok(problems.length > 0)
  for (const problem of problems) t.match(problem, /Redis \w+ link is down/)
  await revive(cluster, a)
  t.strictSame(a.registry.health().problems, [])
  await a.close()
  t.match(a.registry.health(), { status: 'closing', ready: false })
})

outage('an HTTP route that lets the error through tells nobody where Redis is, and the log does', async (t, cluster, start) => {
  const { id } = await (await start()).open()
  const routes = (app: FastifyInstance): void => {
    app.post('/logged', async () => await app.registry.broadcastToGroup('room', 'news'))
    app.post('/members', async () => await app.registry.members('room'))
    app.post('/send', async () => await app.registry.sendTo(id, 'news'))
    app.post('/join', async () => await app.registry.join(id, 'room'))
    app.post('/disconnect', async () => await app.registry.disconnect({ userId: 'ann' }))
  }
  const a = await start({ routes, outage: { reads: 'reject' } })
  await kill(cluster, a)
  await until(() => a.registry.health().problems.some(problem => problem.includes('ECONNREFUSED')))
  for (const path of ['/logged', '/members', '/send', '/join', '/disconnect']) {
    const { statusCode, body } = await a.app.inject({ method: 'POST', url: path })
    t.match(body, /WSG_BACKPLANE_UNAVAILABLE/, path)
    t.equal(statusCode, 503, path)
    t.notMatch(body, /127\.0\.0\.1|ECONN|\d{4,}/, path)
  }
  // Of the two links one may have dialled sooner.
  const causeOf = async (): Promise<string> => await a.registry.broadcastToGroup('room', 'news').then(
    () => 'none', ({ cause }: Error) => String(cause)
  )
  await until(async () => /ECONNREFUSED/.test(await causeOf()))
  await revive(cluster, a)
  await a.close()
})

t.test('boot `degraded`: ready without Redis once the deadline is over', async (t) => {
  const port = await freePort()
  machine.restart()
  const started = performance.now()
  const a = await startInstance(t, { redis: `redis://127.0.0.1:${port}`, bootTimeoutMs: 200 })
  const took = performance.now() - started
  t.ok(took >= 190, `${took.toFixed()} ms`)
  machine.within(t, took, 1_000, 'done')
  t.match(a.registry.health(), { status: 'down', ready: true })
  const [x, y] = [await a.enter('early'), await a.enter('early')]
  await a.registry.broadcastToGroup('early', 'alone', { volatile: true })
  for (const { client } of [x, y]) t.equal(await client.next(), 'alone')
  await a.close()
})

t.test('boot `fail`: the boot fails with what is wrong, in time', async (t) => {
  const { app } = await service(t, { redis: `redis://127.0.0.1:${await freePort()}`, bootTimeoutMs: 200, outage: { boot: 'fail' } })
  machine.restart()
  const started = performance.now()
  await t.rejects(
    Promise.resolve(app.ready()), { code: 'WSG_BACKPLANE_UNAVAILABLE', message: /after 200 ms: Redis command link is down: .*ECONNREFUSED/ }
  )
  machine.within(t, performance.now() - started, 1_000, 'done')
})

outage('an instance that booted without Redis joins the cluster when there is one', async (t, cluster, start) => {
  await cluster.redis.kill()
  const a = await start({ bootTimeoutMs: 300 })
  const early = await a.enter('early', { user: 'ann' })
  await revive(cluster, a)
  const b = await start()
  t.equal(await b.registry.groupCount('early'), 1)
  await b.registry.broadcastToGroup('early', 'group')
  await b.registry.sendToUser('ann', 'user')
  t.equal(await b.registry.sendTo(early.id, 'direct'), true)
  await b.registry.broadcastToAll('all')
  await early.client.nextWhere(message => message === 'all')
  t.strictSame(heard(early), ['group', 'user', 'direct', 'all'])
})
