import t from 'tap'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { WebSocket, WebSocketServer } from 'ws'
import { connect } from '../../lib/client/index.ts'
import { until } from '../helpers/until.ts'
import { isOpen, recordedClient, scriptedServer } from './scripted-server.ts'

t.test('an address that is none for a WebSocket is refused at once', async (t) => {
  for (const address of ['ftp://127.0.0.1/', 'mailto:ann@example.com', 'ws://']) {
    t.throws(() => connect(address, { WebSocket }), TypeError, address)
  }
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, `${server.url}/#room`)
  await isOpen(client)
})

t.test('what the WebSocket class refuses, no attempt can heal', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url, { protocols: ['no protocol'], token: () => 'abc' })
  await until(() => events.close.length > 0)
  t.match(events.close, [{ error: { code: 'ADDRESS_UNUSABLE', cause: { name: 'SyntaxError' } } }])
  t.equal(client.state, 'closed')
  const fixed = recordedClient(t, server.url, { token: 'with space' })
  await until(() => fixed.events.close.length > 0)
  t.match(fixed.events.close, [{ error: { code: 'TOKEN_FAILED' } }])
  t.equal(server.peers.length, 0)
})

t.test('a route that does not speak the protocol is told by the first that it says', async (t) => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
  t.teardown(() => { for (const client of server.clients) client.terminate(); server.close() })
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  let opened = 0
  server.on('connection', socket => {
    opened++
    socket.on('message', data => socket.send(data))
  })
  const { events } = recordedClient(t, `ws://127.0.0.1:${port}`)
  await until(() => events.close.length > 0)
  t.match(events.close, [{ error: { code: 'PROTOCOL_UNSUPPORTED' } }])
  t.equal(opened, 1)
})

t.test('a server that knows no subprotocol is one of another kind', async (t) => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', handleProtocols: () => false })
  t.teardown(() => { for (const client of server.clients) client.terminate(); server.close() })
  await once(server, 'listening')
  const { events } = recordedClient(t, `ws://127.0.0.1:${(server.address() as AddressInfo).port}`)
  await until(() => events.close.length > 0)
  t.match(events.close, [{ error: { code: 'PROTOCOL_UNSUPPORTED' } }])
})

t.test('a server that takes the protocol and never says a word is one of another kind, unless it spoke before', async (t) => {
  const silent = await scriptedServer(t, { welcome: false })
  const { events } = recordedClient(t, silent.url, { connectTimeoutMs: 200 })
  await until(() => events.close.length > 0)
  t.match(events.close, [{ error: { code: 'PROTOCOL_UNSUPPORTED', message: 'no welcome in time' } }])
  // An attempt that a busy machine holds up fails before the server could say a word, and counts for nothing.
  const silences = events.error.filter(({ message }) => message.endsWith('no welcome in time'))
  t.equal(silences.length, 2, 'one alone may have been cut off')

  // One welcome, four silences, and welcomes again: a busy machine may miss some of these.
  const welcomes = [true, false, false, false, false]
  const server = await scriptedServer(t, {
    welcome: false,
    onFrame: ({ send }, { type }) => {
      if (type === 'hello' && welcomes.shift() !== false) send({ type: 'welcome', connectionId: 'c', session: 's', pingMs: 0, resumeMs: 0 })
    }
  })
  const known = recordedClient(t, server.url, { connectTimeoutMs: 200 })
  const peer = await server.peer(0)
  await isOpen(known.client)
  peer.ws.terminate()
  await until(() => known.client.state === 'open' && server.peers.length >= 6)
  t.strictSame(known.events.close, [])
})

for (const afterMs of [-1, 1e12, 'soon', null]) {
  t.test(`a time to come back after that is none ends it: ${afterMs}`, async (t) => {
    const server = await scriptedServer(t)
    const { client, events } = recordedClient(t, server.url)
    const peer = await server.peer(0)
    await isOpen(client)
    peer.send({ type: 'reconnect', afterMs })
    if (afterMs === null) return peer.ws.close(1012)           // as 0: at once
    await until(() => events.close.length > 0)
    t.match(events.close, [{ code: 4400, error: { code: 'REFUSED', message: /afterMs/ } }])
  })
}

t.test('429 and 503 are waited for as long as they say, other refusals are not', async (t) => {
  const server = createServer()
  const answers: Array<[number, Record<string, string>]> = [
    [503, { 'retry-after': '70' }], [429, { 'retry-after': new Date(Date.now() + 70_000).toUTCString() }], [503, {}],
    [500, { 'retry-after': '70' }], [429, { 'retry-after': 'never' }]
  ]
  server.on('upgrade', (request, socket) => {
    // The client may be gone before it reads the answer.
    socket.on('error', () => {})
    const [status, headers] = answers[Number(request.url?.slice(1))] ?? [500, {}]
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('')
    socket.end(`HTTP/1.1 ${status} no\r\n${lines}content-length: 0\r\nconnection: close\r\n\r\n`)
  })
  server.listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  for (const [index, waits] of [true, true, false, false, false].entries()) {
    const { client, events } = recordedClient(t, `ws://127.0.0.1:${port}/${index}`)
    await until(() => events.error.length > 0)
    t.match(events.error[0], { code: 'CONNECT_FAILED', status: answers[index]?.[0] })
    t.equal((events.state[0]?.retryInMs ?? 0) >= 60_000, waits, `${answers[index]}`)
    client.close()
  }
})

t.test('what nobody awaits ends no process: it rejects for those who look', async (t) => {
  const server = await scriptedServer(t, { ack: false })
  const { client } = recordedClient(t, server.url)
  await isOpen(client)
  const unhandled: unknown[] = []
  const note = (reason: unknown): void => { unhandled.push(reason) }
  process.on('unhandledRejection', note)
  t.teardown(() => process.off('unhandledRejection', note))
  void client.send('on the wire')
  void client.join('room')
  void client.leave('other')
  const awaited = client.send('awaited')
  client.close()
  void client.send('too late')
  void client.join('too late')
  await t.rejects(awaited, { code: 'UNKNOWN_OUTCOME' })
  await new Promise(resolve => setTimeout(resolve, 20))
  t.strictSame(unhandled, [])
})
