import t, { type Test } from 'tap'
import { LocalConnection } from '../../../lib/connection/connection.ts'
import { Hub } from '../../../lib/hub/hub.ts'
import { LocalMember } from '../../../lib/hub/local-member.ts'
import { formatPosition } from '../../../lib/backplane/position.ts'
import { connect } from '../../helpers/client.ts'
import { messageEnvelope } from '../../helpers/envelopes.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { serve, type Served } from '../../helpers/service.ts'
import { until } from '../../helpers/until.ts'
import { openFramed } from './framed-client.ts'

noUnhandled(t)

const position = { epoch: '12345678', offset: 7, nonce: 9 }
const envelope = messageEnvelope('text', { position })

function find ({ app }: Served, id: unknown): LocalConnection {
  const connection = app.registry.get(String(id))
  if (!(connection instanceof LocalConnection)) throw new Error(`no connection ${String(id)}`)
  return connection
}

/** The members that hubs take in from now on, as they come. */
function joinedMembers (t: Test): LocalMember[] {
  const joined: LocalMember[] = []
  const { join } = Hub.prototype
  t.capture(Hub.prototype, 'join', function (this: Hub, ...args: Parameters<typeof join>) {
    const member = join.apply(this, args)
    joined.push(member)
    return member
  })
  return joined
}

t.test('what is announced is a frame to those who speak the protocol, and nothing to others', async t => {
  const served = await serve(t, {}, app => app.wsRoom('/:room', { auth: false, onJoin: connection => { connection.send(connection.id) } }))
  const framed = await openFramed(t, `${served.url}/lobby`)
  const raw = connect(t, `${served.url}/lobby`)
  const rawId = await raw.next()
  await framed.nextOf('message')
  for (const connection of [find(served, framed.welcome.connectionId), find(served, rawId)]) {
    const member = new LocalMember(connection, 'lobby', { connectionId: connection.id, instanceId: '', joinedAt: 0 })
    connection.announce({ type: 'joined', group: 'g', recovered: false, reason: 'trimmed', position: 'p' })
    connection.announce({ type: 'left', group: 'g' })
    member.gap({ reason: 'rewound', position, epoch: position.epoch })
    member.passOver(envelope)
    connection.announce({ type: 'reconnect', afterMs: 5 })
    t.ok(member.deliver(envelope))
    t.ok(member.deliver({ ...envelope, binary: true }))
    t.notOk(member.deliver({ ...envelope, except: [connection.id] }))
    t.ok(connection.send('end'))
  }
  const at = formatPosition(position)
  for (const frame of [
    { type: 'joined', group: 'g', recovered: false, reason: 'trimmed', position: 'p' },
    { type: 'left', group: 'g' },
    { type: 'gap', group: 'lobby', reason: 'rewound', position: at },
    { type: 'position', group: 'lobby', position: at },
    { type: 'reconnect', afterMs: 5 },
    { type: 'message', group: 'lobby', position: at, data: 'text' },
    { type: 'message', group: 'lobby', position: at, data: 'dGV4dA==', binary: true },
    { type: 'position', group: 'lobby', position: at },
    { type: 'message', data: 'end' }
  ]) t.strictSame(await framed.next(), frame)
  t.strictSame([await raw.next(), await raw.next(), await raw.next()], ['text', Buffer.from('text'), 'end'])
})

t.test('a message after a gap does not reach a connection that its onGap took out of the group', async t => {
  const joined = joinedMembers(t)
  let leaves = true
  const { app, url } = await serve(t, {}, app => app.wsRoom('/:room', {
    auth: false,
    onJoin: connection => { connection.send('in') },
    onGap: async (connection, group) => { if (leaves) await app.registry.leave(connection, group) }
  }))
  for (const last of ['end', 'late']) {
    const raw = connect(t, `${url}/lobby`)
    t.equal(await raw.next(), 'in')
    const member = joined.at(-1)
    if (member === undefined) throw new Error('nobody joined')
    // The client claimed to be in a log that could not be read, and the next message is of another one.
    member.startHold()
    member.releaseHold({ position, epoch: position.epoch, told: false, behind: position })
    await app.registry.broadcastToGroup('lobby', 'late')
    member.connection.send('end')
    t.equal(await raw.next(), last)
    leaves = false
  }
})

t.test('a message after a gap does not reach twice who leaves and joins anew in onGap', async t => {
  const joined = joinedMembers(t)
  const { app, url } = await serve(t, {}, app => app.wsRoom('/:room', {
    auth: false,
    onJoin: connection => { connection.send('in') },
    onGap: async (connection, group) => {
      await Promise.all([app.registry.leave(connection, group), app.registry.join(connection, group)])
      connection.send('again')
    }
  }))
  const raw = connect(t, `${url}/lobby`)
  t.equal(await raw.next(), 'in')
  const other = connect(t, `${url}/lobby`)
  t.equal(await other.next(), 'in')
  const [member] = joined
  if (member === undefined) throw new Error('nobody joined')
  member.startHold()
  member.releaseHold({ position, epoch: position.epoch, told: false, behind: position })
  await app.registry.broadcastToGroup('lobby', 'late')
  await app.registry.broadcastToGroup('lobby', 'end')
  const got: unknown[] = []
  while (got.at(-1) !== 'end') got.push(await raw.next())
  t.equal(got.filter(text => text === 'late').length, 1)
})

t.test('live messages of a volatile group are kept back while older ones are sent, up to a limit', async t => {
  const joined = joinedMembers(t)
  const served = await serve(t, { log: false }, app => app.wsRoom('/:room', { auth: false, mayJoin: () => true }))
  const { registry } = served.app
  const client = await openFramed(t, `${served.url}/lobby`)
  client.send({ type: 'join', group: 'other', id: 1 })
  await client.nextOf('ack')
  const connection = find(served, client.welcome.connectionId)
  const inLobby = joined.find(({ group }) => group === 'lobby')
  if (inLobby === undefined) throw new Error('not in the lobby')
  const holdback = inLobby.startHold()
  await registry.broadcastToGroup('lobby', '1')
  await registry.broadcastToGroup('lobby', '2', { except: connection })
  await registry.broadcastToGroup('other', '3')
  await registry.broadcastToAll('4')
  t.match([await client.next(), await client.next()], [{ group: 'other', data: '3' }, { data: '4' }])
  t.strictSame(
    holdback.waiting.map(news => 'payload' in news && news.payload.toString()), ['1', '2'],
    'what is not for it waits too: it moves the position'
  )
  for (let n = 3; n <= 1_000; n++) await registry.broadcastToGroup('lobby', String(n))
  await until(() => holdback.waiting.length === 1_000)
  t.equal(connection.closed, false)
  await registry.broadcastToGroup('lobby', 'one too many')
  await until(() => registry.stats().framesDropped === 1)
  t.equal(connection.closed, false, 'a message without a log may be left out')
  t.equal(holdback.waiting.length, 1_000)
})

t.test('a client that reads too slowly is closed with 4008', async t => {
  const served = await serve(t, { maxBufferedBytes: 100_000 }, app => app.wsRoom('/:room', { auth: false }))
  const client = await openFramed(t, `${served.url}/lobby`)
  await client.nextOf('joined')
  client.raw.ws.pause()
  const connection = find(served, client.welcome.connectionId)
  await until(async () => {
    await served.app.registry.broadcastToGroup('lobby', 'x'.repeat(500_000))
    return connection.closed
  })
  t.equal(served.app.registry.stats().slowConsumersClosed, 1)
  client.raw.ws.resume()
  t.equal((await client.raw.closed).code, 4008)
})

t.test('every message is encoded once, however many get it', async t => {
  const served = await serve(t, {}, app => app.wsRoom('/:room', { auth: false }))
  const clients = await Promise.all(Array.from({ length: 20 }, async () => await openFramed(t, `${served.url}/lobby`)))
  for (const client of clients) await client.nextOf('joined')
  const { stringify } = JSON
  let encoded = 0
  JSON.stringify = ((value: { type?: string }) => {
    if (value?.type === 'message') encoded++
    return stringify(value)
  }) as typeof stringify
  t.teardown(() => { JSON.stringify = stringify })
  await served.app.registry.broadcastToGroup('lobby', 'x')
  for (const client of clients) await client.nextOf('message')
  t.equal(encoded, 1)
})

t.test('after an onGap took the connection out of the group, nothing of the group is given to it', async t => {
  const { url, app: { registry } } = await serve(t, { log: { maxMessages: 3, ttlMs: 60_000 } }, app => {
    app.get('/', { websocket: true }, app.wsHandler({
      onMessage () {},
      async onGap (connection, group) { await registry.leave(connection, group) }
    }))
  })
  const client = await openFramed(t, url)
  await until(() => registry.count() === 1)
  const { position } = await registry.broadcastToGroup('lobby', 'first')
  for (let n = 1; n <= 5; n++) await registry.broadcastToGroup('lobby', `message ${n}`)
  await registry.join(String(client.welcome.connectionId), 'lobby', { since: position, history: 2 })
  await client.nextOf('left')
  t.strictSame(client.frames.map(({ type }) => type), ['welcome', 'joined', 'left'])
})
