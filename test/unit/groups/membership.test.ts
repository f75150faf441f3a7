import t from 'tap'
import { deferred } from '../../../lib/deadline.ts'
import { userLogTarget, userTarget } from '../../../lib/delivery/envelopes.ts'
import { WebsocketGroupsError } from '../../../lib/errors.ts'
import type { Membership } from '../../../lib/groups/membership.ts'
import type { Hub } from '../../../lib/hub/hub.ts'
import { connectionIdOf } from '../../../lib/ids.ts'
import type { Metrics } from '../../../lib/metrics.ts'
import type { OutagePolicy, WebsocketGroupsOptions } from '../../../lib/options/types.ts'
import { fakeConnection, fakeInstance, type FakeBackplane, type FakeConnection } from '../../helpers/fakes.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'

noUnhandled(t)

interface Parts {
  readonly instanceId: string
  readonly hub: Hub
  readonly backplane: FakeBackplane
  readonly membership: Membership
  readonly connection: FakeConnection
  readonly metrics: Metrics
}

function parts ({ policy = 'local', ...options }: WebsocketGroupsOptions & { readonly policy?: OutagePolicy['join'] } = {}): Parts {
  const given = { maxGroupsPerConnection: 10, outage: { join: policy }, ...options }
  const { instanceId, hub, backplane, membership, metrics } = fakeInstance(given)
  const connection = fakeConnection(connectionIdOf(instanceId, 1), 'ann')
  void membership.connectionOpened(connection)
  return { instanceId, hub, backplane, membership, connection, metrics }
}

const unavailable = new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE')

t.test('a join is a member here before the backplane knows, and resolves when it is subscribed, then registered', async (t) => {
  const { instanceId, hub, backplane, membership, connection } = parts()
  const [subscribed, synced, steps] = [deferred(), deferred(), [] as string[]]
  backplane.onSubscribe = async ({ kind, name }) => { steps.push(`subscribe ${kind} ${name}`); await subscribed.promise }
  backplane.onSync = async (group, id) => { steps.push(`sync ${group} ${id}`); await synced.promise }
  const joined = membership.join(connection, 'g').then(result => { steps.push('joined'); return result })
  t.equal(hub.has('g'), true)
  t.match(hub.member('g', connection.id), { connectionId: connection.id, instanceId, userId: 'ann' })
  t.strictSame(steps, ['subscribe group g'])
  subscribed.resolve()
  await new Promise(resolve => setImmediate(resolve))
  t.strictSame(steps, ['subscribe group g', `sync g ${connection.id}`])
  synced.resolve()
  t.strictSame(await joined, { scope: 'cluster' })
})

t.test('joins at the same time share one outcome', async (t) => {
  const { hub, backplane, membership, connection } = parts({ policy: 'reject' })
  const first = deferred()
  let calls = 0
  backplane.onSync = async () => { if (++calls === 1) await first.promise }
  const joins = [membership.join(connection, 'g'), membership.join(connection, 'g')]
  const outcomes = Promise.allSettled(joins)
  await new Promise(resolve => setImmediate(resolve))
  joins.push(membership.join(connection, 'g'))
  first.reject(unavailable)
  t.strictSame((await outcomes).map(({ status }) => status), ['rejected', 'rejected'])
  await t.rejects(joins[2] as Promise<unknown>, unavailable)
  t.equal(hub.has('g'), false, 'nobody was told that it joined')
  t.strictSame(await membership.join(connection, 'g'), { scope: 'cluster' })
})

t.test('a failed join does not take back what came after it', async (t) => {
  const { hub, backplane, membership, connection } = parts({ policy: 'reject' })
  const first = deferred()
  backplane.onSubscribe = async () => { await first.promise }
  const failing = membership.join(connection, 'g')
  await membership.leave(connection, 'g')
  backplane.onSubscribe = async () => {}
  t.strictSame(await membership.join(connection, 'g'), { scope: 'cluster' })
  first.reject(unavailable)
  await t.rejects(failing, unavailable)
  t.equal(hub.has('g'), true)
})

t.test('a failed second join leaves the first one as it was', async (t) => {
  const { hub, backplane, membership, connection } = parts({ policy: 'reject' })
  await membership.join(connection, 'g')
  backplane.onSync = async () => { throw unavailable }
  await t.rejects(membership.join(connection, 'g'), unavailable)
  t.equal(hub.has('g'), true)
  t.strictSame(backplane.unsubscribed, [])
})

t.test('a failed join gives the subscription back, and does not wait for the backplane once more', async (t) => {
  const { backplane, membership, connection } = parts({ policy: 'reject' })
  let synced = 0
  backplane.onSubscribe = async () => { throw unavailable }
  backplane.onSync = async () => { synced++; await new Promise(() => {}) }
  await t.rejects(membership.join(connection, 'g'), unavailable)
  t.strictSame(backplane.unsubscribed, [{ kind: 'group', name: 'g' }])
  t.equal(synced, 1)
})

t.test('whatever the policy, an error that is no outage undoes the join', async (t) => {
  const { hub, backplane, membership, connection, metrics } = parts()
  backplane.onSync = async () => { throw new TypeError('a bug') }
  await t.rejects(membership.join(connection, 'g'), TypeError)
  t.equal(hub.has('g'), false)
  t.equal(metrics.joinsLocal, 0)
})

t.test('a join whose replay fails is undone', async (t) => {
  let fails = true
  const { hub, membership, connection } = parts({
    logs: () => {
      if (fails) throw new Error('out of order')
      return false
    }
  })
  await t.rejects(membership.join(connection, 'g', { history: 5 }), { code: 'WSG_OPTION_INVALID' })
  t.equal(hub.has('g'), false)
  t.strictSame(connection.groups, [])
  fails = false
  t.match(await membership.join(connection, 'g', { history: 5 }), { scope: 'cluster' })
  t.equal(hub.has('g'), true)
})

t.test('a connection that closes during its join is gone', async (t) => {
  const { hub, backplane, membership, connection } = parts()
  const synced = deferred()
  backplane.onSync = async () => { await synced.promise }
  const joining = membership.join(connection, 'g')
  Object.assign(connection, { closed: true })
  const released = membership.connectionClosed(connection)
  synced.resolve()
  await t.rejects(joining, { code: 'WSG_CONNECTION_GONE' })
  await released
  t.strictSame([hub.has('g'), hub.connections.size, connection.groupCount], [false, 0, 0])
  t.strictSame(backplane.unsubscribed, [userTarget('ann'), userLogTarget('ann'), { kind: 'group', name: 'g' }])
})

t.test('an outage keeps nobody from leaving or entering', async (t) => {
  const { hub, backplane, membership, connection } = parts()
  await membership.join(connection, 'g')
  for (const code of ['WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT'] as const) {
    backplane.onSync = backplane.onSubscribe = async () => { throw new WebsocketGroupsError(code) }
    t.strictSame(await membership.join(connection, 'g'), { scope: 'local' })
    t.equal(await membership.leave(connection, 'g'), true)
    t.strictSame(await membership.join(connection, 'g'), { scope: 'local' })
    await membership.connectionOpened(fakeConnection(connectionIdOf('instance00', 2), code))
  }
  await membership.connectionClosed(connection)
  t.equal(hub.has('g'), false)
})

t.test('each connection of a user waits for the subscription, and only the last one ends it', async (t) => {
  const { backplane, membership, connection } = parts()
  const [second, subscribed] = [fakeConnection(connectionIdOf('instance00', 2), 'ann'), deferred()]
  let entered = false
  backplane.onSubscribe = async () => { await subscribed.promise }
  const entering = membership.connectionOpened(second)?.then(() => { entered = true })
  await new Promise(resolve => setImmediate(resolve))
  t.equal(entered, false)
  subscribed.resolve()
  await entering
  await membership.connectionClosed(connection)
  t.strictSame(backplane.unsubscribed, [])
  await membership.connectionClosed(second)
  t.strictSame(backplane.unsubscribed, [userTarget('ann'), userLogTarget('ann')])
  t.equal(
    membership.connectionOpened(fakeConnection(connectionIdOf('instance00', 3))), undefined,
    'an anonymous connection has no channel of its own'
  )
})
