import t from 'tap'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { backoffMs } from '../../lib/client/backoff.ts'
import { maxBackoffMs, minBackoffMs } from '../../lib/client/limits.ts'
import { Liveness } from '../../lib/client/liveness.ts'
import { Token } from '../../lib/client/token.ts'
import { watchMachine } from '../helpers/machine.ts'
import { until } from '../helpers/until.ts'
import { fakeTime } from './fake-time.ts'
import { isOpen, recordedClient, scriptedServer } from './scripted-server.ts'

const machine = watchMachine(t)

/** What is due at once is done. */
const turn = async (): Promise<void> => await new Promise(resolve => setImmediate(resolve))
const later = async (ms: number): Promise<void> => await new Promise(resolve => setTimeout(resolve, ms))

t.test('the wait is anywhere between nothing and half as much again as the last bound, up to the largest', async (t) => {
  const waits = (failures: number): number[] => Array.from({ length: 2_000 }, () => backoffMs(failures, { minMs: 1_000, maxMs: 30_000 }))
  for (const [failures, bound] of [[0, 1_000], [1, 1_500], [4, 5_062.5], [9, 30_000], [5_000, 30_000]] as const) {
    const sorted = waits(failures).sort((a, b) => a - b)
    t.ok((sorted[0] ?? -1) >= 0 && (sorted[0] ?? 0) < bound * 0.05, 'from nothing')
    t.ok((sorted.at(-1) ?? 0) < bound && (sorted.at(-1) ?? 0) > bound * 0.95, `to ${bound}`)
    const mean = sorted.reduce((sum, wait) => sum + wait, 0) / sorted.length
    t.ok(mean > bound * 0.45 && mean < bound * 0.55, 'evenly')
  }
})

t.test('the default wait fits a short outage: of clients that were cut for 2 s, 99 % are back before 6.7 s', async (t) => {
  const away = Array.from({ length: 20_000 }, () => {
    let at = 0
    for (let failures = 0; at < 2_000; failures++) at += backoffMs(failures, { minMs: minBackoffMs, maxMs: maxBackoffMs })
    return at
  }).sort((a, b) => a - b)
  // That of socket.io, whose waits end at 5 s, in the drill of bench/.
  t.ok((away[19_800] ?? Infinity) < 6_700, `${away[19_800]} ms`)
  t.ok((away[10_000] ?? Infinity) < 3_000, `${away[10_000]} ms`)
  const docs = readFileSync(new URL('../../docs/client.md', import.meta.url), 'utf8')
  t.match(docs, '| `backoff` | `{ minMs: 1_000, maxMs: 10_000 }` |')
  t.strictSame([minBackoffMs, maxBackoffMs], [1_000, 10_000], 'as the docs say')
})

t.test('failures make the waits longer', async (t) => {
  const server = await scriptedServer(t, { refuse: () => 503 })
  const { events } = recordedClient(t, server.url, { backoff: { minMs: 8, maxMs: 64 } })
  await until(() => events.error.length >= 12)
  for (const [index, { retryInMs }] of events.state.filter(({ state }) => state === 'waiting').entries()) {
    t.ok((retryInMs ?? Infinity) <= Math.min(Math.round(8 * 1.5 ** index), 64))
  }
})

t.test('the server says when to come back, and nothing brings the client back before', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url, { backoff: { minMs: 1, maxMs: 1 } })
  const first = await server.peer(0)
  await isOpen(client)
  // Before the client can know: seen any later, a busy machine would make the wait look short.
  const leftAt = Date.now()
  first.send({ type: 'reconnect', afterMs: 300 })
  first.ws.close(1012, 'server restarts')
  await until(() => client.state === 'waiting')
  t.match(events.state.at(-1), { code: 1012, reason: 'server restarts' })
  const { retryInMs = 0 } = events.state.at(-1) ?? {}
  t.ok(retryInMs >= 300 && retryInMs <= 375, String(retryInMs))
  await server.peer(1)
  t.ok(Date.now() - leftAt >= 295)
  server.peers[1]?.ws.terminate()
  const waits = await until(() => {
    const all = events.state.filter(({ state }) => state === 'waiting')
    return all.length === 2 ? all : undefined
  })
  t.ok((waits[1]?.retryInMs ?? Infinity) <= 2, 'the hint was for once')
})

t.test('4401 fetches a token and comes back at once, and waits when that does not help', async (t) => {
  // The wait is drawn at random, and could be over before the test ends.
  t.intercept(Math, 'random', { value: () => 0.9 })
  const server = await scriptedServer(t, { onFrame: ({ ws }) => ws.close(4401, 'token expired') })
  let calls = 0
  const { events } = recordedClient(t, server.url, { token: () => `token${++calls}`, backoff: { minMs: 30_000 } })
  await until(() => server.peers.length === 2)
  t.match(server.peers[1]?.request.headers['sec-websocket-protocol'], 'token2')
  await until(() => events.state.filter(({ state }) => state === 'waiting').length === 2)
  t.equal(events.state.find(({ state }) => state === 'waiting')?.retryInMs, 0)
  await later(50)
  t.equal(server.peers.length, 2, 'the second time it waits')
})

t.test('4401 ends a client whose token is a string', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url, { token: 'fixed' })
  const peer = await server.peer(0)
  await isOpen(client)
  peer.ws.close(4401, 'token expired')
  await until(() => events.close.length === 1)
  t.match(events.close, [{ code: 4401, error: { code: 'REFUSED' } }])
})

t.test('a token that is about to expire is replaced on the connection', async (t) => {
  const time = fakeTime(t)
  const server = await scriptedServer(t)
  let calls = 0
  const { client, events } = recordedClient(
    t, server.url, { token: async () => ({ token: `token${++calls}`, expiresAt: Date.now() + 10_000 }) }
  )
  const peer = await server.peer(0)
  t.match(peer.request.headers['sec-websocket-protocol'], 'token1')
  await isOpen(client)
  time.pass(7_999)
  await turn()
  t.equal(calls, 1, 'not before four fifths of its time')
  time.pass(1)
  t.match(await peer.got('token'), { token: 'token2', id: Number })
  // As soon as the answer to the second token is here, the third is due in its turn.
  await until(() => {
    time.pass(1_000)
    return peer.frames.filter(({ type }) => type === 'token').length === 2
  })
  t.match(peer.frames.filter(({ type }) => type === 'token'), [{ token: 'token2' }, { token: 'token3' }])
  t.equal(server.peers.length, 1)
  t.strictSame(events.error, [])
  client.close()
  time.pass(100_000)
  t.equal(calls, 3)
})

t.test('a fresh token that the server does not take is told', async (t) => {
  const time = fakeTime(t)
  const server = await scriptedServer(t, {
    ack: false,
    onFrame: (peer, { type, id }) => {
      if (type === 'token') {
        peer.send({ type: 'error', id, code: 'WSG_UNAUTHORIZED', message: 'no' })
      }
    }
  })
  const { client, events } = recordedClient(t, server.url, { token: () => ({ token: 'x', expiresAt: Date.now() + 10_000 }) })
  await isOpen(client)
  time.pass(8_000)
  await until(() => events.error.length === 1)
  t.match(events.error, [{ code: 'WSG_UNAUTHORIZED' }])
  t.equal(client.state, 'open', 'the old one still counts')
})

t.test('a callback that fails to renew is asked again before the end', async (t) => {
  const time = fakeTime(t)
  const server = await scriptedServer(t)
  let calls = 0
  const { client, events } = recordedClient(t, server.url, {
    token: () => {
      if (++calls === 2) throw new Error('identity service down')
      return { token: `token${calls}`, expiresAt: Date.now() + 10_000 }
    }
  })
  const peer = await server.peer(0)
  await isOpen(client)
  time.pass(8_000)
  await until(() => events.error.length === 1)
  time.pass(1_999)
  t.match(await peer.got('token'), { token: 'token3' })
  t.match(events.error, [{ code: 'TOKEN_FAILED', cause: { message: 'identity service down' } }])
})

t.test('a token that is expired when it comes, or at no time, is no reason to ask in a loop', async (t) => {
  for (const expiresAt of [Date.now() - 3_600_000, NaN]) {
    let calls = 0
    const token = new Token(() => { calls++; return { token: 'x', expiresAt } }, { refresh: () => t.fail(), failed: () => t.fail() })
    t.equal(await token.fetch(), 'x')
    token.keepFresh()
    await later(50)
    t.equal(calls, 1)
  }
})

t.test('a token for a hundred years does not overflow the timer', async (t) => {
  const token = new Token(
    () => ({ token: 'x', expiresAt: Date.now() + 100 * 365 * 86_400_000 }), { refresh: () => t.fail(), failed: () => t.fail() }
  )
  await token.fetch()
  token.keepFresh()
  await later(50)
  token.stop()
})

t.test('what was asked for on an earlier connection is not sent on this one', async (t) => {
  const time = fakeTime(t)
  let answer: (token: string) => void = () => {}
  let calls = 0
  const refreshed: string[] = []
  const token =
    new Token(() => ++calls === 1 ? { token: 'a', expiresAt: Date.now() + 1_000 } : new Promise(resolve => { answer = resolve }),
      { refresh: fresh => refreshed.push(fresh), failed: () => t.fail() })
  await token.fetch()
  token.keepFresh()
  time.pass(1_000)
  await until(() => calls === 2)
  token.stop()
  answer('late')
  await turn()
  t.strictSame(refreshed, [])
})

t.test('a quiet connection is asked, and is dead when it does not answer', async (t) => {
  const time = fakeTime(t)
  const calls: string[] = []
  const liveness = new Liveness(50, () => calls.push('ping'), () => calls.push('dead'), 1, () => undefined)
  t.teardown(() => liveness.stop())
  for (let n = 0; n < 10; n++) {
    time.pass(49)
    liveness.seen()
  }
  t.strictSame(calls, [], 'as long as something comes, nothing is asked')
  time.pass(50)
  t.strictSame(calls, ['ping'])
  liveness.probe()
  liveness.seen()
  time.pass(50)
  t.strictSame(calls, ['ping', 'ping'])
  time.pass(50)
  t.strictSame(calls, ['ping', 'ping', 'dead'])
})

t.test('bytes that are still coming are waited for, and patience gives an answer more time', async (t) => {
  const time = fakeTime(t)
  const calls: string[] = []
  let bytes = 0
  const liveness = new Liveness(20, () => calls.push('ping'), () => calls.push('dead'), 1, () => bytes)
  t.teardown(() => liveness.stop())
  time.pass(20)
  for (let n = 0; n < 10; n++) {
    bytes++
    time.pass(20)
  }
  t.strictSame(calls, ['ping'])
  t.equal(liveness.answered, false)
  liveness.seen()
  t.equal(liveness.answered, true)
  time.pass(20)
  t.strictSame(calls, ['ping', 'ping'])
  time.pass(20)
  t.strictSame(calls, ['ping', 'ping', 'dead'])

  const patient: string[] = []
  const other = new Liveness(20, () => patient.push('ping'), () => patient.push('dead'), 32, () => undefined)
  t.teardown(() => other.stop())
  time.pass(20 + 32 * 20 - 1)
  t.strictSame(patient, ['ping'])
  time.pass(1)
  t.strictSame(patient, ['ping', 'dead'])
})

t.test('each connection that is lost before it answered at all gives the next one more time', async (t) => {
  const time = fakeTime(t)
  const server = await scriptedServer(t, { welcome: { pingMs: 40 }, pong: false })
  const { client } = recordedClient(t, server.url, { backoff: { minMs: 1, maxMs: 1 } })
  const lifetimes: number[] = []
  for (let n = 0; n < 4; n++) {
    await until(() => {
      time.pass(1)
      return client.state === 'open'
    })
    const openAt = Date.now()
    await until(() => {
      time.pass(10)
      return client.state !== 'open'
    })
    lifetimes.push(Date.now() - openAt)
  }
  t.strictSame(lifetimes, [80, 120, 200, 360], 'twice as long for the answer')
})

t.test('a connection that gives no sign of life is left, and another one opened at once', async (t) => {
  const server = await scriptedServer(t, { welcome: { pingMs: 50 }, pong: false })
  const { client, events } = recordedClient(t, server.url, { backoff: { minMs: 30_000 } })
  const first = await server.peer(0)
  await isOpen(client)
  const openAt = Date.now()
  await server.peer(1)
  machine.within(t, Date.now() - openAt, 1_000, 'left and connected again')
  t.match(events.state.find(({ state }) => state === 'waiting'), { code: 1006, reason: 'no sign of life', retryInMs: 0 })
  await first.closed
})

t.test('a connection that answers its pings lives', async (t) => {
  const time = fakeTime(t)
  const server = await scriptedServer(t, { welcome: { pingMs: 30 } })
  const { client } = recordedClient(t, server.url)
  const { ws, frames } = await server.peer(0)
  await isOpen(client)
  for (let pings = 1; pings <= 5; pings++) {
    time.pass(30)
    await until(() => frames.filter(({ type }) => type === 'ping').length === pings)
    // Answered below the client, after all that the client has read: the pong before it, too.
    const read = once(ws, 'pong')
    ws.ping()
    await read
  }
  t.equal(client.state, 'open')
  t.equal(server.peers.length, 1)
})
