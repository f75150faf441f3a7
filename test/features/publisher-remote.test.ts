import t from 'tap'
import { createPublisher } from '../../plugin.ts'
import { upgradeStatus } from '../helpers/client.ts'
import { heard, onRedis, startInstance } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const redis = await startRedis(t)

onRedis(t, redis, 'a publisher acts on connections and users of every instance', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const [x, y, bob] = [
    await a.enter('jobs', { user: 'ann' }), await b.enter('jobs', { user: 'ann' }), await b.enter('jobs', { user: 'bob' })
  ]
  await using publisher = createPublisher({ redis: redis.url })
  t.equal(await publisher.sendTo(x.id, 'to one'), true)
  t.equal(await publisher.sendTo(`${a.id}.zz`, 'to one that is gone'), false)
  t.equal(await publisher.join({ userId: 'ann' }, 'news'), 2)
  t.match(await publisher.join(bob.id, 'news'), { scope: 'cluster' })
  t.equal(await a.registry.groupCount('news'), 3)
  t.strictSame(await publisher.groups({ userId: 'ann' }), ['jobs', 'news'])
  t.strictSame(await publisher.groups(bob.id), ['jobs', 'news'])
  t.strictSame([...await publisher.groupList()], ['jobs', 'news'])
  t.strictSame([await publisher.connectionCount(), await publisher.userCount()], [3, 2])
  await publisher.broadcastJson('news', { n: 1 })
  for (const one of [x, y, bob]) await one.client.nextWhere(message => message === '{"n":1}')
  t.equal(await publisher.leave({ userId: 'ann' }, 'news', { reason: 'enough' }), 2)
  t.equal(await publisher.leave(bob.id, 'news'), true)
  t.equal(await publisher.leaveAll(bob.id), 1)
  t.equal(await publisher.disconnect(bob.id, { code: 4000, reason: 'bye' }), 1)
  t.match(await bob.client.closed, { code: 4000, reason: 'bye' })
  t.equal(await publisher.disconnect({ userId: 'ann' }), 2)
  await Promise.all([x.client.closed, y.client.closed])
  t.strictSame(heard(x), ['to one', '{"n":1}'])
  t.equal(await publisher.disconnect({ userId: 'ann' }), 0)
  await t.rejects(publisher.groups(bob.id), { code: 'WSG_CONNECTION_GONE' })
  await t.rejects(publisher.join({ userId: '' }, 'news'), { code: 'WSG_USER_ID_INVALID' })
  await t.rejects(publisher.join(x.id, ''), { code: 'WSG_GROUP_NAME_INVALID' })
  await t.rejects(publisher.disconnect(x.id, { code: 1 }), { code: 'WSG_CLOSE_CODE_INVALID' })
  await t.rejects(publisher.leave({ userId: 'ann' }, 'news', { reason: 'x'.repeat(124) }), { code: 'WSG_CLOSE_CODE_INVALID' })
})

onRedis(t, redis, 'a publisher reads who is there, and what was said', async (t, cluster) => {
  const a = await cluster.start()
  for (const user of ['ann', 'ann', 'bob']) await a.enter('room', { user })
  await using publisher = createPublisher({ redis: redis.url })
  for (const text of ['1', '2', '3']) await publisher.broadcastToGroup('room', text, { from: { userId: 'worker' } })
  t.match(
    await publisher.history('room', { limit: 2 }), { messages: [{ data: '2', from: { userId: 'worker' } }, { data: '3' }], more: true }
  )
  t.match(await publisher.history('empty'), { messages: [], more: false })
  const people = await publisher.presence('room', { limit: 1 })
  t.match([...people], [{ userId: 'ann', connections: 2 }])
  t.match([...await publisher.presence('room', { cursor: people.cursor })], [{ userId: 'bob', connections: 1 }])
  t.equal((await publisher.members('room', { userId: 'ann' })).length, 2)
  t.equal((await publisher.members('room', { limit: 2 })).length, 2)
  await t.rejects(publisher.members(''), { code: 'WSG_GROUP_NAME_INVALID' })
})

t.test('a publisher without an answer says so, and close() ends what waits', async t => {
  const own = await startRedis(t)
  const publisher = createPublisher({ redis: own.url })
  // An instance of this id lives and never answers.
  const silent = 'silent0000'
  await own.admin.zadd('wsg:{0}:live', Date.now() + 600_000, silent)
  await own.admin.hset('wsg:{0}:inst', silent, 'A1:x')
  const [refused, ended] = [publisher.sendTo(`${silent}.1`, 'x'), publisher.connectionCount()]
  await Promise.all([
    t.rejects(refused, { code: 'WSG_BACKPLANE_UNAVAILABLE', message: /silent0000 lives/ }),
    t.rejects(ended, { code: 'WSG_TIMEOUT', done: 0, missing: [silent] })
  ])
  t.match(await publisher.groupList(), { length: 0, missing: 1 })
  const waiting = t.rejects(publisher.sendTo(`${silent}.1`, 'x'), { code: 'WSG_CLOSED' })
  await publisher.close()
  await waiting
  await until(async () => Number(/connected_clients:(\d+)/.exec(await own.admin.info('clients'))?.[1]) === 1, { what: 'no link is left' })
})

t.test('a block that is stored is never called undone', async t => {
  const own = await startRedis(t)
  await own.admin.acl('SETUSER', 'app', 'on', '>word', '~*', '&*', '+@all')
  const url = own.url.replace('//', '//app:word@')
  const a = await startInstance(t, { redis: url })
  await using publisher = createPublisher({ redis: url })
  t.equal(await publisher.block({ userId: 'ann' }, { forMs: 60_000 }), 0)
  await own.admin.acl('SETUSER', 'app', '-publish')
  const told = { code: 'WSG_TIMEOUT', message: /the change is stored, but instances were not told.*NOPERM/ }
  await t.rejects(publisher.block({ userId: 'bob' }, { forMs: 60_000 }), told)
  await t.rejects(a.registry.block({ userId: 'cy' }, { forMs: 60_000 }), told)
  await t.rejects(publisher.unblock({ userId: 'ann' }), told)
  t.strictSame((await own.admin.zrange('wsg:{0}:blocked', '0', '-1')).sort(), ['', 'u:bob', 'u:cy'])
  await own.admin.acl('SETUSER', 'app', '+publish', '-zadd')
  await t.rejects(publisher.block({ userId: 'dan' }, { forMs: 60_000 }), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
})

onRedis(t, redis, 'blocks users and tokens everywhere, and lets them in again', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  await using publisher = createPublisher({ redis: redis.url, operationTimeoutMs: 5_000 })
  const [x, y, other] = [await a.open({ user: 'mallory' }), await b.open({ user: 'mallory' }), await b.open({ user: 'ann' })]
  t.equal(await publisher.block({ userId: 'mallory' }, { forMs: 60_000 }), 2)
  for (const { client } of [x, y]) t.match(await client.closed, { code: 4403 })
  t.equal(other.connection.closed, false)
  const refused = { headers: { authorization: 'Bearer mallory' } }
  t.equal((await upgradeStatus(`${a.url}/ws`, refused)).statusCode, 403)
  await publisher.unblock({ userId: 'mallory' })
  await a.open({ user: 'mallory' })
  await t.rejects(publisher.block({ userId: '' }, { forMs: 1 }), { code: 'WSG_BLOCK_INVALID' })
  await t.rejects(publisher.block({ userId: 'u' }, { forMs: 0 }), { code: 'WSG_BLOCK_INVALID' })
})
