import t from 'tap'
import { WebSocket } from 'ws'
import { connect } from '../../lib/client/index.ts'
import { until } from '../helpers/until.ts'
import { isOpen, left, recordedClient, scriptedServer } from './scripted-server.ts'

t.test('it offers wsg.v1, further protocols, then the token; and says hello first', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url, { token: () => 'abc.def', protocols: ['more'] })
  t.equal(client.state, 'connecting')
  const peer = await server.peer(0)
  t.equal(peer.request.headers['sec-websocket-protocol'], 'wsg.v1,more,bearer,abc.def')
  t.strictSame(peer.frames[0], { type: 'hello', resume: {}, grants: {} })
  await isOpen(client)
  t.equal(client.connectionId, 'c1')
  t.equal(client.session, 's1')
  t.strictSame(events.state, [{ state: 'open', previous: 'connecting' }])
})

t.test('without a token there is none in the list', async (t) => {
  const server = await scriptedServer(t)
  recordedClient(t, server.url, { token: async () => undefined })
  t.equal((await server.peer(0)).request.headers['sec-websocket-protocol'], 'wsg.v1')
})

t.test('http addresses become ws addresses; what is not an address is refused at once', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url.replace('ws:', 'http:'))
  await isOpen(client)
  t.throws(() => connect('/relative', { WebSocket }), TypeError)
  if (!('WebSocket' in globalThis)) t.throws(() => connect('ws://localhost'), /pass the option WebSocket/)
})

t.test('of several addresses the first is any of them, and each attempt takes the next', async (t) => {
  const [a, b] = [await scriptedServer(t), await scriptedServer(t)]
  const gone = await scriptedServer(t)
  await gone.close()
  const urls = [a.url, new URL(gone.url), b.url.replace('ws:', 'http:')]
  const { client, events } = recordedClient(t, urls)
  for (const turn of [0, 1]) {
    await Promise.all([a, b].map(async server => (await server.peer(turn)).ws.terminate()))
  }
  client.close()
  t.ok(events.error.length >= 1, 'one of them is not there')
  t.equal(Math.abs(a.peers.length - b.peers.length) <= 1, true, 'in turn')

  const starts = new Set<number>()
  for (let n = 0; n < 60; n++) {
    const before = [a.peers.length, b.peers.length]
    const { client } = recordedClient(t, [a.url, b.url])
    await isOpen(client)
    client.close()
    starts.add([a.peers.length, b.peers.length].findIndex((count, i) => count > (before[i] ?? 0)))
    if (starts.size === 2) break
  }
  t.strictSame([...starts].sort(), [0, 1])
  t.throws(() => connect([], { WebSocket }), TypeError)
  t.throws(() => connect([a.url, '/relative'], { WebSocket }), TypeError)
})

t.test('a broken connection comes back, says which session it is, and keeps its handlers', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url)
  const first = await server.peer(0)
  await isOpen(client)
  first.ws.terminate()
  const second = await server.peer(1)
  t.match(second.frames[0], { type: 'hello', session: 's1' })
  await isOpen(client)
  t.equal(client.connectionId, 'c2')
  t.strictSame(events.state.map(({ state }) => state), ['open', 'waiting', 'connecting', 'open'])
  t.match(events.state[1], { previous: 'open', code: 1006, retryInMs: Number })
  t.strictSame(events.error, [], 'a break is no error')
})

t.test('an attempt that fails is told, and followed by another, with a token asked for anew', async (t) => {
  let refusals = 3
  const server = await scriptedServer(t, { refuse: () => refusals-- > 0 ? 503 : undefined })
  let tokens = 0
  const { client, events } = recordedClient(t, server.url, { token: async () => `token${++tokens}` })
  const peer = await server.peer(0)
  await isOpen(client)
  t.match(events.error, [{ code: 'CONNECT_FAILED', status: 503, closeCode: 1006 }, { code: 'CONNECT_FAILED' }, { code: 'CONNECT_FAILED' }])
  t.match(peer.request.headers['sec-websocket-protocol'], 'token4')
})

t.test('a token callback that fails, and a token that no header can hold, are failed attempts', async (t) => {
  const server = await scriptedServer(t)
  let calls = 0
  const { client, events } = recordedClient(t, server.url, {
    token: () => {
      calls++
      if (calls === 1) throw new Error('not logged in')
      return calls === 2 ? 'with space' : 'fine'
    }
  })
  await isOpen(client)
  t.match(
    events.error,
    [{ code: 'TOKEN_FAILED', cause: { message: 'not logged in' } }, { code: 'TOKEN_FAILED', cause: { name: 'TypeError' } }]
  )
})

t.test('an attempt that hangs ends after connectTimeoutMs: in the token callback, in the upgrade, before the welcome', async (t) => {
  const server = await scriptedServer(t, { welcome: false })
  let calls = 0
  const { client, events } = recordedClient(
    t, server.url, { connectTimeoutMs: 100, token: () => ++calls === 1 ? new Promise(() => {}) : undefined }
  )
  await until(() => events.error.length >= 2)
  t.match(events.error, [{ code: 'CONNECT_FAILED', message: /no answer in time/ }, { code: 'CONNECT_FAILED' }])
  t.equal(server.peers[0]?.frames[0]?.type, 'hello')
  t.not(client.state, 'open')
})

t.test('a token that comes after its attempt was given up connects nothing', async (t) => {
  const server = await scriptedServer(t)
  const late: Array<(token: string) => void> = []
  const { client } = recordedClient(
    t, server.url, { connectTimeoutMs: 200, token: () => late.length === 0 ? new Promise(resolve => late.push(resolve)) : 'second' }
  )
  await isOpen(client)
  late[0]?.('first')
  await new Promise(resolve => setTimeout(resolve, 50))
  const tokens = server.peers.map(({ request }) => request.headers['sec-websocket-protocol'])
  t.ok(tokens.length > 0)
  t.ok(tokens.every(offered => offered?.includes('second')), tokens.join('; '))
})

t.test('a server that speaks something else is no server for it: the end', async (t) => {
  const server = await scriptedServer(t, { protocol: 'bearer' })
  const { events } = recordedClient(t, server.url, { token: 'abc' })
  await until(() => events.close.length > 0)
  t.match(events.close, [{ error: { code: 'PROTOCOL_UNSUPPORTED' } }])
  t.strictSame(server.peers.flatMap(peer => peer.frames), [], 'nothing was sent')
})

for (const [code, what] of [[4400, 'the client is wrong'], [4403, 'a token of another user']] as const) {
  t.test(`${code} ends it: ${what}`, async (t) => {
    const server = await scriptedServer(t)
    const { client, events } = recordedClient(t, server.url)
    const peer = await server.peer(0)
    await isOpen(client)
    peer.ws.close(code, what)
    await until(() => events.close.length > 0)
    t.match(events.close, [{ code, reason: what, error: { code: 'REFUSED', closeCode: code } }])
    t.equal(client.state, 'closed')
  })
}

for (const status of [400, 403]) {
  t.test(`a refusal with ${status} ends it, where the status can be seen`, async (t) => {
    const server = await scriptedServer(t, { refuse: () => status })
    const { events } = recordedClient(t, server.url)
    await until(() => events.close.length > 0)
    t.match(events.close, [{ error: { code: 'REFUSED', status } }])
  })
}

t.test('401 ends it when there is no other token to be had, and only then', async (t) => {
  const server = await scriptedServer(
    t, { refuse: ({ headers }) => /fresh/.test(headers['sec-websocket-protocol'] ?? '') ? undefined : 401 }
  )
  const fixed = recordedClient(t, server.url, { token: 'old' })
  await until(() => fixed.events.close.length > 0)
  t.match(fixed.events.close, [{ error: { code: 'REFUSED', status: 401 } }])
  const tokens = ['old', 'fresh']
  const renewing = recordedClient(t, server.url, { token: () => tokens.shift() })
  await isOpen(renewing.client)
})

t.test('a close by the server with 1000 ends it, and is no error', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url, { reconnect: () => undefined })
  const peer = await server.peer(0)
  await isOpen(client)
  peer.ws.close(1000, 'enough')
  await until(() => events.close.length > 0)
  t.strictSame(events.close, [{ code: 1000, reason: 'enough' }])
  t.match(events.state.at(-1), { state: 'closed', previous: 'open', code: 1000, reason: 'enough' })
  t.strictSame(events.error, [])
  await t.rejects(client.send('late'), { code: 'CLOSED' })
})

t.test('`reconnect` decides what follows a close, also after 1000 and codes of the application, but not after a refusal', async (t) => {
  const refusing = await scriptedServer(t)
  const refused = recordedClient(t, refusing.url, { reconnect: () => true })
  const peer = await refusing.peer(0)
  await isOpen(refused.client)
  peer.ws.close(4400)
  await until(() => refused.events.close.length > 0)

  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url, { reconnect: ({ code }) => code === 4001 ? undefined : code !== 4123 })
  for (const [index, code] of [1000, 4001, 4123].entries()) {
    const peer = await server.peer(index)
    await isOpen(client)
    peer.ws.close(code, 'so')
    await left(client)
  }
  await until(() => events.close.length > 0)
  t.match(events.close, [{ code: 4123, reason: 'so', error: { code: 'REFUSED' } }])
  t.equal(server.peers.length, 3)
})

t.test('a `reconnect` that throws decides nothing: the client comes back as without it, and says what was thrown', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url, { reconnect: () => { throw new Error('mine') } })
  for (const [index, code] of [1001, 4001, 1000].entries()) {
    const peer = await server.peer(index)
    await isOpen(client)
    peer.ws.close(code, 'so')
    await left(client)
  }
  await until(() => events.close.length > 0)
  t.strictSame(events.close, [{ code: 1000, reason: 'so' }])
  t.equal(server.peers.length, 3)
  t.match(events.error, Array.from({ length: 3 }, () => ({ code: 'HANDLER_FAILED', cause: { message: 'mine' } })))
})

t.test('close() says its code, comes once, and ends everything', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url)
  const peer = await server.peer(0)
  await isOpen(client)
  t.throws(() => client.close(77), 'what the WebSocket does not take')
  t.equal(client.state, 'open')
  client.close(3001, 'bye')
  client.close()
  t.strictSame(await peer.closed, { code: 3001, reason: 'bye' })
  t.strictSame(events.close, [{ code: 3001, reason: 'bye' }])
  t.equal(events.state.at(-1)?.state, 'closed')
  await t.rejects(client.send('x'), { code: 'CLOSED' })
  await t.rejects(client.join('x'), { code: 'CLOSED' })
  await client.leave('x')
  await new Promise(resolve => setTimeout(resolve, 150))
  t.equal(server.peers.length, 1)
})

t.test('close() from any handler, and in any state, is final', async (t) => {
  const server = await scriptedServer(t)
  for (const state of ['connecting', 'waiting', 'open'] as const) {
    const client = connect(server.url, { WebSocket, backoff: { minMs: 10 } })
    client.on('state', (change) => {
      if (change.state === state) client.close()
      else if (change.state === 'open') for (const peer of server.peers) peer.ws.terminate()
    })
    await until(() => client.state === 'closed', { what: `closed in ${state}` })
    const before = server.peers.length
    await new Promise(resolve => setTimeout(resolve, 60))
    t.equal(client.state, 'closed')
    t.equal(server.peers.length, before, state)
  }
  const early = connect(server.url, { WebSocket })
  early.close()
  t.equal(early.state, 'closed')
  const dialing = connect(server.url, { WebSocket })
  await new Promise(resolve => setImmediate(resolve))
  dialing.close()
  await new Promise(resolve => setTimeout(resolve, 50))
  t.equal(dialing.state, 'closed')
})

t.test('a handler that throws breaks nothing, and is told', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url)
  client.on('state', () => { throw new Error('mine') })
  const seen: string[] = []
  client.on('message', () => { throw new Error('mine too') })
  client.on('message', ({ data }) => { seen.push(String(data)) })
  const peer = await server.peer(0)
  peer.send({ type: 'message', data: 'a' }, { type: 'message', data: 'b' })
  await until(() => seen.length === 2)
  t.equal(client.state, 'open')
  t.match(events.error[0], { code: 'HANDLER_FAILED', cause: { message: 'mine' } })
  t.equal(events.error.length, 3)
})

t.test('what nobody listens for is thrown where the process sees it, later', async (t) => {
  const server = await scriptedServer(t)
  const client = connect(server.url, { WebSocket })
  t.teardown(() => client.close())
  const thrown: unknown[] = []
  const original = globalThis.queueMicrotask
  globalThis.queueMicrotask = callback => { original(() => { try { callback() } catch (error) { thrown.push(error) } }) }
  t.teardown(() => { globalThis.queueMicrotask = original })
  client.on('message', () => { throw new Error('unheard') })
  const peer = await server.peer(0)
  peer.send({ type: 'message', data: 'a' })
  await until(() => thrown.length === 1)
  t.match(thrown[0], { message: 'unheard' })
  client.on('error', () => { throw new Error('the error handler too') })
  peer.send({ type: 'message', data: 'b' })
  await until(() => thrown.length === 2)
  t.match(thrown[1], { message: 'the error handler too' })
})

t.test('`on` returns what removes the handler', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url)
  let count = 0
  const off = client.on('message', () => {
    count++
    off()
  })
  const peer = await server.peer(0)
  peer.send({ type: 'message', data: '1' }, { type: 'message', data: '2' })
  await client.send('x')
  t.equal(count, 1)
})

t.test('frames that make no sense, and types that are not known, change nothing', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url)
  const peer = await server.peer(0)
  await isOpen(client)
  peer.send({ type: 'from-the-future' })
  for (const text of [
    '', '{', 'null', '7', '[]', '{"type":7}', '{"type":"members","group":"g"}', '{"type":"presence"}',
    '{"type":"message","binary":true,"data":"?"}'
  ]) {
    peer.ws.send(text)
  }
  await client.send('still there')
  t.equal(client.state, 'open')
  t.strictSame(events.error.map(({ code }) => code), Array(9).fill('BAD_FRAME'))
  t.strictSame(events.message, [])
  peer.send({ type: 'error', code: 'WSG_SOMETHING', message: 'said the server' })
  await until(() => events.error.length === 10)
  t.match(events.error[9], { code: 'WSG_SOMETHING', message: 'said the server' })
})
