import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { connect as connectClient, type WebSocketClass } from '../../lib/client/index.ts'
import { connect } from '../helpers/client.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'
import { service } from '../helpers/service.ts'
import { clientFrame, rawConnection, upgradeHead } from './raw.ts'

const heartbeatIntervalMs = 200
const bytesPerSecond = 100_000
/** Takes ten intervals. */
const large = 'x'.repeat(bytesPerSecond * heartbeatIntervalMs / 1_000 * 10)

t.test('one message of many intervals comes in over a slow link', async t => {
  const { app, listen } = await service(t, { heartbeatIntervalMs })
  let bytes = 0
  app.get('/ws', { websocket: true }, app.wsHandler({ onMessage (_, data) { bytes = data.length } }))
  const connection = await rawConnection(t, await listen())
  connection.write(upgradeHead('/ws'))
  await connection.answers(1)
  const frame = clientFrame(1, large)
  // No client can answer a ping in the middle of a frame.
  for (let at = 0; at < frame.length; at += 2_000) {
    connection.write(frame.subarray(at, at + 2_000))
    await sleep(2_000 / bytesPerSecond * 1_000)
  }
  await until(() => bytes === large.length)
  t.equal(app.registry.stats().heartbeatTimeouts, 0)
  t.equal(connection.over, false)
  await until(() => connection.over, { what: 'a client that never answered a ping to be given up' })
  t.equal(app.registry.stats().heartbeatTimeouts, 1)
})

t.test('and goes out, to clients that can do no more than answer pings', async t => {
  const { app, listen } = await service(t, { heartbeatIntervalMs })
  app.wsRoom('/ws/:room', { auth: false })
  const proxy = await startProxy(t, Number(new URL(await listen()).port))
  const client = connect(t, `ws://127.0.0.1:${proxy.port}/ws/a`)
  await until(async () => await app.registry.groupCount('a') === 1)
  proxy.limit(bytesPerSecond)
  await app.registry.broadcastToGroup('a', large)
  t.equal(String(await client.next(20_000)).length, large.length)
  t.equal(app.registry.stats().heartbeatTimeouts, 0)
})

t.test('what the server has to hold itself goes out as well', async t => {
  const { app, listen } = await service(t, { heartbeatIntervalMs, maxBufferedBytes: 100_000_000 })
  app.wsRoom('/ws/:room', { auth: false, onJoin (connection) { connection.send('y'.repeat(30_000_000)) } })
  const client = connect(t, `${await listen()}/ws/a`)
  await client.opened
  client.ws.pause()
  let read = 0
  const socket = (client.ws as unknown as { _socket: NodeJS.ReadableStream })._socket
  socket.on('data', chunk => { read += chunk.length })
  socket.pause()
  // About 100 KB at a time, for 15 intervals.
  for (let n = 0; n < 60; n++) {
    socket.resume()
    await sleep(1)
    socket.pause()
    await sleep(heartbeatIntervalMs / 4)
  }
  t.equal(app.registry.stats().heartbeatTimeouts, 0, `${read} bytes were read`)
  t.equal(app.registry.count(), 1)
})

/** As in browsers: no look at the network socket, and no way to break the connection off. */
const OpaqueWebSocket = new Proxy(WebSocket, {
  construct (Class, args: [string, string[]]) {
    return new Proxy(new Class(...args), {
      get (socket, name) {
        const value: unknown = name === '_socket' || name === 'terminate' ? undefined : Reflect.get(socket, name)
        return typeof value === 'function' ? value.bind(socket) as unknown : value
      },
      set: (socket, name, value) => Reflect.set(socket, name, value)
    })
  }
})

for (const [name, Class, atOnce] of [['ws', WebSocket, true], ['one that tells nothing of its bytes', OpaqueWebSocket, false]] as const) {
  t.test(`and to this package's own client, with ${name}`, async t => {
    const { app, listen } = await service(t, { heartbeatIntervalMs })
    app.wsRoom('/ws/:room', { auth: false })
    const proxy = await startProxy(t, Number(new URL(await listen()).port))
    const client = connectClient(
      `ws://127.0.0.1:${proxy.port}/ws/a`, { WebSocket: Class as unknown as WebSocketClass, backoff: { minMs: 10, maxMs: 50 } }
    )
    t.teardown(() => client.close())
    const states: unknown[] = []
    let got = 0
    client.on('state', ({ state }) => { states.push(state) })
    client.on('message', ({ data }) => { got = data.length })
    await until(async () => await app.registry.groupCount('a') === 1)
    proxy.limit(bytesPerSecond)
    await app.registry.broadcastToGroup('a', large)
    // Without a look at the bytes the client loses the connection, and waits longer each time.
    await until(() => got === large.length, { timeoutMs: 40_000 })
    if (atOnce) t.strictSame(states, ['open'])
    t.equal(client.state, 'open')
  })
}
