import t, { type Test } from 'tap'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { announce, type Events } from '../../lib/metrics/channels.ts'
import { memoryCluster, WebsocketGroupsError } from '../../plugin.ts'
import { redisCluster, memoryInstances, startInstance } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { gate } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

/** What is told on a channel until the end of the test. */
function listen<Name extends keyof Events> (t: Test, name: Name): Array<Events[Name]> {
  const heard: Array<Events[Name]> = []
  const listener = (event: unknown): void => { heard.push(event as Events[Name]) }
  subscribe(`fastify-websocket-groups:${name}`, listener)
  t.teardown(() => unsubscribe(`fastify-websocket-groups:${name}`, listener))
  return heard
}

t.test('connections, joins, leaves and publishes are told', async (t) => {
  const cluster = memoryInstances(t)
  const { registry, enter } = await cluster.start({ limits: { connections: 1 } })
  const [opened, closed, joined, left] = [
    listen(t, 'connection.open'), listen(t, 'connection.close'), listen(t, 'group.join'), listen(t, 'group.leave')
  ]
  const [published, limits] = [listen(t, 'publish'), listen(t, 'limit')]
  const { client, connection } = await enter('lobby')
  t.strictSame(opened.map(one => one.connection), [connection])
  t.strictSame(joined.map(({ group }) => group), ['lobby'])
  await registry.join(connection, 'lobby')
  t.equal(joined.length, 1, 'a second join is none')
  await registry.broadcastToGroup(['lobby', 'other'], 'hello')
  await registry.sendToUser('ann', Buffer.alloc(3))
  const { instanceId } = registry
  t.strictSame(published, [
    { instanceId, kind: 'group', names: ['lobby', 'other'], bytes: 5 }, { instanceId, kind: 'user', names: ['ann'], bytes: 3 }
  ])
  await t.rejects(enter('lobby'))
  t.strictSame(limits, [{ instanceId, limit: 'refusedInstanceFull' }])
  t.ok(connection.id.startsWith(`${instanceId}.`))
  await client.close(4000, 'bye')
  await until(() => closed.length === 1)
  t.match(closed[0], { connection, code: 4000, reason: 'bye' })
  t.strictSame(left.map(one => [one.connection.id, one.group]), [[connection.id, 'lobby']])
})

t.test('no leave is told of who did not get in', async (t) => {
  const backplane = memoryCluster().backplane()
  const { opened: stored, open: store } = gate()
  let fails = true
  const syncMember = backplane.syncMember.bind(backplane)
  backplane.syncMember = async (group, connectionId) => {
    if (fails) throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE')
    if (group === 'slow') await stored
    await syncMember(group, connectionId)
  }
  const { registry, open } = await startInstance(t, { backplane, outage: { join: 'reject' } })
  const [joined, left] = [listen(t, 'group.join'), listen(t, 'group.leave')]
  const { client, connection } = await open()
  await t.rejects(registry.join(connection, 'lobby'), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
  fails = false
  await registry.join(connection, 'team')
  const joining = registry.join(connection, 'slow')
  await Promise.all([client.close(), t.rejects(joining, { code: 'WSG_CONNECTION_GONE' }), until(() => registry.count() === 0).then(store)])
  await until(() => left.length > 0)
  t.strictSame([joined, left].map(events => events.map(({ group }) => group)), [['team'], ['team']])
})

t.test('the state of the backplane and losses are told', async (t) => {
  const cluster = await redisCluster(t, undefined, { operationTimeoutMs: 500 })
  const { registry, enter } = await cluster.start()
  const [states, gaps] = [listen(t, 'backplane'), listen(t, 'gap')]
  await enter('lobby')
  await registry.broadcastToGroup('lobby', 'one')
  // Without persistence the log is gone.
  await cluster.redis.restart()
  await until(() => states.some(({ state }) => state === 'down') && states.at(-1)?.state === 'up')
  t.ok(states.find(({ state }) => state === 'down')?.problems.length)
  await until(() => gaps.length > 0)
  t.equal(gaps[0]?.group, 'lobby')
})

t.test('nothing is made for a channel that nobody listens to', async (t) => {
  announce('limit', () => { throw new Error('made') })
  const heard = listen(t, 'limit')
  announce('limit', () => ({ instanceId: 'a', limit: 'x' }))
  t.strictSame(heard, [{ instanceId: 'a', limit: 'x' }])
})
