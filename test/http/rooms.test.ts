import t from 'tap'
import { MemoryBackplane } from '../../lib/backplane/memory/index.ts'
import { WebsocketGroupsError, type Identity, type RoomOptions } from '../../plugin.ts'
import { connect, upgradeStatus } from '../helpers/client.ts'
import { until } from '../helpers/until.ts'
import { service } from '../helpers/service.ts'

const users: Record<string, Identity> = { 'john-token': { userId: 'john', name: 'John' } }
const authenticate = (token: string): Identity | undefined => users[token]
const group = ({ room = '' }: Readonly<Record<string, string>>): string => room
const john = { protocols: ['bearer', 'john-token'] }

t.test('a room relays each message as it is to everyone in it, the sender included, and to nobody else', async t => {
  const { app, listen } = await service(t)
  app.wsRoom('/ws/:room', { auth: false })
  const url = await listen()
  const [a, b, other] = [connect(t, `${url}/ws/lobby`), connect(t, `${url}/ws/lobby`), connect(t, `${url}/ws/kitchen`)]
  await Promise.all([a, b, other].map(async client => await client.opened))
  await until(async () => await app.registry.groupCount('lobby') === 2 && await app.registry.groupCount('kitchen') === 1)
  a.send('text')
  b.send(Buffer.from([1, 2]))
  other.send('alone')
  for (const client of [a, b]) t.strictSame(new Set([await client.next(), await client.next()]), new Set(['text', Buffer.from([1, 2])]))
  t.equal(await other.next(), 'alone')
  await a.close()
  await until(async () => await app.registry.groupCount('lobby') === 1)
})

t.test('onJoin, onMessage and onLeave replace the steps, each with the group', async t => {
  const seen: unknown[] = []
  const { app, listen } = await service(t)
  app.wsRoom('/ws/:org/:room', {
    auth: false,
    group: params => `${params.org}:${params.room}`,
    async onJoin (connection, group, request) {
      seen.push(['join', group, connection.groups, request.params.room])
      await app.registry.broadcastToGroup(group, 'someone came')
    },
    async onMessage (connection, data, group) {
      await app.registry.broadcastToGroup(
        group, `${connection.params.org}: ${data.toString()}`
      )
    },
    async onLeave (connection, group) { seen.push(['leave', group, connection.closed, await app.registry.groupCount(group)]) }
  })
  const client = connect(t, `${await listen()}/ws/acme/lobby`)
  t.equal(await client.next(), 'someone came')
  client.send('hi')
  t.equal(await client.next(), 'acme: hi')
  await client.close()
  await until(() => seen.length === 2)
  t.strictSame(seen, [['join', 'acme:lobby', ['acme:lobby'], 'lobby'], ['leave', 'acme:lobby', true, 0]])
})

t.test('the group is the parameter called room, or the only one, also one of the prefix', async t => {
  for (const [prefix, route, path, group] of [
    ['', '/a/:org/:room', '/a/acme/one', 'one'], ['', '/b/:name', '/b/two', 'two'],
    ['', '/c/:kind-:room(^\\w+$)/x', '/c/red-three/x', 'three'],
    ['/d/:match', '/live', '/d/four/live', 'four']
  ] as const) {
    const { app, listen } = await service(t)
    await app.register(async scope => { scope.wsRoom(route, { auth: false }) }, { prefix })
    connect(t, await listen() + path)
    await until(async () => await app.registry.groupCount(group) === 1, { what: path })
  }
})

t.test('a path that names no group is refused when the room is added', async t => {
  const { app } = await service(t)
  for (const path of ['/ws', '/ws/:a/:b', '/ws/::room', '/ws/*']) {
    t.throws(
      () => app.wsRoom(path), { code: 'WSG_OPTION_INVALID', message: /parameter called room, or only one, or the option group/ }, path
    )
  }
  t.doesNotThrow(() => app.wsRoom('/fixed', { auth: false, group: () => 'fixed' }))
})

t.test('wrong options are refused when the room is added', async t => {
  const { app } = await service(t)
  const wrong: ReadonlyArray<readonly [object, RegExp]> = [
    [{ onOpen () {} }, /no option wsRoom\('\/ws\/:room'\)\.onOpen/],
    [{ onJoin: 'x' }, /\.onJoin must be a function, got 'x'/],
    [{ auth: 'yes' }, /\.auth must be true, false or an object/],
    [{ preHandler: [1] }, /\.preHandler must be a function or an array/],
    [{ schema: true }, /\.schema must be an object/],
    [{ auth: true }, /needs `authenticate`/],
    [{ auth: { required: 1 }, group: () => 'x' }, /wsAuth\.required must be/]
  ]
  for (const [room, message] of wrong) t.throws(() => app.wsRoom('/ws/:room', room as RoomOptions), { code: 'WSG_OPTION_INVALID', message })
})

t.test('a group name or params that are no good are a plain HTTP 400', async t => {
  const { app, listen } = await service(t)
  app.wsRoom('/ws/:room', { auth: false, group: ({ room }) => room })
  app.wsRoom('/numbered/:room', {
    auth: false,
    group: ({ room }) => `n:${room}`,
    schema: { params: { type: 'object', properties: { room: { type: 'string', pattern: '^[0-9]+$' } } } }
  })
  app.wsRoom('/computed/:room', { auth: false, group: () => undefined as unknown as string })
  const url = await listen()
  for (const path of ['/ws/a%00b', '/ws/%0a', '/computed/x']) {
    const { statusCode, headers, body } = await upgradeStatus(url + path)
    t.equal(statusCode, 400, path)
    t.match(headers['content-type'], /^application\/json/)
    t.match(JSON.parse(body), { statusCode: 400, code: 'WSG_GROUP_NAME_INVALID', error: 'Bad Request' })
  }
  t.equal((await upgradeStatus(`${url}/numbered/abc`)).statusCode, 400)
  t.equal((await upgradeStatus(`${url}/numbered/123`)).statusCode, 101)
  t.equal((await upgradeStatus(`${url}/ws/a%2Fb%20%C3%A9`)).statusCode, 101)
})

t.test('a room is guarded as soon as the plugin can authenticate, unless it says otherwise', async t => {
  const { app, listen } = await service(t, {
    authenticate,
    rooms: { '/guarded/:room': { group }, '/open/:room': { auth: false, group }, '/own/:room': { auth: { query: 'token' }, group } }
  })
  app.wsRoom('/strict/:room', { group, auth: { authorize: () => false } })
  app.wsRoom('/named/:room', { auth: true, group: (params, identity) => `${identity.userId ?? ''}:${params.room}` })
  const url = await listen()
  t.equal((await upgradeStatus(`${url}/guarded/x`)).statusCode, 401)
  t.equal((await upgradeStatus(`${url}/guarded/x`, john)).statusCode, 101)
  t.equal((await upgradeStatus(`${url}/open/x`)).statusCode, 101)
  t.equal((await upgradeStatus(`${url}/own/x`)).statusCode, 401)
  t.equal((await upgradeStatus(`${url}/own/x?token=john-token`)).statusCode, 101)
  t.equal((await upgradeStatus(`${url}/strict/x`, john)).statusCode, 403)
  connect(t, `${url}/named/x`, john)
  await until(async () => await app.registry.groupCount('john:x') === 1)
})

t.test('preHandlers of the user run after authentication and before the upgrade', async t => {
  const { app, listen } = await service(t, { authenticate })
  app.wsRoom('/ws/:room', {
    preHandler: [async (request, reply) => {
      if (request.identity?.userId === 'john') await reply.code(429).send({ slow: 'down' })
    }]
  })
  const url = await listen()
  t.match(await upgradeStatus(`${url}/ws/x`, john), { statusCode: 429, body: '{"slow":"down"}' })
})

t.test('a connection whose join fails because the backplane is out is closed with 1013, and never left', async t => {
  class BrokenBackplane extends MemoryBackplane {
    override async subscribe (): Promise<void> { throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE') }
  }
  let left = 0
  const { app, listen } = await service(t, { backplane: new BrokenBackplane(), outage: { join: 'reject' } })
  app.wsRoom('/ws/:room', { auth: false, onLeave () { left++ } })
  const client = connect(t, `${await listen()}/ws/x`)
  t.strictSame(await client.closed, { code: 1013, reason: 'temporarily unavailable' })
  await until(() => app.registry.count() === 0)
  t.equal(left, 0)
})

t.test('an onJoin that throws closes with 1011, and the room is left', async t => {
  let left = 0
  const { app, listen } = await service(t)
  app.wsRoom('/ws/:room', { auth: false, onJoin () { throw new Error('no') }, onLeave () { left++ } })
  t.match(await connect(t, `${await listen()}/ws/x`).closed, { code: 1011 })
  await until(() => left === 1)
  t.equal(await app.registry.groupCount('x'), 0)
})

t.test('onError of a room decides as that of a handler does', async t => {
  const { app, listen } = await service(t)
  app.wsRoom('/ws/:room', {
    auth: false,
    onMessage (connection, data) {
      if (data === 'bad') throw new Error('bad')
      connection.send(data)
    },
    onError: () => true
  })
  const client = connect(t, `${await listen()}/ws/x`)
  await client.opened
  client.send('bad')
  client.send('good')
  t.equal(await client.next(), 'good')
})
