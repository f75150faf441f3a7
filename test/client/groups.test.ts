import t from 'tap'
import { until } from '../helpers/until.ts'
import { isOpen, left, message, position, recordedClient, scriptedServer, type Frame } from './scripted-server.ts'

const joined = (
  group: string, n?: number, more: object = {}
): Frame => ({ type: 'joined', group, ...n === undefined ? {} : { position: position(n) }, ...more })
const member = (
  name: string, connection = 1, joinedAt = connection
): object => ({ connectionId: `${name}-${connection}`, session: name, joinedAt })

t.test('messages come in order, with group and position, text and binary', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url)
  const peer = await server.peer(0)
  peer.send(joined('g', 0), message('g', 1), message('g', 2), { type: 'message', data: 'direct' }, {
    type: 'message', group: 'g', data: 'AP8Q', binary: true
  })
  await until(() => events.message.length === 4)
  t.strictSame(events.message, [
    { group: 'g', data: 'm1', position: position(1) },
    { group: 'g', data: 'm2', position: position(2) },
    { group: undefined, data: 'direct', position: undefined },
    { group: 'g', data: new Uint8Array([0, 255, 16]), position: undefined }
  ])
  t.strictSame(client.groups, ['g'])
  t.strictSame(client.positions, { g: position(2) })
})

t.test('after a break it resumes from what was handled last: message, position, joined or gap', async (t) => {
  const server = await scriptedServer(t)
  const { events } = recordedClient(t, server.url)
  const first = await server.peer(0)
  first.send(joined('a', 1), joined('b', 1), joined('c', 1), joined('d', 1), message('b', 2), {
    type: 'position', group: 'c', position: position(3)
  },
  { type: 'gap', group: 'd', reason: 'epoch', position: position(4) }, { type: 'message', data: 'end' })
  await until(() => events.message.length === 2)
  t.strictSame(events.gap.map(({ group, reason }) => [group, reason]), [['d', 'epoch']])
  first.ws.terminate()
  const second = await server.peer(1)
  t.strictSame(second.frames[0]?.resume, { a: position(1), b: position(2), c: position(3), d: position(4) })
})

t.test('a message to several groups is handled once when a break comes between its copies', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url)
  const first = await server.peer(0)
  first.send(joined('a', 0), joined('b', 0), { ...message('a', 1), copy: 'i:1' })
  await until(() => events.message.length === 1)
  first.ws.terminate()
  const second = await server.peer(1)
  t.strictSame(second.frames[0]?.resume, { a: position(1), b: position(0) })
  second.send(joined('a', 1, { recovered: true }), joined('b', 0, { recovered: true }), { ...message('b', 1), copy: 'i:1' }, {
    ...message('b', 2), copy: 'i:2'
  })
  await until(() => events.message.length === 2)
  t.strictSame(events.message.map(({ group, position: at }) => [group, at]), [['a', position(1)], ['b', position(2)]])
  second.ws.terminate()
  t.strictSame((await server.peer(2)).frames[0]?.resume, { a: position(1), b: position(2) })
  t.strictSame(client.positions, { a: position(1), b: position(2) })
})

t.test('a position is counted after the handlers ran', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url)
  const seen: Array<string | undefined> = []
  client.on('message', () => { seen.push(client.positions.g) })
  const peer = await server.peer(0)
  peer.send(joined('g', 0), message('g', 1), message('g', 2))
  await until(() => seen.length === 2)
  t.strictSame(seen, [position(0), position(1)])
})

t.test('recovered: false is a gap, once, with its reason; true is none', async (t) => {
  const server = await scriptedServer(t)
  const { events } = recordedClient(t, server.url, { positions: { good: position(1), bad: position(1), silent: position(1) } })
  const peer = await server.peer(0)
  peer.send(
    joined('good', 1, { recovered: true }), joined('bad', 7, { recovered: false, reason: 'trimmed' }), joined('silent', 9),
    joined('fresh', 3), message('bad', 8)
  )
  await until(() => events.message.length === 1)
  t.strictSame(events.gap, [
    { group: 'bad', reason: 'trimmed', position: position(7) },
    { group: 'silent', reason: 'unavailable', position: position(9) }
  ], 'a server that does not say what became of a position cannot have used it')
  t.strictSame(
    events.joined.map(({ group, recovered }) => [group, recovered]),
    [['good', true], ['bad', false], ['silent', undefined], ['fresh', undefined]]
  )
})

t.test('a second joined on one connection is not taken for another resume', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url)
  const peer = await server.peer(0)
  peer.send(joined('g', 1), message('g', 2), joined('g', 1))
  await until(() => events.joined.length === 2)
  t.strictSame(events.gap, [])
  t.strictSame(client.positions, { g: position(2) })
})

t.test('what comes twice is handed out once', async (t) => {
  const server = await scriptedServer(t)
  const { events } = recordedClient(t, server.url)
  const first = await server.peer(0)
  first.send(joined('g', 0), ...[1, 2, 3].map(n => message('g', n)))
  await until(() => events.message.length === 3)
  first.ws.terminate()
  const second = await server.peer(1)
  second.send(joined('g', 0, { recovered: true }), ...[1, 2, 3, 4].map(n => message('g', n)))
  await until(() => events.message.length === 4)
  t.strictSame(events.message.map(({ data }) => data), ['m1', 'm2', 'm3', 'm4'])
})

t.test('what it remembers of a group is bounded', async (t) => {
  const server = await scriptedServer(t)
  const { events } = recordedClient(t, server.url)
  const peer = await server.peer(0)
  peer.send(joined('g', 0), ...Array.from({ length: 1_000 }, (_, n) => message('g', n + 1)), message('g', 999), message('g', 1))
  await until(() => events.message.length >= 1_001)
  // 999 was among the latest 128 and is known; 1 is forgotten.
  t.equal(events.message.length, 1_001)
  t.equal(events.message.at(-1)?.data, 'm1')
})

t.test('frames of a connection that was given up are dropped', async (t) => {
  const server = await scriptedServer(t, {
    welcome: { pingMs: 30 },
    pong: false,
    // With the welcome: before the client can give up this connection, too.
    onFrame (peer, { type }) {
      if (type !== 'hello') return
      const [first] = server.peers
      if (peer === first) return peer.send(joined('g', 0), message('g', 1))
      first?.send(message('g', 2))
      peer.send(joined('g', 1, { recovered: true }), message('g', 3))
    }
  })
  const { events } = recordedClient(t, server.url)
  await until(() => events.message.some(({ data }) => data === 'm3'))
  t.strictSame(events.message.map(({ data }) => data), ['m1', 'm3'])
})

t.test('positions of an earlier client are offered, at most 100, those of joined groups last', async (t) => {
  const server = await scriptedServer(t)
  const positions = Object.fromEntries(Array.from({ length: 120 }, (_, n) => [`g${n}`, position(n)]))
  const { client } = recordedClient(t, server.url, { positions, session: 'earlier' })
  const joins = Array.from({ length: 20 }, (_, n) => client.join(`g${n}`))
  const peer = await server.peer(0)
  const { resume, session } = peer.frames[0] as Frame & { resume: Record<string, string> }
  t.equal(session, 'earlier')
  t.equal(Object.keys(resume).length, 100)
  t.notOk('g19' in resume)
  await Promise.all(joins)
  t.match(peer.frames.find(({ group }) => group === 'g19'), { type: 'join', since: position(19) })
})

t.test('positions that are none, from a storage that was tampered with say, are not offered', async (t) => {
  const server = await scriptedServer(t)
  recordedClient(t, server.url, { positions: { a: 'short', b: position(1), c: null as unknown as string } })
  t.strictSame((await server.peer(0)).frames[0]?.resume, { b: position(1) })
})

t.test('a group named __proto__ is a group like any other', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url)
  const first = await server.peer(0)
  first.send(joined('__proto__', 1), joined('constructor', 1), message('__proto__', 2))
  await until(() => events.message.length === 1)
  t.strictSame(Object.keys(client.positions), ['__proto__', 'constructor'])
  first.ws.terminate()
  const second = await server.peer(1)
  t.strictSame(Object.keys(second.frames[0]?.resume as object), ['__proto__', 'constructor'])
})

t.test('join resolves on the ack, is asked again on each connection, from where it got', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url)
  const early = client.join('g')
  t.equal(client.join('g'), early, 'one request for one group')
  const first = await server.peer(0)
  await early
  t.match(first.frames, [{ type: 'hello' }, { type: 'join', group: 'g', since: undefined }])
  await client.join('g')
  t.equal(first.frames.length, 2, 'it is in there already')
  first.send(joined('g', 4))
  await until(() => events.joined.length === 1)
  first.ws.terminate()
  const second = await server.peer(1)
  t.match(await second.got('join'), { group: 'g', since: position(4) })
  await isOpen(client)
  await client.join('h', { since: position(9) })
  t.match(second.frames.at(-1), { type: 'join', group: 'h', since: position(9) })
})

t.test('a second join of a member does not set it back to an earlier position', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url)
  await client.join('g')
  const peer = await server.peer(0)
  peer.send(joined('g', 1), message('g', 2), message('g', 3))
  await until(() => client.positions.g === position(3))
  await client.join('g', { since: position(1) })
  t.equal(client.positions.g, position(3))
})

t.test('a join that is not answered before the break is asked again, and resolves then', async (t) => {
  let answers = false
  const server = await scriptedServer(t, {
    ack: false,
    onFrame: (peer, { type, id }) => {
      if (type === 'join' && answers) {
        peer.send({ type: 'ack', id })
      }
    }
  })
  const { client } = recordedClient(t, server.url)
  const joining = client.join('g')
  const first = await server.peer(0)
  await first.got('join')
  answers = true
  first.ws.terminate()
  await joining
  t.equal(server.peers.length, 2)
})

t.test('a join that is refused rejects with the code, and is not asked again', async (t) => {
  const server = await scriptedServer(t, {
    ack: false,
    onFrame: (peer, { type, id }) => {
      if (type === 'join') {
        peer.send({ type: 'error', id, code: 'WSG_FORBIDDEN', message: 'no' })
      }
    }
  })
  const { client } = recordedClient(t, server.url)
  await t.rejects(client.join('g'), { code: 'WSG_FORBIDDEN' })
  const first = await server.peer(0)
  first.ws.terminate()
  const second = await server.peer(1)
  await isOpen(client)
  t.strictSame(second.frames.map(({ type }) => type), ['hello'])
})

t.test('joining again that is not possible now is tried again; that is refused, is told', async (t) => {
  let answer: object = {}
  const server = await scriptedServer(t, {
    ack: false,
    onFrame: (peer, { type, id }) => {
      if (type === 'join') {
        peer.send('code' in answer ? { type: 'error', id, ...answer } : { type: 'ack', id })
      }
    }
  })
  const { client, events } = recordedClient(t, server.url)
  await client.join('g')
  answer = { code: 'WSG_BACKPLANE_UNAVAILABLE', message: 'later' }
  server.peers[0]?.ws.terminate()
  await until(() => server.peers.length >= 3)
  answer = {}
  await until(() => client.state === 'open' && server.peers.at(-1)?.frames.some(({ type }) => type === 'join'))
  t.strictSame(events.error, [])
  answer = { code: 'WSG_FORBIDDEN', message: 'not any more' }
  server.peers.at(-1)?.ws.terminate()
  await until(() => events.error.length > 0)
  t.match(events.error, [{ code: 'WSG_FORBIDDEN', group: 'g' }])
})

t.test('leave: the group, its position and its members are forgotten, and not joined again', async (t) => {
  const server = await scriptedServer(t, {
    onFrame: (peer, { type, group }) => {
      if (type === 'leave') {
        peer.send({ type: 'left', group })
      }
    }
  })
  const { client, events } = recordedClient(t, server.url)
  await client.join('g')
  const first = await server.peer(0)
  first.send(joined('g', 1), { type: 'members', group: 'g', members: [member('ann')] })
  await until(() => client.members('g').length === 1)
  await client.leave('g')
  await until(() => events.left.length === 1)
  t.strictSame([client.groups, client.positions, client.members('g')], [[], {}, []])
  first.send(message('g', 2)) // was on its way
  await until(() => events.message.length === 1)
  t.strictSame(client.positions, {})
  first.ws.terminate()
  const second = await server.peer(1)
  await isOpen(client)
  t.strictSame(second.frames, [{ type: 'hello', session: 's1', resume: {}, grants: {} }])
})

t.test('the latest proof that it was in a group goes with the position of the group', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url)
  const first = await server.peer(0)
  first.send({ ...joined('g', 1), grant: 'proof-1' }, { ...joined('h', 1), grant: 'proof-h' }, joined('without', 1), message('g', 2))
  await until(() => events.message.length === 1)
  first.ws.terminate()
  const second = await server.peer(1)
  await isOpen(client)
  t.strictSame(second.frames, [{
    type: 'hello', session: 's1', resume: { g: position(2), h: position(1), without: position(1) }, grants: { g: 'proof-1', h: 'proof-h' }
  }])
  second.send({ ...joined('g', 2), recovered: true, grant: 'proof-2' }, { type: 'left', group: 'h' })
  await until(() => events.left.length === 1)
  second.ws.terminate()
  t.match((await server.peer(2)).frames, [{ resume: { g: position(2), without: position(1) }, grants: { g: 'proof-2' } }])
  t.notOk('h' in ((await server.peer(2)).frames[0] as unknown as { grants: object }).grants, 'it left')
})

t.test('a leave that is refused changes nothing', async (t) => {
  const server = await scriptedServer(t, {
    ack: false,
    onFrame: (peer, { type, id }) => {
      if (type === 'leave') {
        peer.send({ type: 'error', id, code: 'WSG_FORBIDDEN', message: 'no' })
      }
    }
  })
  const { client, events } = recordedClient(t, server.url)
  const peer = await server.peer(0)
  peer.send(joined('g', 1))
  await until(() => events.joined.length === 1)
  await t.rejects(client.leave('g'), { code: 'WSG_FORBIDDEN' })
  t.strictSame(client.positions, { g: position(1) })
})

t.test('a leave before the join is answered rejects the join; without a connection it is done at once', async (t) => {
  const server = await scriptedServer(t, { ack: false })
  const { client } = recordedClient(t, server.url)
  await server.peer(0)
  await isOpen(client)
  const joining = client.join('g')
  const leaving = client.leave('g')
  await t.rejects(joining, { code: 'LEFT', group: 'g' })
  const broken = left(client)
  server.peers[0]?.ws.terminate()
  await Promise.all([leaving, broken])
  client.join('h').catch(() => {})
  await client.leave('h')
  const second = await server.peer(1)
  await isOpen(client)
  t.strictSame(second.frames.map(({ type }) => type), ['hello'])
})

t.test('left by the server: not joined again', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url)
  await client.join('g')
  const first = await server.peer(0)
  first.send(joined('g', 1), { type: 'left', group: 'g' })
  await until(() => events.left.length === 1)
  first.ws.terminate()
  const second = await server.peer(1)
  await isOpen(client)
  t.strictSame(second.frames, [{ type: 'hello', session: 's1', resume: {}, grants: {} }])
})

t.test('presence: users, or sessions of nobody; a join of who is there is an update', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url)
  const peer = await server.peer(0)
  const user = (userId: string, more: object = {}): object => ({ userId, joinedAt: 1, connections: 1, ...more })
  const presence = (event: string, who: object): Frame => ({ type: 'presence', group: 'g', event, member: who, count: 2 })
  peer.send(
    joined('g', 0),
    { type: 'members', group: 'g', members: [user('ann'), { session: 'ann', joinedAt: 1, connections: 1 }] },
    presence('join', user('cid')),
    presence('join', user('ann')),
    presence('update', user('ann', { connections: 2 })),
    presence('update', user('ann', { connections: 2, info: 'busy' })),
    presence('leave', user('cid')),
    presence('leave', user('dan')), // never seen; the list may have been cut
    presence('update', user('eve', { info: 'new' })), // the same
    { type: 'count', group: 'g', count: 7 }
  )
  await until(() => events.count.length > 0)
  t.strictSame(events.presence.map(({ event, member: { userId } }) => `${event} ${userId}`), [
    'join cid', 'update ann', 'update ann', 'update ann', 'leave cid', 'leave dan', 'update eve'
  ])
  t.strictSame(client.members('g'), [
    user('ann', { connections: 2, info: 'busy' }), { session: 'ann', joinedAt: 1, connections: 1 }, user('eve', { info: 'new' })
  ])
  t.strictSame(events.count, [{ type: 'count', group: 'g', count: 7 }])
  t.strictSame(client.members('unheard of'), [])
})

t.test('a group that several parts of a page join is left when all of them left', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url)
  const peer = await server.peer(0)
  await Promise.all([client.join('g'), client.join('g')])
  t.equal(peer.frames.filter(({ type }) => type === 'join').length, 1)
  await client.leave('g')
  t.equal(peer.frames.filter(({ type }) => type === 'leave').length, 0)
  await client.leave('g')
  t.equal(peer.frames.filter(({ type }) => type === 'leave').length, 1)
})

t.test('lists of members are the same until they change, and those who subscribed are told', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url)
  const peer = await server.peer(0)
  let calls = 0
  const stop = client.subscribe(() => { calls++ })
  const user = (userId: string): object => ({ userId, joinedAt: 1, connections: 1 })
  peer.send(joined('g', 0), { type: 'members', group: 'g', members: [user('ann')] })
  await until(() => client.members('g').length === 1)
  const before = client.members('g')
  t.equal(client.members('g'), before)
  peer.send({ type: 'presence', group: 'g', event: 'join', member: user('bob'), count: 2 })
  await until(() => client.members('g') !== before)
  t.equal(client.members('g').length, 2)
  t.ok(calls >= 3, `${calls}`)
  stop()
  calls = 0
  peer.send({ type: 'presence', group: 'g', event: 'leave', member: user('bob'), count: 1 })
  await until(() => client.members('g').length === 1)
  t.equal(calls, 0)
})
