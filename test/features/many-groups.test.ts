// Calls to more groups than one script of Redis may keep busy with.
import t, { type Test } from 'tap'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { connect, type TestClient } from '../helpers/client.ts'
import { serve, type Served } from '../helpers/service.ts'

noUnhandled(t)
const redis = await startRedis(t)
const count = 20_100
const groups = Array.from({ length: count }, (_, n) => `g${n}`)
/** Redis may be slow on a busy machine. */
const patient = { operationTimeoutMs: 10_000, joinTimeoutMs: 20_000 } as const
/** In the first part, in one between, and in the last. */
const some = ['g0', 'g9999', 'g20099']

function routes (app: Served['app']): void {
  app.get('/', { websocket: true }, app.wsHandler({
    async onConnect (connection) {
      for (const group of some) await app.registry.join(connection, group)
      connection.send('joined')
    },
    onMessage () {}
  }))
  app.wsRoom('/rooms/:room', { auth: false, onJoin (connection) { connection.send('joined') } })
}

async function joined (t: Test, url: string): Promise<TestClient> {
  const client = connect(t, url)
  await client.next()
  return client
}

t.test('a call to 20,100 groups reaches each member once, in the order of the calls', async t => {
  const options = { redis: redis.url, keyPrefix: 'order:', ...patient }
  const [here, elsewhere] = [await serve(t, options, routes), await serve(t, options, routes)]
  const member = await joined(t, elsewhere.url)
  const rooms = await Promise.all(some.map(async group => await joined(t, `${elsewhere.url}/rooms/${group}`)))
  const { registry } = here
  const [first, , volatile] = await Promise.all([
    registry.broadcastToGroup(groups, 'many'),
    registry.broadcastToGroup('g20099', 'one'),
    registry.broadcastToGroup(groups, 'volatile', { volatile: true }),
    registry.broadcastToGroup(groups.toReversed(), 'again')
  ])
  t.equal(first.scope, 'cluster')
  t.strictSame(Object.keys(first.positions ?? {}).sort(), groups.toSorted(), 'where it stands in each of them')
  t.equal(volatile.scope, 'cluster')
  await registry.broadcastToGroup(some, 'end')
  const end = async (client: TestClient): Promise<unknown> => {
    await client.nextWhere(text => text === 'end')
    return client.messages.filter(text => text !== 'joined' && text !== 'volatile')
  }
  t.strictSame((await end(member) as string[]).sort(), ['again', 'end', 'many', 'one'], 'one copy for a member of several')
  const [zero, middle, last] = rooms as [TestClient, TestClient, TestClient]
  t.strictSame(await end(zero), ['many', 'again', 'end'])
  t.strictSame(await end(middle), ['many', 'again', 'end'])
  t.strictSame(await end(last), ['many', 'one', 'again', 'end'])
  for (const client of [member, ...rooms]) t.equal(client.messages.filter(text => text === 'volatile').length, 1, 'the volatile one, too')
})

t.test('Redis goes on with the calls of others meanwhile', async t => {
  const { registry } = await serve(t, { redis: redis.url, keyPrefix: 'busy:', ...patient }, routes)
  const call = { ended: false }
  const broadcast = registry.broadcastToGroup(groups, 'many').finally(() => { call.ended = true })
  let others = 0
  while (!call.ended) {
    await redis.admin.ping()
    others++
  }
  await broadcast
  t.ok(others >= count / 1_000, `${others} calls`)
})

t.test('the error of a call that some groups refused names those that have the message', async t => {
  const keyPrefix = 'refused:'
  const { registry } = await serve(t, { redis: redis.url, keyPrefix, ...patient }, routes)
  const spoilt = 'g1500'
  await redis.admin.set(new Keys(keyPrefix).log(spoilt), 'not a list')
  const calls = groups.slice(0, 3_000)
  const error = await registry.broadcastToGroup(calls, 'x', { idempotencyKey: 'k' }).catch((error: unknown) => error)
  t.match(error, { code: 'WSG_TIMEOUT', message: /sent to some of the groups only.*WRONGTYPE/, sentTo: { length: 2_000 } })
  const { sentTo } = error as { readonly sentTo: readonly string[] }
  t.strictSame(sentTo, calls.filter((_, n) => n < 1_000 || n >= 2_000), 'the parts without the spoilt one')
  const stored = async (group: string): Promise<number> => (await registry.history(group)).messages.length
  t.strictSame(await Promise.all(['g0', 'g1499', 'g1501', 'g2999'].map(stored)), [1, 0, 0, 1])
  await redis.admin.del(new Keys(keyPrefix).log(spoilt))
  t.match(await registry.broadcastToGroup(calls, 'x', { idempotencyKey: 'k' }), { scope: 'cluster' }, 'the same call again')
  t.strictSame(await Promise.all(['g0', 'g1499', spoilt, 'g2999'].map(stored)), [1, 1, 1, 1], 'no group has it twice')
})

t.test('a call that all groups refused says that nothing was sent', async t => {
  const keyPrefix = 'all:'
  const { registry } = await serve(t, { redis: redis.url, keyPrefix, ...patient }, routes)
  const keys = new Keys(keyPrefix)
  await Promise.all(['g0', 'g1000'].map(async group => await redis.admin.set(keys.log(group), 'not a list')))
  const refused = registry.broadcastToGroup(groups.slice(0, 2_000), 'x')
  await t.rejects(refused, { code: 'WSG_BACKPLANE_UNAVAILABLE', sentTo: undefined })
  t.equal((await registry.history('g1')).messages.length, 0)
})

t.test('one connection joins thousands of groups at once, and leaves them all', async t => {
  const many = groups.slice(0, 5_000)
  const options = { redis: redis.url, keyPrefix: 'join:', ...patient, maxGroupsPerConnection: many.length, limits: false } as const
  const here = await serve(t, options, app => {
    app.get('/', { websocket: true }, app.wsHandler({
      async onConnect (connection) {
        const joins = await Promise.all(many.map(async group => await app.registry.join(connection, group)))
        connection.send(String(joins.filter(({ scope }) => scope === 'cluster').length))
      },
      async onMessage (connection) { connection.send(String(await app.registry.leaveAll(connection))) }
    }))
  })
  const client = connect(t, here.url)
  t.equal(await client.next(), String(many.length), 'all joins are known to the cluster')
  t.equal(await here.registry.groupCount('g4999'), 1)
  client.send('leave')
  t.equal(await client.next(), String(many.length))
  t.equal(await here.registry.groupCount('g4999'), 0)
})
