import t from 'tap'
import { watchMachine } from '../../helpers/machine.ts'
import { until } from '../../helpers/until.ts'
import { connect } from '../../helpers/client.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { serve } from '../../helpers/service.ts'
import { openFramed, type FramedClient } from './framed-client.ts'

noUnhandled(t)
const machine = watchMachine(t)

t.test('requests of each kind beyond their rate wait, and are answered in their order', async t => {
  const rate = { perSecond: 5, burst: 5 }
  for (const [limits, request] of [
    [{ requests: rate }, (id: number) => ({ type: 'join', group: `g${id}`, id })],
    [{ requests: rate }, (id: number) => ({ type: 'leave', group: `g${id}`, id })],
    [{ tokens: rate }, (id: number, token: string) => ({ type: 'token', token, id })]
  ] as const) {
    const { url, app } = await serve(t, { limits }, app => app.wsRoom('/:room', { mayJoin: () => true }))
    const client = await openFramed(t, `${url}/lobby`, { token: 'ann' })
    const other = await openFramed(t, `${url}/lobby`, { token: 'bob' })
    const began = performance.now()
    for (let id = 1; id <= 10; id++) client.send(request(id, 'ann'))
    other.send(request(1, 'bob'))
    await other.nextOf('ack', { id: 1 })
    for (let id = 1; id <= 10; id++) await client.nextOf('ack', { id })
    t.ok(performance.now() - began > 800, 'five of them waited a fifth of a second each')
    t.ok(Number(app.registry.stats().requestsDelayed) >= 4)
  }
})

t.test('messages do not count as requests', async t => {
  const limits = { requests: { perSecond: 1 } }
  const { url, app } = await serve(t, { limits }, app => app.wsRoom('/:room', { auth: false }))
  const client = await openFramed(t, `${url}/lobby`)
  for (let id = 1; id <= 50; id++) client.send({ type: 'message', data: 'x', id })
  for (let id = 1; id <= 50; id++) await client.nextOf('ack', { id })
  t.equal(app.registry.stats().requestsDelayed, 0)
})

t.test('a frame that takes long to parse counts for many messages', async t => {
  const limits = { messages: { perSecond: 100, burst: 600 } }
  const { url, app } = await serve(t, { limits }, app => app.wsRoom('/:room', { auth: false }))
  const client = await openFramed(t, `${url}/lobby`)
  const frame = { type: 'ping', unknown: Array.from({ length: 10_000 }, () => 0) }
  client.send(frame)
  await client.nextOf('pong')
  t.equal(app.registry.stats().pauses, 0, '500 messages are within the burst')
  client.send(frame)
  await client.nextOf('pong')
  t.equal(app.registry.stats().pauses, 1)
})

t.test('a client that leaves while its request waits holds up nothing', async t => {
  const { url, app } = await serve(t, { limits: { tokens: { perSecond: 1 } } }, app => app.wsRoom('/:room'))
  const client = await openFramed(t, `${url}/lobby`, { token: 'ann' })
  for (let id = 1; id <= 3; id++) client.send({ type: 'token', token: 'ann', id })
  await client.nextOf('ack', { id: 1 })
  const began = performance.now()
  client.raw.terminate()
  await until(() => app.registry.stats().connectionsClosed === 1)
  machine.within(t, performance.now() - began, 900, 'sooner than the request may go on')
})

t.test('a user cannot make up more groups than newGroupsPerMinute; groups that others are in already do not count', async t => {
  const { url, app } = await serve(t, { limits: { newGroupsPerMinute: 5 } }, app => app.wsRoom('/:room', { mayJoin: () => true }))
  const bob = await openFramed(t, `${url}/lobby`, { token: 'bob' })
  bob.send({ type: 'join', group: 'shared', id: 1 })
  await bob.nextOf('ack', { id: 1 })
  const ann = await openFramed(t, `${url}/lobby`, { token: 'ann' })
  for (let id = 1; id <= 6; id++) ann.send({ type: 'join', group: `made-up-${id}`, id })
  for (let id = 1; id <= 5; id++) await ann.nextOf('ack', { id })
  t.match(await ann.nextOf('error', { id: 6 }), { code: 'WSG_RATE_LIMITED' })
  ann.send({ type: 'join', group: 'shared', id: 7 })
  await ann.nextOf('ack', { id: 7 })
  const again = connect(t, `${url}/another`, { headers: { authorization: 'Bearer ann' } })
  t.match(await again.closed, { code: 1013 }, 'with another connection neither')
  t.equal(app.registry.stats().newGroupsRefused, 2)
})

t.test('a user cannot fill any number of logs; who talks much in few rooms is not held up', async t => {
  const limits = { storedBytes: { perSecond: 1, burst: 10_000 } }
  const { url, app } = await serve(t, { limits, log: { maxMessages: 100, maxBytes: 3_000, ttlMs: 60_000 } }, app => app.wsRoom('/:room'))
  const enter = async (room: string, token = 'ann'): Promise<FramedClient> => await openFramed(t, `${url}/${room}`, { token })
  const send = async (client: FramedClient, bytes: number, id: number, type = 'ack'): Promise<unknown> => {
    client.send({ type: 'message', data: 'x'.repeat(bytes), id })
    return await client.nextOf(type, { id })
  }
  const rooms = [await enter('1'), await enter('2'), await enter('3')]
  for (const room of rooms) for (let id = 1; id <= 5; id++) await send(room, 2_000, id)
  const [fourth, raw] = [await enter('4'), connect(t, `${url}/5`, { headers: { authorization: 'Bearer ann' } })]
  t.match(await send(fourth, 2_000, 1, 'error'), { code: 'WSG_RATE_LIMITED' })
  await raw.opened
  raw.send('x'.repeat(2_000))
  await until(() => app.registry.stats().storedBytesRefused === 2)
  await send(fourth, 500, 2)
  await send(rooms[0] as FramedClient, 2_000, 6)
  await send(await enter('4', 'bob'), 2_000, 1)
  t.equal(app.registry.stats().storedBytesRefused, 2)
  t.equal(app.registry.stats().connections, 6, 'nobody is closed')
})

t.test('nobody crowds the others out of a list of members, and a list has a size', async t => {
  const limits = { presenceBytes: 1_900 }
  const memberInfo = (): string => 'x'.repeat(300)
  const { url, app } = await serve(t, { limits, memberInfo }, app => app.wsRoom('/:room', { presence: true }))
  const crowd = []
  for (let n = 0; n < 8; n++) crowd.push(await openFramed(t, `${url}/lobby`, { token: 'crowd' }))
  for (const token of ['ann', 'bob']) await openFramed(t, `${url}/lobby`, { token })
  await until(async () => await app.registry.groupCount('lobby') === 10)
  const users = async (token: string): Promise<string[]> => {
    const client = await openFramed(t, `${url}/lobby`, { token })
    const { members } = await client.nextOf('members') as unknown as { members: ReadonlyArray<{ readonly userId: string }> }
    t.ok(JSON.stringify(members).length <= 1_902)
    return members.map(({ userId }) => userId).sort()
  }
  t.strictSame(await users('cid'), ['ann', 'bob', 'cid', 'crowd'])
  for (const token of ['dan', 'eve']) await users(token)
  t.equal((await users('fay')).length, 5, 'fay does not fit any more')
  t.ok(Number(app.registry.stats().memberEntriesLeftOut) >= 3)
})
