import t, { type Test } from 'tap'
import { once } from 'node:events'
import { connect as connectSocket, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { constants, deflateRawSync } from 'node:zlib'
import type { ConnectionCallbacks, WebsocketGroupsOptions } from '../../plugin.ts'
import { connect, type TestClient } from '../helpers/client.ts'
import { until } from '../helpers/until.ts'
import { gate, service } from '../helpers/service.ts'

interface Running {
  readonly url: string
  stats (): Readonly<Record<string, number>>
  open (): Promise<TestClient>
}

async function run (t: Test, callbacks: ConnectionCallbacks, options: WebsocketGroupsOptions = {}): Promise<Running> {
  const { app, listen } = await service(t, { closeGraceMs: 200, ...options })
  app.get('/', { websocket: true }, app.wsHandler(callbacks))
  const url = await listen()
  return {
    url,
    stats: () => app.registry.stats(),
    async open () {
      const client = connect(t, url.replace('http', 'ws'))
      await client.opened
      return client
    }
  }
}

t.test('a client that sends more than may wait is not read until half of it is handled, and loses nothing', async t => {
  const ready = gate()
  const seen: number[] = []
  const running = await run(t, {
    async onMessage (_, data) {
      await ready.opened
      seen.push(Number(String(data).trim()))
    }
  }, { maxQueuedMessages: 10 })
  const client = await running.open()
  // More than the network takes in one piece, so that some of it waits at the client.
  for (let n = 0; n < 500; n++) client.send(String(n).padEnd(10_000))
  await until(() => running.stats().socketsPaused === 1)
  await sleep(50)
  t.ok(Number(running.stats().intakeBytes) < 1_000_000, 'most of the five megabytes is not read')
  ready.open()
  await until(() => seen.length === 500)
  t.strictSame(seen, Array.from({ length: 500 }, (_, n) => n))
  t.match(running.stats(), { socketsPaused: 0, intakeBytes: 0, queueOverflows: 0 })
})

t.test('a client that is gone while this side does not read is found out by pings', async t => {
  const running = await run(t, { onMessage: async () => await new Promise(() => {}) }, { maxQueuedMessages: 10, heartbeatIntervalMs: 50 })
  const client = await running.open()
  for (let n = 0; n < 500; n++) client.send(String(n).padEnd(10_000))
  await until(() => running.stats().socketsPaused === 1)
  // A ping is under way by now, whose answer nobody reads.
  await sleep(150)
  t.equal(running.stats().connections, 1, 'whoever is there stays')
  client.terminate()
  await until(() => running.stats().connections === 0)
  t.equal(running.stats().heartbeatTimeouts, 0)
})

t.test('what waits while onConnect runs is not read either, and is handled after it', async t => {
  const ready = gate()
  let bytes = 0
  const running = await run(t, {
    onConnect: async () => await ready.opened,
    onMessage (_, data) { bytes += data.length }
  }, { maxQueuedBytes: 100_000 })
  const client = await running.open()
  for (let n = 0; n < 300; n++) client.send(Buffer.alloc(10_000))
  await until(() => running.stats().socketsPaused === 1)
  t.equal(bytes, 0)
  ready.open()
  await until(() => bytes === 3_000_000)
})

t.test('messages and bytes beyond the rate of a connection wait, others do not', async t => {
  for (const limits of [{ messages: { perSecond: 5, burst: 10 } }, { bytes: { perSecond: 500, burst: 1_000 } }]) {
    const seen: string[] = []
    const running = await run(t, { onMessage (_, data) { seen.push(String(data).slice(0, 5)) } }, { limits })
    const [fast, other] = [await running.open(), await running.open()]
    for (let n = 0; n < 15; n++) {
      fast.send(`fast ${n}`.padEnd(94))
      // A message of its own for the network too.
      await sleep(2)
    }
    await until(() => Number(running.stats().pauses) > 0)
    other.send('other')
    await until(() => seen.includes('other'))
    await until(() => seen.length === 16)
    await until(() => running.stats().socketsPaused === 0)
    t.equal(fast.ws.readyState, fast.ws.OPEN)
  }
})

t.test('what an instance holds for all clients is limited; who holds little gets through meanwhile', async t => {
  const ready = gate()
  let handled = 0
  const running = await run(t, {
    async onMessage (connection, data) {
      if (data.length < 100) return connection.send(data)
      await ready.opened
      handled++
    }
  }, { limits: { queuedBytes: 2_000_000 } })
  const senders = await Promise.all(Array.from({ length: 20 }, async () => await running.open()))
  for (const sender of senders) for (let n = 0; n < 3; n++) sender.send(Buffer.alloc(500_000))
  await until(() => Number(running.stats().socketsPaused) >= 15)
  await sleep(100)
  // One and a half times the limit, and what each connection brings in one piece.
  t.ok(Number(running.stats().intakeBytes) < 1.5 * 2_000_000 + 20 * 150_000, `${running.stats().intakeBytes ?? 0} bytes of 30 MB`)
  const bystander = await running.open()
  for (let n = 0; n < 20; n++) {
    bystander.send(String(n))
    t.equal(await bystander.next(), String(n))
  }
  t.equal(handled, 0)
  ready.open()
  await until(() => handled === 60, { timeoutMs: 60_000 })
  t.match(running.stats(), { intakeBytes: 0, socketsPaused: 0 })
  t.ok(senders.every(({ ws }) => ws.readyState === ws.OPEN), 'nobody is closed')
})

/** Upgrades a bare TCP socket, on which a test may write what no WebSocket client would. */
async function upgraded (t: Test, url: string, extensions = ''): Promise<Socket> {
  const { port } = new URL(url)
  const socket = connectSocket(Number(port), '127.0.0.1')
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  socket.write(`GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n${extensions}` +
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n')
  await once(socket, 'data')
  return socket
}

/** A binary frame, masked with zeros. */
function frame (payload: Buffer, compressed = false): Buffer {
  const head = Buffer.alloc(14)
  head.writeUInt16BE(compressed ? 0xc2ff : 0x82ff)
  head.writeBigUInt64BE(BigInt(payload.length), 2)
  return Buffer.concat([head, payload])
}

t.test('unfinished messages that fill the memory hold up nobody else, and are ended where they go no further', async t => {
  let handled = 0
  const running = await run(t, { onMessage () { handled++ } }, { limits: { queuedBytes: 1_000_000 } })
  const unfinished = frame(Buffer.alloc(1_000_000)).subarray(0, -1)
  const attackers = await Promise.all(Array.from({ length: 12 }, async () => await upgraded(t, running.url)))
  for (const attacker of attackers) attacker.write(unfinished)
  await until(() => Number(running.stats().socketsPaused) > 0)
  const bystanders = [await running.open(), await running.open(), await running.open()]
  for (const bystander of bystanders) bystander.send(Buffer.alloc(1_000_000))
  await until(() => handled === 3, { timeoutMs: 60_000 })
  await until(() => Number(running.stats().stalledMessages) > 0, { timeoutMs: 60_000 })
  t.ok(Number(running.stats().intakeBytes) < 12_000_000)
  t.ok(bystanders.every(({ ws }) => ws.readyState === ws.OPEN))
})

t.test('a connection that this side does not read is not taken for dead, and can still be closed', async t => {
  const ready = gate()
  const ended: unknown[] = []
  const running = await run(t, {
    async onMessage (connection) {
      await ready.opened
      connection.close(4000, 'enough')
    },
    onDisconnect (_, closed) { ended.push(closed) }
  }, { maxQueuedMessages: 5, heartbeatIntervalMs: 20 })
  const client = await running.open()
  for (let n = 0; n < 200; n++) client.send('x'.repeat(10_000))
  await until(() => running.stats().socketsPaused === 1)
  await sleep(300)
  t.match(running.stats(), { connections: 1, heartbeatTimeouts: 0 })
  ready.open()
  t.strictSame(await client.closed, { code: 4000, reason: 'enough' })
  await until(() => ended.length === 1)
  t.match(running.stats(), { intakeBytes: 0, socketsPaused: 0, connections: 0 })
})

t.test('compressed messages that grow to far more than may wait are read one by one, and nobody is closed for them', async t => {
  const ready = gate()
  let handled = 0
  const running = await run(t, {
    async onMessage () {
      await ready.opened
      handled++
    }
  }, { maxQueuedBytes: 1_000_000, options: { perMessageDeflate: true }, limits: { queuedBytes: false } })
  const socket = await upgraded(t, running.url, 'Sec-WebSocket-Extensions: permessage-deflate\r\n')
  const bomb = deflateRawSync(Buffer.alloc(1_000_000), { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4)
  socket.write(Buffer.concat(Array.from({ length: 50 }, () => frame(bomb, true))))
  await until(() => running.stats().socketsPaused === 1)
  await sleep(200)
  t.ok(Number(running.stats().intakeBytes) < 5_000_000, `${running.stats().intakeBytes ?? 0} bytes of 50 MB are held`)
  ready.open()
  await until(() => handled === 50)
  t.match(running.stats(), { connections: 1, queueOverflows: 0 })
})

t.test('a client that does not read what its messages cause is not read, and goes on when it reads', async t => {
  let handled = 0
  const running = await run(t, {
    onMessage (connection, data) {
      handled++
      connection.send(data)
    }
  }, { maxBufferedBytes: 2_000_000 })
  const client = await running.open()
  client.ws.pause()
  for (let n = 0; n < 100; n++) client.send(Buffer.alloc(500_000))
  await until(() => running.stats().socketsPaused === 1)
  await sleep(100)
  t.ok(handled < 60, `${handled} of 100`)
  client.ws.resume()
  await until(() => client.messages.length === 100)
  t.match(running.stats(), { slowConsumersClosed: 0, connections: 1 })
})

t.test('a client that never reads is ended by the heartbeat, although this side does not read either', async t => {
  const running = await run(t, { onMessage (connection, data) { connection.send(data) } }, {
    maxBufferedBytes: 2_000_000, heartbeatIntervalMs: 400
  })
  const client = await running.open()
  client.ws.pause()
  // The first ping goes out: one behind the echoes would get the time that these take on a slow link.
  await sleep(500)
  for (let n = 0; n < 100; n++) client.send(Buffer.alloc(500_000))
  await until(() => Number(running.stats().pauses) > 0)
  await until(() => running.stats().connections === 0)
  t.match(running.stats(), { heartbeatTimeouts: 1, socketsPaused: 0, intakeBytes: 0 })
})
