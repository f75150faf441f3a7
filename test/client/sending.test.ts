import t from 'tap'
import { SendQueue } from '../../lib/client/send-queue.ts'
import { until } from '../helpers/until.ts'
import { isOpen, left, recordedClient, scriptedServer, type Frame } from './scripted-server.ts'

const texts = (frames: readonly Frame[]): unknown[] => frames.filter(({ type }) => type === 'message').map(({ data }) => data)

t.test('send resolves on the ack, with its position, and rejects with the code of an error', async (t) => {
  const server = await scriptedServer(t, {
    ack: false,
    onFrame: (peer, { id, data }) => {
      if (data === 'good') peer.send({ type: 'ack', id, position: 'p'.repeat(24) })
      else if (id !== undefined) peer.send({ type: 'error', id, code: 'MY_APP_SAYS_NO', message: 'no' })
    }
  })
  const { client } = recordedClient(t, server.url)
  t.strictSame(await client.send('good'), { position: 'p'.repeat(24) })
  await t.rejects(client.send('bad'), { name: 'ClientError', code: 'MY_APP_SAYS_NO', message: 'no' })
})

t.test('bytes are sent as base64, as they were when send was called', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url)
  const bytes = new Uint8Array(50_000).fill(200)
  const sent = client.send(bytes)
  bytes.fill(0)
  await Promise.all([sent, client.send(new Uint8Array([9, 1, 2, 9]).subarray(1, 3)), client.send(new Uint8Array([5]).buffer)])
  const frames = (await server.peer(0)).frames.filter(({ type }) => type === 'message')
  t.strictSame(frames.map(({ binary }) => binary), [true, true, true])
  t.ok(Buffer.from(String(frames[0]?.data), 'base64').equals(Buffer.alloc(50_000, 200)))
  t.strictSame(frames.slice(1).map(({ data }) => data), ['AQI=', 'BQ=='])
  for (const wrong of [7, {}, null, undefined]) t.throws(() => client.send(wrong as unknown as string), TypeError)
})

t.test('what is sent while there is no connection waits, and goes in order, before what comes later', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url)
  const sent = ['a', 'b', 'c'].map(async text => await client.send(text))
  client.send('d', { ack: false })
  client.on('state', ({ state }) => { if (state === 'open') client.send('e').catch(() => {}) })
  await Promise.all(sent)
  await client.send('f')
  t.strictSame(texts((await server.peer(0)).frames), ['a', 'b', 'c', 'd', 'e', 'f'])
})

t.test('an attempt to connect may take for longer than timers last', async (t) => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url, { connectTimeoutMs: Infinity })
  await isOpen(client)
  t.strictSame(events.error, [])
})

t.test('a storage that holds something else is no reason not to start', async t => {
  const server = await scriptedServer(t)
  for (const text of ['{"positions":null}', '{"positions":5}', '5', 'null']) {
    const { client } = recordedClient(t, server.url, { storage: { getItem: () => text, setItem () {} } })
    await isOpen(client)
    t.strictSame(client.positions, {})
  }
})

t.test('joins go before the messages that wait', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url)
  const sent = client.send('a')
  await Promise.all([client.join('g'), sent])
  t.strictSame((await server.peer(0)).frames.map(({ type }) => type), ['hello', 'join', 'message'])
})

t.test('sent and not acknowledged when the connection breaks: unknown, unless the caller says that it may come twice', async (t) => {
  let acks = false
  const server = await scriptedServer(t, {
    ack: false,
    onFrame: (peer, { type, id }) => {
      if (acks && type === 'message') {
        peer.send({ type: 'ack', id })
      }
    }
  })
  const { client } = recordedClient(t, server.url)
  await isOpen(client)
  const outcomes = ['a', 'b', 'c'].map(
    async (text, index) => await client.send(text, { retry: index !== 1 }).then(() => 'acknowledged', error => String(error.code))
  )
  const first = await server.peer(0)
  await until(() => texts(first.frames).length === 3)
  acks = true
  first.ws.terminate()
  t.strictSame(await Promise.all(outcomes), ['acknowledged', 'UNKNOWN_OUTCOME', 'acknowledged'])
  t.strictSame(texts((await server.peer(1)).frames), ['a', 'c'])
})

t.test('what was acknowledged is not sent again, nor what never was sent rejected', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url)
  await client.send('a', { retry: true })
  const first = await server.peer(0)
  first.ws.terminate()
  await left(client)
  await client.send('b')
  t.strictSame(texts((await server.peer(1)).frames), ['b'])
})

t.test('a message that breaks the connection each time is given up', async (t) => {
  const server = await scriptedServer(t, { ack: false, onFrame: (peer, { type }) => { if (type === 'message') peer.ws.terminate() } })
  const { client } = recordedClient(t, server.url)
  await t.rejects(client.send('poison', { retry: true }), { code: 'UNKNOWN_OUTCOME' })
  t.equal(server.peers.length, 5)
})

t.test('the queue is bounded in messages and in bytes', async (t) => {
  const server = await scriptedServer(t, { welcome: false })
  const few = recordedClient(t, server.url, { queue: { maxMessages: 3 } })
  const waiting = ['a', 'b', 'c'].map(async text => await few.client.send(text))
  await t.rejects(few.client.send('d'), { code: 'QUEUE_FULL' })
  few.client.send('e', { ack: false })
  await until(() => few.events.error.length === 1)
  t.match(few.events.error, [{ code: 'QUEUE_FULL' }])
  few.client.close()
  for (const { status, reason } of await Promise.allSettled(waiting) as PromiseRejectedResult[]) {
    t.match([status, reason.code], ['rejected', 'CLOSED'])
  }

  const small = recordedClient(t, server.url, { queue: { maxBytes: 100 } })
  const large = small.client.send('x'.repeat(1_000)).catch(() => {}) // alone it may be larger
  await t.rejects(small.client.send('y'), { code: 'QUEUE_FULL' })
  small.client.close()
  await large
})

t.test('room in the queue comes back with the acks', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url, { queue: { maxMessages: 10, maxBytes: 500 } })
  for (let round = 0; round < 50; round++) await Promise.all(Array.from({ length: 10 }, async () => await client.send('12345')))
  t.equal(texts((await server.peer(0)).frames).length, 500)
})

t.test('no more than a window goes out unanswered, and half of it after 1008', async (t) => {
  const held: Array<() => void> = []
  let holding = true
  const server = await scriptedServer(t, {
    ack: false,
    onFrame: (peer, { type, id }) => {
      if (type !== 'message') return
      if (holding) held.push(() => peer.send({ type: 'ack', id }))
      else peer.send({ type: 'ack', id })
    }
  })
  const { client } = recordedClient(t, server.url)
  await isOpen(client)
  const outcomes = Array.from({ length: 400 }, async (_, n) => await client.send(String(n), { retry: true }))
  const first = await server.peer(0)
  await until(() => held.length >= 100)
  await new Promise(resolve => setTimeout(resolve, 30))
  t.equal(held.length, 100)
  first.ws.close(1008, 'too many messages waiting')
  const second = await server.peer(1)
  await until(() => held.length >= 150)
  await new Promise(resolve => setTimeout(resolve, 30))
  t.equal(texts(second.frames).length, 50)
  holding = false
  for (const release of held.slice(100)) release()
  await Promise.all(outcomes)
  t.strictSame(texts(second.frames), Array.from({ length: 400 }, (_, n) => String(n)), 'in order')
})

t.test('ack: false asks for no answer, unless it had to wait', async (t) => {
  const server = await scriptedServer(t, { ack: false })
  const { client, events } = recordedClient(t, server.url)
  await isOpen(client)
  t.equal(client.send('a', { ack: false }) as unknown, undefined)
  const first = await server.peer(0)
  t.strictSame(await first.got('message'), { type: 'message', data: 'a' })
  first.ws.terminate()
  await left(client)
  client.send('b', { ack: false })
  const second = await server.peer(1)
  t.match(await second.got('message'), { data: 'b', id: Number })
  second.ws.terminate()
  await server.peer(2)
  t.strictSame(events.error, [], 'nobody is told that it may be lost')
})

t.test('after the server said reconnect, messages wait for the next connection', async (t) => {
  const server = await scriptedServer(t)
  const { client } = recordedClient(t, server.url)
  const first = await server.peer(0)
  await isOpen(client)
  first.send({ type: 'reconnect', afterMs: 10 }, { type: 'message', data: 'marker' })
  await new Promise<void>(resolve => { client.on('message', () => resolve()) })
  const sent = client.send('a')
  await new Promise(resolve => setTimeout(resolve, 30))
  first.ws.close(1001)
  await sent
  t.strictSame(texts(first.frames), [])
  t.strictSame(texts((await server.peer(1)).frames), ['a'])
})

t.test('close() rejects what is not acknowledged, and says whether it was sent', async (t) => {
  const server = await scriptedServer(t, { ack: false })
  const { client } = recordedClient(t, server.url)
  await isOpen(client)
  const outcomes = Array.from({ length: 101 }, async (_, n) => await client.send(String(n)).then(() => 'done', error => String(error.code)))
  client.close()
  const codes = await Promise.all(outcomes)
  t.strictSame([codes[0], codes[99], codes[100]], ['UNKNOWN_OUTCOME', 'UNKNOWN_OUTCOME', 'CLOSED'])
})

t.test('a queue of more messages than a call takes arguments goes out', t => {
  const queue = new SendQueue({ maxMessages: 300_000, maxBytes: 100_000_000 })
  for (let n = 0; n < 200_000; n++) void queue.message({ data: '' }, {})
  const sent: string[] = []
  queue.attach({ bufferedAmount: 0, send: text => { sent.push(text) } }, () => queue.ask({ type: 'join', group: 'g' }, () => {}))
  t.match(sent.slice(0, 2).map(text => JSON.parse(text) as Frame), [{ type: 'join' }, { type: 'message', id: 1 }])
  t.end()
})
