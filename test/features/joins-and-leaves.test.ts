import t from 'tap'
import type { Connection, Json } from '../../plugin.ts'
import { onEveryCluster, onRedis, type InstanceOptions, type Opened } from '../helpers/app.ts'
import { connect } from '../helpers/client.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const machine = watchMachine(t)
const redis = await startRedis(t)

onEveryCluster(t, redis, 'members says who is in a group, everywhere, with what the others may know of them', async (t, cluster) => {
  const memberInfo = (
    { userId, params }: Connection
  ): Json => ({ name: userId?.toUpperCase() ?? null, room: params.room ?? '', ü: ['🎉', 1, true, null] })
  const [a, b] = [await cluster.start({ memberInfo }), await cluster.start()]
  const before = Date.now()
  const ann = await a.enter('lobby', { user: 'ann' })
  const anonymous = await a.enter('lobby')
  const bob = await b.enter('lobby', { user: 'bob' })
  const after = Date.now()
  for (const { registry } of [a, b]) {
    const members = await registry.members('lobby')
    t.equal(members.ageMs, 0)
    for (const { joinedAt } of members) t.ok(joinedAt >= before && joinedAt <= after)
    t.strictSame(new Map(members.map(({ joinedAt: _, ...member }) => [member.connectionId, member])), new Map<string, unknown>([
      [ann.id, { connectionId: ann.id, instanceId: a.id, userId: 'ann', info: { name: 'ANN', room: 'lobby', ü: ['🎉', 1, true, null] } }],
      [anonymous.id, { connectionId: anonymous.id, instanceId: a.id, info: { name: null, room: 'lobby', ü: ['🎉', 1, true, null] } }],
      [bob.id, { connectionId: bob.id, instanceId: b.id, userId: 'bob' }]
    ]))
    t.equal(await registry.groupCount('lobby'), 3)
  }
  await ann.client.close()
  await until(async () => await b.registry.groupCount('lobby') === 2)
  t.strictSame((await b.registry.members('lobby')).map(({ connectionId }) => connectionId).sort(), [anonymous.id, bob.id].sort())
})

onEveryCluster(t, redis, 'memberInfo keeps whatever JSON keeps, null included, and nothing else', async (t, cluster) => {
  const infos: ReadonlyArray<readonly [unknown, Json | undefined]> = [
    ...[null, '', 0, false, [], {}, 'ü', { a: { b: [1] } }, undefined].map(info => [info, info] as const),
    [new Date(0), '1970-01-01T00:00:00.000Z'], [() => {}, undefined], [{ a: undefined, b: NaN }, { b: null }]
  ]
  let given: unknown
  const [a, b] = [await cluster.start({ memberInfo: () => given as Json }), await cluster.start()]
  const { id } = await a.open()
  for (const [n, [info, kept]] of infos.entries()) {
    given = info
    await a.registry.join(id, `info-${n}`)
    const [member] = await b.registry.members(`info-${n}`)
    t.equal(member?.connectionId, id)
    t.strictSame(member?.info, kept)
  }
})

onRedis(t, redis, 'groupCount is one command of constant cost', async (t, cluster) => {
  const a = await cluster.start()
  const { id } = await a.open()
  await a.registry.join(id, 'counted')
  await redis.admin.config('RESETSTAT')
  for (let n = 0; n < 10; n++) t.equal(await a.registry.groupCount('counted'), 1)
  const stats = await redis.admin.info('commandstats')
  const calls = [...stats.matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm)].map(([, command = '', count]) => `${command} ${count ?? ''}`)
  t.strictSame(calls.filter(call => !/^(info|config|ping)/.test(call)), ['hget 10'])
})

onEveryCluster(t, redis, 'joining again changes nothing', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const { client, connection, id } = await a.open()
  t.strictSame(await a.registry.join(connection, 'twice'), { scope: 'cluster' })
  const [first] = await b.registry.members('twice')
  t.strictSame(
    await Promise.all([a.registry.join(connection, 'twice'), b.registry.join(id, 'twice'), a.registry.join(id, 'twice')]),
    Array(3).fill({ scope: 'cluster' })
  )
  t.strictSame([...await b.registry.members('twice')], [first])
  t.equal(await b.registry.groupCount('twice'), 1)
  t.strictSame(connection.groups, ['twice'])
  await b.registry.broadcastToGroup('twice', 'once')
  await b.registry.sendTo(id, 'end')
  await client.nextWhere(message => message === 'end')
  t.strictSame(client.messages.slice(1), ['once', 'end'])
  t.equal(await a.registry.leave(connection, 'twice'), true)
  t.equal(await b.registry.groupCount('twice'), 0)
})

onEveryCluster(t, redis, 'leave says whether there was something to leave', async (t, cluster) => {
  const a = await cluster.start()
  const { client, connection, id } = await a.enter('room')
  t.equal(await a.registry.leave(connection, 'other'), false)
  t.equal(await a.registry.leave(connection, 'room'), true)
  t.equal(await a.registry.leave(id, 'room'), false)
  for (const group of ['x', 'y', 'z']) await a.registry.join(id, group)
  t.strictSame(await a.registry.groups(id), ['x', 'y', 'z'])
  t.equal(await a.registry.leaveAll(connection), 3)
  t.strictSame(await Promise.all(['x', 'y', 'z'].map(async group => await a.registry.groupCount(group))), [0, 0, 0])
  await a.registry.broadcastToGroup(['room', 'x', 'y', 'z'], 'missed')
  await a.registry.sendTo(id, 'end')
  t.equal(await client.next(), 'end')
})

onEveryCluster(t, redis, 'limits and bad names are refused, and leave nothing half joined', async (t, cluster) => {
  let info: unknown = null
  const a = await cluster.start({ maxGroupsPerConnection: 2, memberInfo: () => info as Json })
  const { connection, id } = await a.enter('one')
  for (const group of ['', 'a\nb', 'x'.repeat(256), '\udfff', undefined, null, 3, ['g']] as string[]) {
    for (const named of [connection, id, 'nobody']) {
      await t.rejects(a.registry.join(named, group), { code: 'WSG_GROUP_NAME_INVALID', statusCode: 400 })
      await t.rejects(a.registry.leave(named, group), { code: 'WSG_GROUP_NAME_INVALID' })
    }
    await t.rejects(a.registry.groupCount(group), { code: 'WSG_GROUP_NAME_INVALID' })
    await t.rejects(a.registry.members(group), { code: 'WSG_GROUP_NAME_INVALID' })
  }
  for (const tooMuch of ['x'.repeat(1_023), 'é'.repeat(512), Array(600).fill(1)]) {
    info = tooMuch
    await t.rejects(a.registry.join(id, 'two'), { code: 'WSG_MEMBER_INFO_TOO_LARGE' })
  }
  info = 'x'.repeat(1_022)
  await a.registry.join(id, 'two')
  await t.rejects(a.registry.join(id, 'three'), { code: 'WSG_TOO_MANY_GROUPS', statusCode: 429 })
  t.equal(a.registry.stats().groupsRefused, 1)
  t.strictSame(await a.registry.join(id, 'two'), { scope: 'cluster' }, 'joining again needs no room')
  t.strictSame(connection.groups, ['one', 'two'])
  t.equal(await a.registry.groupCount('three'), 0)
  await a.registry.leave(id, 'one')
  await a.registry.join(id, 'three')
  const cyclic: unknown[] = []
  info = cyclic[0] = cyclic
  await a.registry.leave(id, 'three')
  await t.rejects(a.registry.join(id, 'four'), TypeError)
  t.strictSame(connection.groups, ['two'])
})

onEveryCluster(t, redis, 'in onDisconnect the connection is gone from its groups, and broadcasts reach the others', async (t, cluster) => {
  const seen: unknown[] = []
  const routes: InstanceOptions['routes'] = app => {
    app.get('/leaving', { websocket: true, preHandler: app.wsAuth({ required: false }) }, app.wsHandler({
      async onConnect (connection) {
        await app.registry.join(connection, 'watched')
        connection.send(connection.id)
      },
      onMessage () {},
      async onDisconnect (connection, { code }) {
        seen.push([code, await app.registry.groupCount('watched'), connection.groups, connection.closed, app.registry.get(connection.id)])
        await app.registry.broadcastToGroup('watched', `${connection.id} left`)
      }
    }))
  }
  const [a, b] = [await cluster.start({ routes }), await cluster.start()]
  const watcher = await b.enter('watched')
  const leavers = ['close', 'terminate'] as const
  for (const how of leavers) {
    const client = connect(t, `${a.url}/leaving`)
    const id = String(await client.next())
    t.equal(await b.registry.groupCount('watched'), 2)
    void client[how](...[] as [])
    t.equal(await watcher.client.next(), `${id} left`)
  }
  t.strictSame(seen, [[1005, 1, ['watched'], true, undefined], [1006, 1, ['watched'], true, undefined]])
})

onEveryCluster(t, redis, 'a connection that closed, or closes during its join, is gone, and is no member', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const closed = await a.open()
  await closed.client.close()
  await until(() => a.registry.count() === 0)
  await t.rejects(a.registry.join(closed.connection, 'late'), { code: 'WSG_CONNECTION_GONE', statusCode: 410 })
  const outcomes = await Promise.all(Array.from({ length: 100 }, async (_, n) => {
    const { client, connection } = await a.open()
    if (n % 3 === 0) client.terminate()
    else if (n % 3 === 1) connection.close(4000)
    const joined = a.registry.join(connection, 'late')
    if (n % 3 === 2) connection.terminate()
    return await joined.catch((error: { code: string }) => error.code)
  }))
  await until(() => a.registry.count() === 0)
  await until(async () => await b.registry.groupCount('late') === 0)
  for (const outcome of outcomes) if (typeof outcome !== 'object') t.equal(outcome, 'WSG_CONNECTION_GONE')
  t.strictSame([...await b.registry.members('late')], [])
  t.equal(a.registry.stats().groups, 0)
})

onEveryCluster(t, redis, 'a join that is taken back before it is done does not wait for what nobody wants any more', async (t, cluster) => {
  const a = await cluster.start({ lingerMs: 0 })
  const { connection } = await a.open()
  machine.restart()
  const started = performance.now()
  for (let n = 0; n < 20; n++) {
    const joined = a.registry.join(connection, `brief-${n}`)
    for (let turn = 0; turn < n % 5; turn++) await Promise.resolve()
    const left = a.registry.leave(connection, `brief-${n}`)
    t.strictSame(await joined, { scope: 'cluster' })
    t.equal(await left, true)
  }
  machine.within(t, performance.now() - started, 500, 'done')
})

onEveryCluster(t, redis, 'joins and leaves at random, from everywhere at once, end with what was asked last', async (t, cluster) => {
  const instances = [await cluster.start({ lingerMs: 0 }), await cluster.start({ lingerMs: 1 })]
  const opened = await Promise.all(instances.flatMap(instance => [instance.open(), instance.open(), instance.open()]))
  let seed = 42
  const random = (below: number): number => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) % below
  const wanted = new Map<string, Set<string>>()
  const pending: Array<Promise<unknown>> = []
  machine.restart()
  const started = performance.now()
  for (let n = 0; n < 2_000; n++) {
    const { connection, id } = opened[random(opened.length)] as Opened
    const group = `random-${random(8)}`
    // Calls for one connection come from one instance: only those have an order.
    const registry = (instances.find(instance => id.startsWith(instance.id)) ?? instances[0])?.registry
    const members = wanted.get(group) ?? new Set()
    wanted.set(group, members)
    if (members.delete(id)) {
      pending.push(Promise.resolve(registry?.leave(connection, group)))
    } else {
      members.add(id)
      pending.push(Promise.resolve(registry?.join(connection, group)))
    }
    if (n % 40 === 0) await Promise.all(pending.splice(0))
  }
  await Promise.all(pending)
  machine.within(t, performance.now() - started, 2_000, 'and none of them had to wait for long')
  for (const [group, members] of wanted) {
    for (const { registry } of instances) {
      t.equal(await registry.groupCount(group), members.size)
      t.strictSame((await registry.members(group)).map(({ connectionId }) => connectionId).sort(), [...members].sort())
    }
    await instances[0]?.registry.broadcastToGroup(group, group)
  }
  await instances[0]?.registry.broadcastToAll('end')
  for (const { client, id } of opened) {
    await client.nextWhere(message => message === 'end')
    t.strictSame(client.messages.slice(1, -1).sort(), [...wanted].filter(([, members]) => members.has(id)).map(([group]) => group).sort())
  }
})

onRedis(t, redis, 'a join that fails under the policy reject leaves nothing half joined, also among other joins', async (t, cluster) => {
  const proxy = await startProxy(t, redis.port)
  const a = await cluster.start({ redis: proxy.url, outage: { join: 'reject' }, joinTimeoutMs: 1_000, operationTimeoutMs: 1_000 })
  const { client, connection } = await a.enter('before')
  proxy.blackhole(true)
  machine.restart()
  const started = performance.now()
  const same = [a.registry.join(connection, 'fails'), a.registry.join(connection, 'fails')]
  const outcomes = await Promise.allSettled([...same, a.registry.join(connection, 'also')])
  machine.within(t, performance.now() - started, 2_000, 'each within joinTimeoutMs and operationTimeoutMs')
  for (const outcome of outcomes) t.match(outcome, { status: 'rejected', reason: { code: /WSG_BACKPLANE_UNAVAILABLE|WSG_TIMEOUT/ } })
  t.strictSame(connection.groups, ['before'], 'what was joined before stays')
  proxy.blackhole(false)
  await until(() => a.registry.health().status === 'up' && Number(a.registry.stats().redisReconnects) > 0, { timeoutMs: 60_000 })
  t.equal(await a.registry.groupCount('fails'), 0)
  t.equal(await a.registry.groupCount('before'), 1)
  t.strictSame(await a.registry.join(connection, 'fails'), { scope: 'cluster' })
  await a.registry.broadcastToGroup('fails', 'works again')
  t.equal(await client.next(), 'works again')
})

onEveryCluster(t, redis, 'the connections of an instance are found by id, and by what they are', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const [ann, bob, far] = [await a.open({ user: 'ann' }), await a.open({ user: 'bob' }), await b.open({ user: 'ann' })]
  t.equal(a.registry.get(ann.id), ann.connection)
  t.equal(a.registry.get(far.id), undefined)
  t.equal(a.registry.get('nobody'), undefined)
  t.strictSame(a.registry.all().map(({ id }) => id), [ann.id, bob.id])
  t.strictSame(a.registry.filter(({ userId }) => userId === 'ann').map(({ id }) => id), [ann.id])
  t.equal(a.registry.count(), 2)
  t.equal(b.registry.count(), 1)
  t.ok([ann, bob].every(({ id }) => id.startsWith(`${a.registry.instanceId}.`)))
  t.not(a.registry.instanceId, b.registry.instanceId)
})
