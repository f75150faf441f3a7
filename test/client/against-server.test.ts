import t, { type Test } from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import type { WebsocketGroupsOptions } from '../../plugin.ts'
import { onEachBackplane } from '../helpers/app.ts'
import { connect } from '../helpers/client.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { line, serveRoom, type Instance, type Room } from './instances.ts'
import { isOpen, left, recordedClient, type Recorded } from './scripted-server.ts'

noUnhandled(t)
const machine = watchMachine(t)
const redis = await startRedis(t)

/** With two instances, on each kind of backplane. */
function onBoth (
  name: string, run: (t: Test, a: Instance, b: Instance) => Promise<void>, room: Room = () => ({}), options: WebsocketGroupsOptions = {}
): void {
  onEachBackplane(t, redis, name, async (t, here) => {
    await run(t, await serveRoom(t, { ...here(), ...options }, room), await serveRoom(t, { ...here(), ...options }, room))
  })
}

const graceMs = 2_000
/** What onMessage is at. */
let handling = ''
/** How often the client was told that it is in the group. A client with a token is told of the log of its user as well. */
const timesIn = (name: string, { joined }: Recorded): number => joined.filter(({ group }) => group === name).length
const numbers = (count: number): number[] => Array.from({ length: count }, (_, index) => index + 1)

onBoth('a client that breaks and comes back to the other instance misses nothing', async (t, a, b) => {
  const wire = line(a.port)
  const { client, events } = recordedClient(t, a.url('lobby'), { WebSocket: wire.WebSocket })
  await until(() => events.joined.length === 1)
  const id = client.connectionId
  await a.app.registry.broadcastToGroup('lobby', '1')
  await until(() => events.message.length === 1)
  wire.to(b.port)
  wire.cut()
  for (let n = 2; n <= 50; n++) await a.app.registry.broadcastToGroup('lobby', n === 7 ? Buffer.from('7') : String(n))
  await until(() => events.message.length === 50)
  t.strictSame(events.message.map(({ data }) => Number(typeof data === 'string' ? data : Buffer.from(data).toString())), numbers(50))
  t.match(events.joined[1], { group: 'lobby', recovered: true })
  t.strictSame(events.gap, [])
  t.not(client.connectionId, id)
})

onBoth('exactly once and in order under repeated cuts, in a group of the route and one that the client joined', async (t, a, b) => {
  const total = 600
  const wire = line(a.port)
  const { client, events } = recordedClient(t, a.url('lobby'), { WebSocket: wire.WebSocket, backoff: { minMs: 30, maxMs: 60 } })
  await client.join('news')
  await until(() => events.joined.length === 2)
  const publishing = new AbortController()
  const publish = async ({ app }: Instance, group: string): Promise<void> => {
    for (let n = 1; n <= total; n++) {
      await app.registry.broadcastToGroup(group, String(n))
      if (n % 3 === 0) await sleep(10)
    }
  }
  const cutting = (async () => {
    for (let n = 0; !publishing.signal.aborted; n++) {
      await sleep(40 + Math.random() * 150)
      wire.to(n % 2 === 0 ? b.port : a.port)
      wire.cut()
    }
  })()
  await Promise.all([publish(a, 'lobby'), publish(b, 'news')])
  publishing.abort()
  await cutting
  const got = (name: string): number[] => events.message.filter(({ group }) => group === name).map(({ data }) => Number(data))
  await until(() => got('lobby').length >= total && got('news').length >= total, { timeoutMs: 60_000 })
  await sleep(50)
  t.strictSame(got('lobby'), numbers(total))
  t.strictSame(got('news'), numbers(total))
  t.strictSame([events.gap, events.error.filter(({ code }) => code !== 'CONNECT_FAILED')], [[], []])
  t.ok(wire.attempts > 8, `${wire.attempts} connections`)
  t.comment(`${wire.attempts} connections`)
}, undefined, { log: { maxMessages: 1_000, ttlMs: 60_000 } })

onBoth('an instance shuts down: the client is told when to come back, goes to the other one and misses nothing', async (t, a, b) => {
  const wire = line(a.port)
  const { client, events } = recordedClient(t, a.url('lobby'), { WebSocket: wire.WebSocket })
  await client.join('news')
  await until(() => events.joined.length === 2)
  await b.app.registry.broadcastToGroup('news', '1')
  await until(() => events.message.length === 1)
  wire.to(b.port)
  const closing = a.app.close()
  for (let n = 2; n <= 30; n++) await b.app.registry.broadcastToGroup('news', String(n))
  await closing
  await until(() => events.message.length === 30)
  t.strictSame(events.message.map(({ data }) => Number(data)), numbers(30))
  t.match(events.state.find(({ state }) => state === 'waiting'), { code: 1001 })
  t.strictSame([...client.groups].sort(), ['lobby', 'news'])
  t.strictSame(events.left, [], 'a shutdown is no leave')
})

let ended = 0
let released = false
onBoth('an instance shuts down: what was sent is acknowledged, what is sent later is handled by the next one, once', async (t, a, b) => {
  const wire = line(a.port)
  const { client, events } = recordedClient(t, a.url('lobby'), { WebSocket: wire.WebSocket })
  const idle = recordedClient(t, a.url('lobby'), { WebSocket })
  await until(() => events.joined.length === 1 && idle.events.joined.length === 1)
  const { id } = a.app.registry.get(String(client.connectionId)) ?? {}
  ended = 0
  released = false
  const sent = ['slow 1', 'slow 2'].map(async text => await client.send(text))
  await until(() => handling === 'slow 1')
  wire.to(b.port)
  const closing = a.app.close()
  await until(() => idle.client.state === 'waiting')
  t.equal(a.app.registry.get(String(id))?.closed, false, 'one that has nothing to wait for does not wait for the others')
  const later = client.send('later')
  released = true
  await Promise.all(sent)
  t.equal(ended, 2)
  t.equal(client.connectionId, id)
  await closing
  await later
  t.not(client.connectionId, id)
  t.strictSame(events.error, [])
  t.match(events.state.find(({ state }) => state === 'waiting'), { code: 1001 })
}, () => ({
  async onMessage (_, data) {
    handling = String(data)
    if (handling.startsWith('slow')) await until(() => released)
    ended++
  }
}), { closeGraceMs: 3_000 })

t.test('a callback that does not end holds up the shutdown no longer than a grace, and its request is of unknown outcome', async (t) => {
  const a = await serveRoom(t, { closeGraceMs: 400 }, () => ({
    async onMessage (_, data) {
      handling = String(data)
      await sleep(10_000, undefined, { ref: false })
    }
  }))
  const { client } = recordedClient(t, a.url('lobby'), { WebSocket })
  await isOpen(client)
  const sending = client.send('for ever')
  await until(() => handling === 'for ever')
  const started = performance.now()
  const closing = a.app.close()
  await t.rejects(sending, { code: 'UNKNOWN_OUTCOME' })
  const broke = performance.now() - started
  t.ok(broke >= 290, `not before the callbacks had their share of the grace: ${broke.toFixed()} ms`)
  machine.within(t, broke, 790, 'and soon after')
  await closing
  machine.within(t, performance.now() - started, 1_500, 'two graces, as onDisconnect waits for the callback')
})

onBoth('what the log does not hold any more is one gap, then comes what it holds', async (t, a, b) => {
  const wire = line(a.port)
  const { events } = recordedClient(t, a.url('lobby'), { WebSocket: wire.WebSocket })
  await until(() => events.joined.length === 1)
  await a.app.registry.broadcastToGroup('lobby', '1')
  await until(() => events.message.length === 1)
  // Nobody answers until all of them are sent.
  wire.to(1)
  wire.cut()
  for (let n = 2; n <= 20; n++) await a.app.registry.broadcastToGroup('lobby', String(n))
  wire.to(b.port)
  await until(() => events.message.length === 6)
  t.strictSame(events.message.map(({ data }) => Number(data)), [1, 16, 17, 18, 19, 20])
  t.match(events.joined[1], { recovered: false, reason: 'trimmed' })
  t.match(events.gap, [{ group: 'lobby', reason: 'trimmed' }])
}, undefined, { log: { maxMessages: 5, ttlMs: 60_000 } })

onBoth('positions of a page that was loaded again resume on another instance', async (t, a, b) => {
  const first = recordedClient(t, a.url('lobby'), { WebSocket })
  await until(() => first.events.joined.length === 1)
  await a.app.registry.broadcastToGroup('lobby', '1')
  await until(() => first.events.message.length === 1)
  const { positions, session } = first.client
  first.client.close()
  await b.app.registry.broadcastToGroup('lobby', '2')
  const second = recordedClient(t, b.url('lobby'), { WebSocket, positions, ...session === undefined ? {} : { session } })
  await until(() => second.events.message.length === 1)
  t.match(second.events.message, [{ group: 'lobby', data: '2' }])
  t.equal(second.client.session, session)
})

onBoth('messages are acknowledged when onMessage is done, and its errors have their code', async (t, a) => {
  const { client } = recordedClient(t, a.url('lobby'), { WebSocket })
  t.match(await client.send('hello'), { position: /^[\w-]{24}$/ })
  await t.rejects(client.send('wrong'), { code: 'NOT_SO', message: 'not like that' })
  await t.rejects(client.send('broken'), { code: 'WSG_HANDLER_FAILED' })
  t.match(await client.send(new Uint8Array([1])), {}, 'the connection goes on')
}, registry => ({
  async onMessage (_connection, data, group) {
    if (data === 'wrong') throw Object.assign(new Error('not like that'), { code: 'NOT_SO', statusCode: 422 })
    if (data === 'broken') throw new Error('mysql://root@db')
    return await registry.broadcastToGroup(group, data)
  },
  onError: () => true
}))

onBoth('sent while there was no connection: each handled once, in order', async (t, a, b) => {
  const wire = line(a.port)
  const { client, events } = recordedClient(t, a.url('lobby'), { WebSocket: wire.WebSocket })
  await until(() => events.joined.length === 1)
  wire.to(b.port)
  wire.cut()
  await left(client)
  await Promise.all(numbers(500).map(async n => await client.send(String(n))))
  await until(() => events.message.length === 500)
  t.strictSame(events.message.map(({ data }) => Number(data)), numbers(500))
})

onBoth('a group that the route does not allow is refused; leave takes it out', async (t, a) => {
  const { client, events } = recordedClient(t, a.url('lobby'), { WebSocket })
  await t.rejects(client.join('secret'), { code: 'WSG_FORBIDDEN' })
  await client.join('news')
  await until(() => client.groups.length === 2)
  await client.leave('news')
  await until(() => events.left.length === 1)
  t.strictSame(client.groups, ['lobby'])
  await a.app.registry.broadcastToGroup('news', 'not for it')
  await a.app.registry.broadcastToGroup('lobby', 'for it')
  await until(() => events.message.length > 0)
  t.strictSame(events.message.map(({ data }) => data), ['for it'])
})

onBoth('a message that excepts the sender is not given to it when it resumes', async (t, a, b) => {
  const wire = line(a.port)
  const { client, events } = recordedClient(t, a.url('lobby'), { WebSocket: wire.WebSocket })
  await until(() => events.joined.length === 1)
  const before = client.positions.lobby
  await client.send('mine')
  await until(() => client.positions.lobby !== before) // the server passes it over
  wire.to(b.port)
  wire.cut()
  await until(() => events.joined.length === 2)
  await b.app.registry.broadcastToGroup('lobby', 'yours')
  await until(() => events.message.length > 0)
  t.strictSame(events.message.map(({ data }) => data), ['yours'])
}, registry => ({
  onMessage: async (connection, data, group) => { await registry.broadcastToGroup(group, data, { except: connection }) }
}))

onBoth('the others do not see a client that is back in time, and see one that closed', async (t, a, b) => {
  const wire = line(a.port)
  const watching = recordedClient(t, b.url('lobby'), { WebSocket, token: 'watcher' })
  await until(() => watching.events.members.length > 0)
  const { client, events } = recordedClient(t, a.url('lobby'), { WebSocket: wire.WebSocket, token: 'ann' })
  await until(() => watching.events.presence.length === 1 && events.members.length > 0)
  t.match(watching.events.presence, [{ group: 'lobby', event: 'join', member: { userId: 'ann' } }])
  t.strictSame(client.members('lobby').map(({ userId }) => userId).sort(), ['ann', 'watcher'])
  wire.to(b.port)
  wire.cut()
  await until(() => timesIn('lobby', events) === 2)
  await until(async () => (await b.app.registry.members('lobby')).some(({ connectionId }) => connectionId === client.connectionId))
  await sleep(graceMs + 200)
  t.equal(watching.events.presence.length, 1, 'nothing happened')
  machine.restart()
  const closedAt = performance.now()
  client.close()
  await until(() => watching.events.presence.length === 2)
  machine.within(t, performance.now() - closedAt, graceMs, 'a leave before the grace is over')
  t.match(watching.events.presence[1], { event: 'leave', member: { userId: 'ann' } })
}, () => ({ presence: true }), { presenceGraceMs: graceMs })

onBoth('a client that is disconnected stays away, and one that is sent away with 1012 comes back, as the others see', async (t, a, b) => {
  const watching = recordedClient(t, b.url('lobby'), { WebSocket, token: 'watcher' })
  await until(() => watching.events.members.length > 0)
  const { client, events } = recordedClient(t, a.url('lobby'), { WebSocket, token: 'ann' })
  await until(() => watching.events.presence.length === 1 && events.members.length > 0)
  t.equal(await b.app.registry.disconnect(String(client.connectionId), { code: 1012, reason: 'move' }), 1)
  await until(() => timesIn('lobby', events) === 2)
  await until(async () => (await b.app.registry.members('lobby')).some(({ connectionId }) => connectionId === client.connectionId))
  t.equal(watching.events.presence.length, 1, 'nothing happened')
  t.equal(await b.app.registry.disconnect({ userId: 'ann' }, { reason: 'out' }), 1)
  // Told by an event or, where the list is read anew meanwhile, by the list; long before the grace is over.
  const others = (): unknown[] => watching.client.members('lobby').map(({ userId }) => userId)
  await until(() => !others().includes('ann'), { what: `the others without ann, after ${JSON.stringify(watching.events.presence)}` })
  await until(() => events.close.length > 0)
  t.strictSame(events.close, [{ code: 1000, reason: 'out' }])
  t.equal(client.state, 'closed')
}, () => ({ presence: true }), { presenceGraceMs: 60_000 })

onBoth('a token is replaced before it expires; one that is not ends the connection, and the next brings a fresh one', async (t, a) => {
  const lifeMs = 4_000
  let firstEndsAt = Infinity
  const renewing = recordedClient(t, a.url('lobby'), {
    WebSocket,
    token: () => {
      firstEndsAt = Math.min(firstEndsAt, Date.now() + lifeMs)
      return { token: `ann~${lifeMs}`, expiresAt: Date.now() + lifeMs }
    }
  })
  const plain = recordedClient(t, a.url('lobby'), { WebSocket, token: async () => `bob~${lifeMs}` })
  await Promise.all([isOpen(renewing.client), isOpen(plain.client)])
  const states = ['open', 'waiting', 'connecting', 'open']
  await until(() => plain.events.state.length >= states.length && Date.now() > firstEndsAt + 100)
  t.strictSame(renewing.events.state.map(({ state }) => state), ['open'])
  t.strictSame(plain.events.state.slice(0, states.length).map(({ state }) => state), states)
  t.match(plain.events.state[1], { code: 4401, retryInMs: 0 })
  t.strictSame([renewing.events.error, plain.events.error], [[], []])
})

t.test('a token of nobody, and one of somebody else', async (t) => {
  const a = await serveRoom(t, {})
  const nobody = recordedClient(t, a.url('lobby'), { WebSocket, token: 'nobody' })
  await until(() => nobody.events.close.length === 1)
  t.match(nobody.events.close, [{ error: { code: 'REFUSED', status: 401 } }])
  const users = ['ann', 'bob']
  const changing = recordedClient(
    t, a.url('lobby'), { WebSocket, token: () => ({ token: users.shift() ?? 'x', expiresAt: Date.now() + 3_000 }) }
  )
  await until(() => changing.events.close.length === 1)
  t.match(changing.events.close, [{ code: 4403, error: { code: 'REFUSED' } }])
})

t.test('raw clients beside it get the bytes alone', async (t) => {
  const a = await serveRoom(t, {})
  const raw = connect(t, a.url('lobby'))
  await raw.opened
  const { client, events } = recordedClient(t, a.url('lobby'), { WebSocket })
  await until(() => events.joined.length === 1)
  await client.send('plain')
  t.equal(await raw.next(), 'plain')
  raw.send('from a raw one')
  await until(() => events.message.length === 2)
  t.match(events.message[1], { group: 'lobby', data: 'from a raw one', position: String })
})
