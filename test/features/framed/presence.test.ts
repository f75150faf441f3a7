import t, { type Test } from 'tap'
import { memoryCluster, type WebsocketGroupsOptions } from '../../../plugin.ts'
import { connect } from '../../helpers/client.ts'
import { watchMachine } from '../../helpers/machine.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { startRedis } from '../../helpers/redis.ts'
import { serve, type Served } from '../../helpers/service.ts'
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
    app.wsRoom('/quiet/:room', { auth: false, group: ({ room }) => room })
  })
}

/** Two instances, on each kind of backplane. */
function onBoth (name: string, run: (t: Test, a: Served, b: Served) => Promise<void>): void {
  t.test(`${name} (memory)`, async t => {
    const cluster = memoryCluster()
    await run(t, await start(t, { backplane: cluster.backplane() }), await start(t, { backplane: cluster.backplane() }))
  })
  t.test(`${name} (redis)`, async t => {
    const options = { redis: redis.url, keyPrefix: `${name.length}${process.hrtime.bigint()}:` }
    await run(t, await start(t, options), await start(t, options))
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

const sessionsIn = (frame: Frame): unknown[] => (frame.members as Frame[]).map(({ session }) => session)
const memberOf = (frame: Frame): Frame => frame.member as Frame
const twice = (user: string): string[] => [`join ${user}`, `leave ${user}`, `join ${user}`, `leave ${user}`]
const changesOf = (client: FramedClient): string[] => client.frames.filter(({ type }) => type === 'presence').map(
  frame => `${String(frame.event)} ${String(memberOf(frame).userId)}`
)

onBoth('members are listed, and joins and leaves are told to all others', async (t, a, b) => {
  const ann = await enter(t, `${a.url}/lobby`, 'ann')
  t.match(ann.present, {
    group: 'lobby', members: [{ connectionId: ann.welcome.connectionId, userId: 'ann', info: { name: 'Ann' }, joinedAt: Number }]
  })
  t.not(sessionsIn(ann.present)[0], ann.welcome.session, 'what proves that a client is back is told to nobody else')

  const bob = await enter(t, `${b.url}/lobby`, 'bob')
  t.strictSame((bob.present.members as Frame[]).map(({ userId }) => userId).sort(), ['ann', 'bob'])
  const joined = await ann.nextOf('presence')
  t.match(joined, { group: 'lobby', event: 'join', count: 2, member: { connectionId: bob.welcome.connectionId, userId: 'bob' } })
  t.notOk('back' in joined || 'instanceId' in memberOf(joined))

  const raw = connect(t, `${a.url}/lobby`)
  for (const client of [ann, bob]) {
    const { member, count } = await client.nextOf('presence', { event: 'join' })
    t.equal(count, 3)
    t.equal((member as Frame).session, (member as Frame).connectionId, 'a raw client has no session but its connection')
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
  t.equal(sessionsIn(dan.present).length, 4, 'until then it is listed')
  t.equal((await ann.nextOf('presence')).count, 4)

  for (const client of [ann, cat, dan]) {
    const left = await client.nextOf('presence', { event: 'leave' })
    t.match(left, { count: 3, member: { userId: 'bob', connectionId: bob.welcome.connectionId } })
  }
  t.ok(performance.now() - broke >= graceMs)
})

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
  t.equal(new Set(sessionsIn(back.present)).size, 3)
  for (const client of [ann, cat]) {
    t.match(await client.nextOf('presence'), {
      event: 'join', back: true, count: 3, member: { userId: 'bob', connectionId: back.welcome.connectionId }
    })
  }
  for (const { url } of [a, b]) await graceOver(t, `${url}/lobby`, cat)
  t.strictSame(changesOf(cat), ['join bob', 'join bob', ...twice('last')])
})

onBoth('a client that is back before its old socket is known to be dead did not leave when that is noticed', async (t, a, b) => {
  const ann = await enter(t, `${a.url}/lobby`, 'ann')
  const old = await enter(t, `${a.url}/lobby`, 'bob')
  const back = await enter(t, `${b.url}/lobby`, 'bob', { session: old.welcome.session })
  t.equal(sessionsIn(back.present).length, 2, 'listed once, although it has two connections for a while')
  t.equal((back.present.members as Frame[]).find(({ userId }) => userId === 'bob')?.connectionId, back.welcome.connectionId)
  await ann.nextOf('presence', { count: 3 })
  old.raw.terminate()
  await until(async () => await a.app.registry.groupCount('lobby') === 2)
  for (const { url } of [a, b]) await graceOver(t, `${url}/lobby`, ann)
  t.strictSame(changesOf(ann), ['join bob', 'join bob', ...twice('last')])
})

onBoth('an instance that shuts down leaves it to the others to wait for its clients', async (t, a, b) => {
  const ann = await enter(t, `${a.url}/lobby`, 'ann')
  const bob = await enter(t, `${b.url}/lobby`, 'bob')
  const cat = await enter(t, `${b.url}/lobby`, 'cat')
  await ann.nextOf('presence', { count: 3 })
  await b.app.close()
  await bob.raw.closed
  const back = await enter(t, `${a.url}/lobby`, 'bob', { session: bob.welcome.session })
  t.equal(sessionsIn(back.present).length, 3)
  t.match(await ann.nextOf('presence'), { event: 'join', back: true, member: { userId: 'bob' } })
  t.match(await ann.nextOf('presence'), { event: 'leave', count: 2, member: { userId: 'cat', connectionId: cat.welcome.connectionId } })
})

onBoth('groups that a client joins by itself have presence too, other routes have none', async (t, a, b) => {
  const ann = await enter(t, `${a.url}/lobby`, 'ann')
  ann.send({ type: 'join', group: 'news', id: 1 })
  t.match(await ann.nextOf('members'), { group: 'news' })
  const bob = await enter(t, `${b.url}/news`, 'bob')
  t.match(await ann.nextOf('presence'), { group: 'news', event: 'join', count: 2 })

  const quiet = await openFramed(t, `${b.url}/quiet/news`)
  await quiet.nextOf('joined')
  bob.raw.terminate()
  t.match(await ann.nextOf('presence'), { group: 'news', event: 'leave', count: 2 })
  t.notOk(quiet.frames.some(({ type }) => type === 'members' || type === 'presence'))
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
  t.match(await ann.nextOf('presence'), { event: 'join', member: { userId: 'bob' } })
  const { members } = await ann.nextOf('members')
  t.strictSame(
    (members as Frame[]).map(({ connectionId }) => connectionId).sort(), [ann, back].map(({ welcome }) => welcome.connectionId).sort()
  )
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
  t.equal(sessionsIn(cat.present).length, 2, 'those who are here')
  t.match(await bob.nextOf('presence'), { event: 'join', count: -1, member: { userId: 'cat' } }, 'and they are told')
  await enter(t, `${a.url}/lobby`, 'dan')
  await proxy.refuse(false)
  const { members } = await bob.nextOf('members')
  t.equal((members as Frame[]).length, 4)
})
