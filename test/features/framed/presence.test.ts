import t, { type Test } from 'tap'
import type { WebsocketGroupsOptions } from '../../../plugin.ts'
import { connect } from '../../helpers/client.ts'
import { onEachBackplane } from '../../helpers/app.ts'
import { watchMachine } from '../../helpers/machine.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { startRedis } from '../../helpers/redis.ts'
import { gate, serve, type Served } from '../../helpers/service.ts'
import { startProxy } from '../../helpers/tcp-proxy.ts'
import { until } from '../../helpers/until.ts'
import { openFramed, type Frame, type FramedClient } from './framed-client.ts'

noUnhandled(t)
const machine = watchMachine(t)
const redis = await startRedis(t)

const graceMs = 400

function start (t: Test, options: WebsocketGroupsOptions): Promise<Served> {
  return serve(t, {
    presenceGraceMs: graceMs, memberInfo: ({ userId }) => userId === 'ann' ? { name: 'Ann' } : undefined, ...options
  }, app => {
    app.wsRoom('/:room', { auth: { required: false }, group: ({ room }) => room, presence: true, mayJoin: () => true })
    app.wsRoom('/quiet/:room', { auth: { required: false }, group: ({ room }) => room })
    app.wsRoom('/counted/:room', { auth: { required: false }, group: () => 'counted', presence: 'count' })
  })
}

/** Two instances, on each kind of backplane. */
function onBoth (name: string, run: (t: Test, a: Served, b: Served) => Promise<void>, presenceGraceMs = graceMs): void {
  onEachBackplane(t, redis, name, async (t, here) => {
    const [a, b] = [await start(t, { ...here(), presenceGraceMs }), await start(t, { ...here(), presenceGraceMs })]
    await run(t, a, b)
  })
}

/**
 * Resolves when everyone whose link broke before this call has been given up, or is back: one who left after them is given up after them.
 */
async function graceOver (t: Test, url: string, witness: FramedClient): Promise<void> {
  const last = await enter(t, url, 'last')
  last.raw.terminate()
  while (memberOf(await witness.nextOf('presence', { event: 'leave' })).userId !== 'last');
}

/** Opens and waits until the client knows who is there. */
async function enter (t: Test, url: string, token?: string, hello: object = {}): Promise<FramedClient & { readonly present: Frame }> {
  const client = await openFramed(t, url, { ...(token === undefined ? {} : { token }), hello })
  await client.nextOf('joined')
  return Object.assign(client, { present: await client.nextOf('members') })
}

const namesIn = (frame: Frame): unknown[] => (frame.members as Frame[]).map(({ userId, session }) => userId ?? session)
/** Resolves when the client gets a list of these people. */
async function listed (client: FramedClient, names: readonly string[]): Promise<void> {
  while (namesIn(await client.nextOf('members')).sort().join() !== names.join());
}

const memberOf = (frame: Frame): Frame => frame.member as Frame
const twice = (user: string): string[] => [`join ${user}`, `leave ${user}`, `join ${user}`, `leave ${user}`]
const changesOf = (client: FramedClient): string[] => client.frames.filter(({ type }) => type === 'presence').map(
  frame => `${String(frame.event)} ${String(memberOf(frame).userId)}`
)

onBoth('members are listed, and joins and leaves are told to all others', async (t, a, b) => {
  const ann = await enter(t, `${a.url}/lobby`, 'ann')
  t.match(ann.present, {
    group: 'lobby', members: [{ userId: 'ann', info: { name: 'Ann' }, joinedAt: Number, connections: 1 }]
  })
  t.notOk(JSON.stringify(ann.present).includes(String(ann.welcome.session)), 'what proves that a client is back is told to nobody')

  const bob = await enter(t, `${b.url}/lobby`, 'bob')
  t.strictSame((bob.present.members as Frame[]).map(({ userId }) => userId).sort(), ['ann', 'bob'])
  const joined = await ann.nextOf('presence')
  t.match(joined, { group: 'lobby', event: 'join', count: 2, member: { userId: 'bob', connections: 1 } })
  t.strictSame(Object.keys(memberOf(joined)).sort(), ['connections', 'joinedAt', 'userId'])

  const raw = connect(t, `${a.url}/lobby`)
  for (const client of [ann, bob]) {
    const { member, count } = await client.nextOf('presence', { event: 'join' })
    t.equal(count, 3)
    t.ok((member as Frame).session, 'a raw client of nobody is one of its own')
  }
  raw.terminate()
  t.match(await bob.nextOf('presence'), { event: 'leave', count: 2 }, 'and is gone at once')

  bob.send({ type: 'leave', group: 'lobby' })
  t.match(await ann.nextOf('presence', { event: 'leave', count: 1 }), { member: { userId: 'bob' } })
  bob.send({ type: 'join', group: 'lobby' })
  t.match(await ann.nextOf('presence'), { event: 'join', member: { userId: 'bob' } })
  machine.restart()
  const before = performance.now()
  await bob.raw.close(1000)
  await ann.nextOf('presence', { event: 'leave', count: 1 })
  machine.within(t, performance.now() - before, graceMs, 'who says good-bye is gone at once')
  t.strictSame(
    changesOf(ann), ['join bob', 'join undefined', 'leave undefined', 'leave bob', 'join bob', 'leave bob'], 'nobody hears of itself'
  )
})

/** Long enough for a busy machine to let somebody join within it. */
const longGraceMs = 2_000

onBoth('a client whose link breaks is told to have left only when it does not come back', async (t, a, b) => {
  const ann = await enter(t, `${a.url}/lobby`, 'ann')
  const cat = await enter(t, `${b.url}/lobby`, 'cat')
  const bob = await enter(t, `${b.url}/lobby`, 'bob')
  await ann.nextOf('presence', { count: 3 })
  await cat.nextOf('presence', { count: 3 })
  const broke = performance.now()
  bob.raw.terminate()
  await until(async () => await a.app.registry.groupCount('lobby') === 2)
  t.same(changesOf(cat), ['join bob'])
  const dan = await enter(t, `${a.url}/lobby`, 'dan')
  t.equal(namesIn(dan.present).length, 4, 'until then it is listed')
  t.equal((await ann.nextOf('presence')).count, 4)

  for (const client of [ann, cat, dan]) {
    const left = await client.nextOf('presence', { event: 'leave' })
    t.match(left, { count: 3, member: { userId: 'bob', connections: 0 } })
  }
  t.ok(performance.now() - broke >= longGraceMs)
}, longGraceMs)

onBoth('a client that the server closes for good is gone at once, one that it sends away to come back is not', async (t, a, b) => {
  const ann = await enter(t, `${a.url}/lobby`, 'ann')
  for (const code of [undefined, 4400, 4403]) {
    const bob = await enter(t, `${b.url}/lobby`, 'bob')
    await ann.nextOf('presence', { event: 'join' })
    machine.restart()
    const before = performance.now()
    t.equal(await a.app.registry.disconnect(String(bob.welcome.connectionId), code === undefined ? {} : { code }), 1)
    await ann.nextOf('presence', { event: 'leave', count: 1 })
    machine.within(t, performance.now() - before, graceMs, `${code ?? 'the default'}`)
  }
  for (const code of [1012, 1013]) {
    const bob = await enter(t, `${b.url}/lobby`, `${code}`)
    await ann.nextOf('presence', { event: 'join' })
    const before = performance.now()
    await a.app.registry.disconnect(String(bob.welcome.connectionId), { code })
    await ann.nextOf('presence', { event: 'leave', count: 1 })
    t.ok(performance.now() - before >= graceMs, `${code}`)
  }
})

onBoth('a client that comes back in time, on any instance, never left', async (t, a, b) => {
  const ann = await enter(t, `${a.url}/lobby`, 'ann')
  const cat = await enter(t, `${b.url}/lobby`, 'cat')
  const bob = await enter(t, `${b.url}/lobby`, 'bob')
  await ann.nextOf('presence', { count: 3 })
  await cat.nextOf('presence', { count: 3 })
  bob.raw.terminate()
  await until(async () => await a.app.registry.groupCount('lobby') === 2)
  const { session } = bob.welcome
  const back = await enter(t, `${a.url}/lobby`, 'bob', { session })
  t.equal(back.welcome.session, session)
  t.strictSame(namesIn(back.present).sort(), ['ann', 'bob', 'cat'])
  for (const { url } of [a, b]) await graceOver(t, `${url}/lobby`, cat)
  t.strictSame(changesOf(cat), ['join bob', ...twice('last')], 'nothing happened')
})

onBoth('a client that is back before its old socket is known to be dead did not leave when that is noticed', async (t, a, b) => {
  const ann = await enter(t, `${a.url}/lobby`, 'ann')
  const old = await enter(t, `${a.url}/lobby`, 'bob')
  const back = await enter(t, `${b.url}/lobby`, 'bob', { session: old.welcome.session })
  t.strictSame(namesIn(back.present).sort(), ['ann', 'bob'], 'listed once, although it has two connections for a while')
  t.equal((back.present.members as Frame[]).find(({ userId }) => userId === 'bob')?.connections, 1, 'of one client')
  old.raw.terminate()
  await until(async () => await a.app.registry.groupCount('lobby') === 2)
  for (const { url } of [a, b]) await graceOver(t, `${url}/lobby`, ann)
  t.strictSame(changesOf(ann), ['join bob', ...twice('last')])
})

onBoth('an instance that shuts down leaves it to the others to wait for its clients', async (t, a, b) => {
  const ann = await enter(t, `${a.url}/lobby`, 'ann')
  const bob = await enter(t, `${b.url}/lobby`, 'bob')
  await enter(t, `${b.url}/lobby`, 'cat')
  await ann.nextOf('presence', { count: 3 })
  await b.app.close()
  await bob.raw.closed
  const back = await enter(t, `${a.url}/lobby`, 'bob', { session: bob.welcome.session })
  t.equal(namesIn(back.present).length, 3)
  t.match(await ann.nextOf('presence'), { event: 'leave', count: 2, member: { userId: 'cat' } })
})

onBoth('groups that a client joins by itself have presence too; clients of other routes are told nothing', async (t, a, b) => {
  const ann = await enter(t, `${a.url}/lobby`, 'ann')
  ann.send({ type: 'join', group: 'news', id: 1 })
  t.match(await ann.nextOf('members'), { group: 'news' })
  const bob = await enter(t, `${b.url}/news`, 'bob')
  t.match(await ann.nextOf('presence'), { group: 'news', event: 'join', count: 2 })

  const quiet = await openFramed(t, `${b.url}/quiet/news`)
  await quiet.nextOf('joined')
  t.match(await ann.nextOf('presence'), { group: 'news', event: 'join', count: 3 })
  bob.raw.terminate()
  t.match(await ann.nextOf('presence'), { group: 'news', event: 'leave', count: 2 })
  t.notOk(quiet.frames.some(({ type }) => type === 'members' || type === 'presence'))
})

onBoth('members come and go before all who are told of members, whatever their own route tells them', async (t, a, b) => {
  const ann = await enter(t, `${a.url}/counted`, 'ann')
  const counting = await openFramed(t, `${b.url}/counted/lobby`, { token: 'eve' })
  await counting.nextOf('count', { count: 2 })
  await listed(ann, ['ann', 'eve'])

  const raw = connect(t, `${b.url}/quiet/counted`, { protocols: ['bearer', 'bob'] })
  t.match(await ann.nextOf('presence'), { event: 'join', member: { userId: 'bob' }, count: 3 })
  await counting.nextOf('count', { count: 3 })
  const [bob] = (await b.app.registry.members('counted')).filter(({ userId }) => userId === 'bob')
  await b.app.registry.get(bob?.connectionId ?? '')?.setInfo('busy' as never)
  t.match(await ann.nextOf('presence'), { event: 'update', member: { info: 'busy' } })
  raw.terminate()
  t.match(await ann.nextOf('presence'), { event: 'leave', member: { userId: 'bob' }, count: 2 })
  await counting.nextOf('count', { count: 2 })

  counting.raw.terminate()
  await listed(ann, ['ann'])
})

t.test('after the death of an instance the others are told anew who is there', async t => {
  const proxy = await startProxy(t, redis.port)
  const options = { leaseMs: 1_000, keyPrefix: 'death:' }
  const a = await start(t, { ...options, redis: redis.url })
  const b = await start(t, { ...options, redis: proxy.url })
  const ann = await enter(t, `${a.url}/lobby`, 'ann')
  const bob = await enter(t, `${b.url}/lobby`, 'bob')
  await enter(t, `${b.url}/lobby`, 'cat')
  await ann.nextOf('presence', { count: 3 })
  await proxy.refuse(true)
  proxy.cut()                                        // to the others this is what a SIGKILL looks like
  const back = await enter(t, `${a.url}/lobby`, 'bob', { session: bob.welcome.session })
  t.strictSame(namesIn(back.present).sort(), ['ann', 'bob', 'cat'])
  t.strictSame(namesIn(await ann.nextOf('members')).sort(), ['ann', 'bob'])
})

for (const [how, stop] of [
  ['closed', async ({ app }: Served) => { await app.close() }],
  ['drained', async ({ registry }: Served) => await registry.drain({ overMs: 50 })]
] as const) {
  t.test(`after an instance was ${how}, another one lists all that may come back, also in groups that it had nobody in`, async t => {
    const options = { redis: redis.url, keyPrefix: `${how}:`, presenceGraceMs: 20_000 }
    const [a, b] = [await start(t, options), await start(t, options)]
    const [ann, bob] = [await enter(t, `${a.url}/lobby`, 'ann'), await enter(t, `${a.url}/lobby`, 'bob')]
    const nobody = await enter(t, `${a.url}/lobby`)
    const gone = await enter(t, `${a.url}/lobby`, 'gone')
    gone.raw.close(1000)
    await ann.nextOf('presence', { event: 'leave' })
    await stop(a)
    const back = await enter(t, `${b.url}/lobby`, 'ann', { session: ann.welcome.session })
    t.strictSame(namesIn(back.present).sort(), [...namesIn(nobody.present)].sort())
    const again = await enter(t, `${b.url}/lobby`, 'bob', { session: bob.welcome.session })
    t.strictSame(namesIn(again.present).sort(), namesIn(back.present).sort())
    await enter(t, `${b.url}/lobby`, 'cat')
    t.match(await back.nextOf('presence'), { event: 'join', member: { userId: 'cat' }, count: 4 }, 'who was there has not joined')
    t.equal(b.registry.stats().presenceAway, 1)
  })
}

t.test('when all links of an instance break at once, whoever is back first sees the others', async t => {
  const a = await start(t, { presenceGraceMs: 20_000 })
  const [ann, bob] = [await enter(t, `${a.url}/lobby`, 'ann'), await enter(t, `${a.url}/lobby`, 'bob')]
  const cat = await enter(t, `${a.url}/lobby`, 'cat')
  for (const { raw } of [ann, bob, cat]) raw.terminate()
  await until(() => a.registry.count() === 0)
  const back = await enter(t, `${a.url}/lobby`, 'cat', { session: cat.welcome.session })
  t.strictSame(namesIn(back.present).sort(), ['ann', 'bob', 'cat'])
})

t.test('after an outage everyone is told anew who is there', async t => {
  const proxy = await startProxy(t, redis.port)
  const a = await start(t, { redis: redis.url, keyPrefix: 'outage:' })
  const b = await start(t, { redis: proxy.url, keyPrefix: 'outage:' })
  const ann = await enter(t, `${a.url}/lobby`, 'ann')
  const bob = await enter(t, `${b.url}/lobby`, 'bob')
  await ann.nextOf('presence', { count: 2 })
  await proxy.refuse(true)
  proxy.cut()
  await until(() => b.app.registry.health().status === 'down')
  const cat = await enter(t, `${b.url}/lobby`, 'cat')
  t.strictSame(namesIn(cat.present).sort(), ['ann', 'bob', 'cat'], 'those who are here, and those who were there')
  t.match(await bob.nextOf('presence', { event: 'join' }), { member: { userId: 'cat' } }, 'and they are told')
  await enter(t, `${a.url}/lobby`, 'dan')
  await proxy.refuse(false)
  const { members } = await bob.nextOf('members')
  t.equal((members as Frame[]).length, 4)
})

t.test('what the others could not be told, or could not read, they learn when it is possible again', async t => {
  const users = ['a', 'b'].map(name => `${name}${process.hrtime.bigint()}`)
  for (const user of users) await redis.admin.call('ACL', 'SETUSER', user, 'on', 'nopass', '~*', '&*', '+@all')
  t.teardown(async () => await redis.admin.call('ACL', 'DELUSER', ...users))
  const may = async (user = '', right: string): Promise<unknown> => await redis.admin.call('ACL', 'SETUSER', user, right)
  const [a, b] = await Promise.all(users.map(async user => {
    return await start(t, { redis: redis.url.replace('//', `//${user}:x@`), keyPrefix: 'rights:' })
  })) as [Served, Served]
  const ann = await enter(t, `${a.url}/lobby`, 'ann')
  await may(users[1], '-publish')
  const bob = await enter(t, `${b.url}/lobby`, 'bob')
  t.strictSame(namesIn(bob.present).sort(), ['ann', 'bob'])
  t.strictSame(changesOf(ann), [])
  await may(users[1], '+publish')
  await listed(ann, ['ann', 'bob'])

  await may(users[0], '-hkeys')
  const raw = connect(t, `${b.url}/hall`, { protocols: ['bearer', 'raw'] })
  await raw.opened
  // Or the news of it comes when the others listen already.
  await until(async () => (await b.app.registry.members('hall')).length === 1)
  const cat = await enter(t, `${a.url}/hall`, 'cat')
  t.strictSame(namesIn(cat.present), ['cat'])
  await may(users[0], '+hkeys')
  await listed(cat, ['cat', 'raw'])
})

onBoth('a user is one member however many tabs and devices there are: joined once, and left once', async (t, a, b) => {
  const watcher = await enter(t, `${a.url}/lobby`, 'watcher')
  const first = await enter(t, `${a.url}/lobby`, 'ann')
  const second = await enter(t, `${b.url}/lobby`, 'ann')
  t.match((second.present.members as Frame[]).find(({ userId }) => userId === 'ann'), { connections: 2, info: { name: 'Ann' } })
  t.match(await watcher.nextOf('presence', { event: 'update' }), { count: 2, member: { userId: 'ann', connections: 2 } })
  t.match(await b.app.registry.presence('lobby'), [{ userId: 'ann', connections: 2 }, { userId: 'watcher', connections: 1 }])
  await first.raw.close(1000)
  await watcher.nextOf('presence', { event: 'update' })
  second.raw.terminate()
  const back = await enter(t, `${a.url}/lobby`, 'ann', { session: second.welcome.session })
  for (const { url } of [a, b]) await graceOver(t, `${url}/lobby`, watcher)
  await back.raw.close(1000)
  await watcher.nextOf('presence', { event: 'leave' })
  const changes = changesOf(watcher).filter(change => !change.startsWith('update'))
  t.strictSame(changes, ['join ann', ...twice('last'), 'leave ann'])
})

onBoth('of two tabs with one session, nobody is gone while one is there', async (t, a, b) => {
  const watcher = await enter(t, `${b.url}/lobby`, 'watcher')
  const tab = await enter(t, `${a.url}/lobby`, 'ann')
  const copies = [
    await enter(t, `${a.url}/lobby`, 'ann', { session: tab.welcome.session }),
    await enter(t, `${b.url}/lobby`, 'ann', { session: tab.welcome.session })
  ]
  for (const copy of copies) await copy.raw.close(1000)
  await until(async () => await a.app.registry.groupCount('lobby') === 2)
  await graceOver(t, `${b.url}/lobby`, watcher)
  t.strictSame(changesOf(watcher), ['join ann', 'join last', 'leave last'])
  await tab.raw.close(1000)
  await watcher.nextOf('presence', { event: 'leave' })
})

onBoth('what a connection shows of itself may change: others are told, newcomers see it', async (t, a, b) => {
  const watcher = await enter(t, `${a.url}/lobby`, 'watcher')
  const ann = await enter(t, `${b.url}/lobby`, 'ann')
  const connection = b.app.registry.get(String(ann.welcome.connectionId))
  if (connection === undefined) throw new Error('no connection')
  await connection.setInfo('busy' as never)
  t.match(await watcher.nextOf('presence', { event: 'update' }), { member: { userId: 'ann', info: 'busy' } })
  const late = await enter(t, `${a.url}/lobby`, 'late')
  t.match((late.present.members as Frame[]).find(({ userId }) => userId === 'ann'), { info: 'busy' })
  const second = await enter(t, `${a.url}/lobby`, 'ann')
  await watcher.nextOf('presence', { event: 'update' })
  await connection.setInfo('free' as never)
  t.match(await watcher.nextOf('presence', { event: 'update' }), { member: { info: 'free', connections: 2 } }, 'the latest counts')
  ann.send({ type: 'join', group: 'news', id: 1 })
  t.match(await ann.nextOf('members'), { group: 'news', members: [{ info: 'free' }] }, 'in groups that it joins later, too')
  await t.rejects(connection.setInfo(undefined as never), { code: 'WSG_DATA_INVALID' })
  await t.rejects(connection.setInfo('x'.repeat(1_024) as never), { code: 'WSG_MEMBER_INFO_TOO_LARGE' })
  await second.raw.close(1000)
  await ann.raw.close(1000)
  await watcher.nextOf('presence', { event: 'leave' })
  await t.rejects(connection.setInfo('late' as never), { code: 'WSG_CONNECTION_GONE' })
})

t.test('a list of people comes in pages', async t => {
  const { app, url } = await start(t, {})
  for (const user of ['dan', 'ann', 'cid', 'bob', 'eve', 'ann']) await enter(t, `${url}/lobby`, user)
  await enter(t, `${url}/lobby`)
  const pages: unknown[][] = []
  let cursor: string | undefined
  do {
    const page = await app.registry.presence('lobby', { limit: 2, cursor })
    pages.push(page.map(({ userId = 'nobody' }) => userId))
    cursor = page.cursor
  } while (cursor !== undefined)
  t.strictSame(pages, [['nobody', 'ann'], ['bob', 'cid'], ['dan', 'eve']])
  const first = await app.registry.presence('lobby', { limit: 3 })
  for (const userId of ['ann', 'bob']) await app.registry.disconnect({ userId })
  await enter(t, `${url}/lobby`, 'abe')
  await until(async () => await app.registry.groupCount('lobby') === 5)
  t.strictSame(
    (await app.registry.presence('lobby', { cursor: first.cursor })).map(({ userId }) => userId), ['cid', 'dan', 'eve'],
    'whoever came or went before it, and the last one of the page, shift nobody'
  )
  for (const options of [{ limit: 0 }, { limit: 10_001 }, { limit: 1.5 }, { cursor: '!' }, { cursor: '' }]) {
    await t.rejects(app.registry.presence('lobby', options), { code: 'WSG_OPTION_INVALID' })
  }
})

onBoth('where a group is too big for lists, its clients are told how many there are', async (t, a, b) => {
  const watcher = await openFramed(t, `${a.url}/counted/lobby`)
  t.match(await watcher.nextOf('count'), { group: 'counted', count: 1 })
  const before = performance.now()
  const others = await Promise.all(Array.from({ length: 20 }, async () => await openFramed(t, `${b.url}/counted/lobby`)))
  await watcher.nextOf('count', { count: 21 })
  const told = watcher.frames.filter(({ type }) => type === 'count').length
  t.ok(told <= 2 + (performance.now() - before) / 1_000, `${told} frames`)
  t.notOk(watcher.frames.some(({ type }) => type === 'presence' || type === 'members'))
  for (const other of others) other.raw.terminate()
  await watcher.nextOf('count', { count: 1 })
})

t.test('a client whose link breaks while its messages wait may come back as any other', async t => {
  const handling = gate()
  // The end of a socket that is not read shows when something is written to it.
  const { url, registry } = await serve(t, { presenceGraceMs: 60_000, maxQueuedMessages: 20, heartbeatIntervalMs: 300 }, app => {
    app.get('/', { websocket: true, preHandler: app.wsAuth() }, app.wsHandler({
      presence: true,
      async onConnect (connection) { await registry.join(connection, 'lobby') },
      async onMessage () { await handling.opened }
    }))
  })
  const ann = await enter(t, url, 'ann')
  const bob = await enter(t, url, 'bob')
  for (let n = 0; n < 300; n++) bob.send({ type: 'message', data: 'x' })
  await until(() => (registry.stats().socketsPaused ?? 0) > 0)
  bob.raw.terminate()
  await until(async () => await registry.groupCount('lobby') === 1)
  await enter(t, url, 'bob', { session: bob.welcome.session })
  await enter(t, url, 'dan')
  while (memberOf(await ann.nextOf('presence')).userId !== 'dan');
  t.strictSame(changesOf(ann), ['join bob', 'join dan'])
  handling.open()
})
