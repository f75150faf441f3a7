import t from 'tap'
import { createPublisher, type Publisher } from '../../plugin.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { service } from '../helpers/service.ts'

noUnhandled(t)
const redis = await startRedis(t)

/** What callers without types pass. */
const rubbish: readonly unknown[] = [null, 7, NaN, '', [], [7], () => {}, Symbol('s'), 1n, { id: 7 }, Object.create(null)]

type Call = (value: never) => unknown

/** Which code each call has for rubbish in one place; a call may take some of it. */
function callsOf (by: Publisher): ReadonlyArray<readonly [code: string, name: string, call: Call, taken?: readonly unknown[]]> {
  const ann = { userId: 'ann' }
  return [
    ['WSG_CONNECTION_GONE', 'join', who => by.join(who, 'g')],
    ['WSG_CONNECTION_GONE', 'leave', who => by.leave(who, 'g'), ['']],
    ['WSG_CONNECTION_GONE', 'leaveAll', who => by.leaveAll(who), ['']],
    ['WSG_CONNECTION_GONE', 'groups', who => by.groups(who)],
    ['WSG_CONNECTION_GONE', 'sendTo', id => by.sendTo(id, 'x'), ['']],
    ['WSG_CONNECTION_GONE', 'disconnect', who => by.disconnect(who), ['']],
    ['WSG_GROUP_NAME_INVALID', 'join, group', group => by.join(ann, group)],
    ['WSG_GROUP_NAME_INVALID', 'broadcastToGroup', group => by.broadcastToGroup(group, 'x'), [rubbish[4]]],
    ['WSG_GROUP_NAME_INVALID', 'groupCount', group => by.groupCount(group)],
    ['WSG_GROUP_NAME_INVALID', 'members', group => by.members(group)],
    ['WSG_GROUP_NAME_INVALID', 'presence', group => by.presence(group)],
    ['WSG_GROUP_NAME_INVALID', 'history', group => by.history(group)],
    ['WSG_GROUP_NAME_INVALID', 'stopStream', group => by.stopStream(group, 'x')],
    ['WSG_USER_ID_INVALID', 'user', userId => by.join({ userId }, 'g')],
    ['WSG_USER_ID_INVALID', 'sendToUser', userId => by.sendToUser(userId, 'x')],
    ['WSG_DATA_INVALID', 'data', data => by.broadcastToAll(data), ['']],
    ['WSG_POSITION_INVALID', 'join.since', since => by.join(ann, 'g', { since })],
    ['WSG_POSITION_INVALID', 'history.before', before => by.history('g', { before })],
    ['WSG_CLOSE_CODE_INVALID', 'disconnect.code', code => by.disconnect(ann, { code })],
    ['WSG_CLOSE_CODE_INVALID', 'leave.reason', reason => by.leave(ann, 'g', { reason }), ['']],
    ['WSG_BLOCK_INVALID', 'block', target => by.block(target, { forMs: 1_000 })],
    ['WSG_BLOCK_INVALID', 'block, options', options => by.block(ann, options)],
    ['WSG_BLOCK_INVALID', 'unblock', target => by.unblock(target)],
    ['WSG_OPTION_INVALID', 'join.history', history => by.join(ann, 'g', { history }), [7]],
    ['WSG_OPTION_INVALID', 'join.tags', tags => by.join(ann, 'g', { tags }), [rubbish[4]]],
    ['WSG_OPTION_INVALID', 'except', except => by.broadcastToGroup('g', 'x', { except }), ['', rubbish[4]]],
    ['WSG_OPTION_INVALID', 'filter', filter => by.broadcastToGroup('g', 'x', { filter })],
    ['WSG_OPTION_INVALID', 'from', from => by.sendToUser('ann', 'x', { from }), rubbish.slice(-2)],
    ['WSG_OPTION_INVALID', 'volatile', volatile => by.broadcastToAll('x', { volatile })],
    ['WSG_OPTION_INVALID', 'limit', limit => by.members('g', { limit }), [7]],
    ['WSG_OPTION_INVALID', 'cursor', cursor => by.presence('g', { cursor })],
    ['WSG_OPTION_INVALID', 'members.userId', userId => by.members('g', { userId })],
    ['WSG_OPTION_INVALID', 'prefix', prefix => by.groupList({ prefix }), ['']],
    ['WSG_OPTION_INVALID', 'reverse', reverse => by.history('g', { reverse })],
    ['WSG_OPTION_INVALID', 'readStream', id => by.readStream('g', id)],
    ['WSG_OPTION_INVALID', 'join, options', options => by.join(ann, 'g', options), rubbish.slice(-1)],
    ['WSG_OPTION_INVALID', 'leave, options', options => by.leave(ann, 'g', options), rubbish.slice(-1)],
    ['WSG_OPTION_INVALID', 'broadcastToGroup, options', options => by.broadcastToGroup('g', 'x', options), rubbish.slice(-1)],
    ['WSG_OPTION_INVALID', 'disconnect, options', options => by.disconnect(ann, options), rubbish.slice(-1)],
    ['WSG_OPTION_INVALID', 'members, options', options => by.members('g', options), rubbish.slice(-1)],
    ['WSG_OPTION_INVALID', 'presence, options', options => by.presence('g', options), rubbish.slice(-1)],
    ['WSG_OPTION_INVALID', 'history, options', options => by.history('g', options), rubbish.slice(-1)],
    ['WSG_OPTION_INVALID', 'groupList, options', options => by.groupList(options), rubbish.slice(-1)]
  ]
}

for (const kind of ['registry', 'publisher'] as const) {
  t.test(`whatever a ${kind} is called with, the error has a code`, async t => {
    const { app } = await service(t, { redis: redis.url })
    await app.ready()
    await using publisher = createPublisher({ redis: redis.url })
    const by = kind === 'registry' ? app.registry as unknown as Publisher : publisher
    for (const [code, name, call, taken = []] of callsOf(by)) {
      const wrong = rubbish.filter(value => !taken.includes(value))
      const codes = await Promise.all(wrong.map(async value => {
        return await (async () => await call(value as never))().then(() => 'taken', (error: unknown) => (error as { code?: unknown }).code)
      }))
      t.strictSame(codes.map((got, index) => got === code ? undefined : [got, wrong[index]]).filter(Boolean), [], `${name}: ${code}`)
    }
  })
}

t.test('a misspelt option of a call is named, with those that there are', async t => {
  const { app } = await service(t)
  await app.ready()
  const { registry } = app
  const message = /no option broadcastToGroup\.options\.exclude .*there are: except, filter/
  await t.rejects(registry.broadcastToGroup('g', 'x', { exclude: 'me' } as never), { code: 'WSG_OPTION_INVALID', message })
  await t.rejects(registry.history('g', { limt: 3 } as never), { code: 'WSG_OPTION_INVALID', message: /there are: since, before, limit/ })
  const { scope } = await registry.broadcastToGroup('g', 'x', { except: undefined, volatile: undefined })
  t.equal(scope, 'cluster', 'one that is undefined counts as left out')
})

t.test('what only a registry has', async t => {
  const { app } = await service(t)
  await app.ready()
  const { registry } = app
  const code = 'WSG_OPTION_INVALID'
  for (const value of rubbish) {
    if (typeof value !== 'function') {
      t.throws(() => registry.filter(value as never), { code })
      t.throws(() => registry.instances.on('name', value as never), { code })
    }
    t.throws(() => app.wsRoom(value as never, { auth: false, group: () => 'g', onJoin: 7 } as never), { code })
    t.throws(() => registry.instances.on(value as never, () => {}), { code })
    await t.rejects(registry.instances.emit(value as never, null), { code })
    await t.rejects(registry.instances.ask(value as never, null), { code })
    if (value !== 7) await t.rejects(registry.instances.ask('name', null, { timeoutMs: value as never }), { code })
    await t.rejects(registry.drain(value as never), { code })
  }
})
