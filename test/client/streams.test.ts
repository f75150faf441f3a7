import t, { type Test } from 'tap'
import { streamsOf, type Streams } from '../../lib/client/streams.ts'
import { until } from '../helpers/until.ts'
import { message, recordedClient, scriptedServer, type Frame } from './scripted-server.ts'

t.test('a stream that begins after the list was read, and is heard of before the list arrives, is not taken for lost', async t => {
  const server = await scriptedServer(t, { ack: false })
  const { client, events } = recordedClient(t, server.url)
  const streams = streamsOf(client)
  const peer = await server.peer(0)
  peer.send({ type: 'joined', group: 'lobby' })
  const list = await until(() => peer.frames.find(({ data }) => String(data).includes('wsg.stream.list')))
  const piece = { id: 'answer', epoch: 'e', at: 0, to: 6, text: 'so far' }
  peer.send(message('lobby', 1, JSON.stringify({ type: 'wsg.stream', data: piece })))
  await until(() => streams.get('lobby', 'answer')?.text === 'so far')
  peer.send({ type: 'ack', id: list.id, data: { ids: [] } }, message('lobby', 2))
  await until(() => events.message.length === 2)
  t.match(streams.get('lobby', 'answer'), { state: 'open', text: 'so far', error: undefined })
})

/** A client that is in the lobby of a server without streams: the test answers its reads. */
async function reading (t: Test): Promise<{
  readonly streams: Streams
  /** Sends a piece of the stream `answer`; resolves when the client has it. */
  piece (at: number, text: string, more?: object): Promise<void>
  /** The n-th request to read the stream, from 0; `reads` tells how many there are. */
  read (n: number): Promise<Frame>
  reads (): number
  answer (read: Frame, at: number, text: string, more?: object): void
  refuse (read: Frame, code: string): void
}> {
  const server = await scriptedServer(t, { ack: false })
  const { client, events } = recordedClient(t, server.url)
  const streams = streamsOf(client)
  const peer = await server.peer(0)
  peer.send({ type: 'joined', group: 'lobby' })
  const part = (at: number, text: string, more: object = {}): object => {
    return { id: 'answer', epoch: 'e', at, to: at + text.length, text, ...more }
  }
  const reads = (): readonly Frame[] => peer.frames.filter(({ data }) => String(data).includes('wsg.stream.read'))
  let sent = 0
  return {
    streams,
    piece: async (...args) => {
      const n = ++sent
      peer.send(message('lobby', n, JSON.stringify({ type: 'wsg.stream', data: part(...args) })))
      await until(() => events.message.length === n)
    },
    read: async n => await until(() => reads()[n]),
    reads: () => reads().length,
    answer: ({ id }, ...args) => peer.send({ type: 'ack', id, data: part(...args) }),
    refuse: ({ id }, code) => peer.send({ type: 'error', id, code, message: code })
  }
}

t.test('pieces that come while the stream is read, and that the answer lacks, are read', async t => {
  const { streams, piece, read, answer } = await reading(t)
  await piece(3, 'def')
  const first = await read(0)
  await piece(6, 'ghi')
  await piece(9, 'jkl', { end: 'done' })
  answer(first, 0, 'abcdef')
  const second = await read(1)
  t.match(JSON.parse(String(second.data)), { data: { epoch: 'e', from: 6 } })
  answer(second, 6, 'ghijkl', { end: 'done' })
  await until(() => streams.get('lobby', 'answer')?.state === 'done')
  t.equal(streams.get('lobby', 'answer')?.text, 'abcdefghijkl')
})

t.test('a single piece that comes while the stream is read, and that the answer lacks, is added without another read', async t => {
  const { streams, piece, read, reads, answer } = await reading(t)
  await piece(3, 'def')
  const first = await read(0)
  await piece(6, 'ghi', { end: 'done' })
  answer(first, 0, 'abcdef')
  await until(() => streams.get('lobby', 'answer')?.state === 'done')
  t.equal(streams.get('lobby', 'answer')?.text, 'abcdefghi')
  t.equal(reads(), 1)
})

t.test('a stream that ends while it is read, and that the server no longer has, stays done', async t => {
  const { streams, piece, read, reads, refuse } = await reading(t)
  await piece(0, 'abc')
  await piece(6, 'ghi')
  const first = await read(0)
  await piece(0, 'abcdefghi', { epoch: 'f', end: 'done' })
  refuse(first, 'WSG_STREAM_UNKNOWN')
  // It is read once more where the refusal is handled.
  await until(async () => {
    await piece(12, 'jkl', { epoch: 'g' })
    return reads() === 2
  })
  t.match(streams.get('lobby', 'answer'), { state: 'done', text: 'abcdefghi', error: undefined })
})

t.test('the streams that ended last are kept, whenever they were heard of first', async t => {
  const server = await scriptedServer(t)
  const { client, events } = recordedClient(t, server.url)
  const streams = streamsOf(client, { maxEnded: 3 })
  const peer = await server.peer(0)
  peer.send({ type: 'joined', group: 'first' }, { type: 'joined', group: 'second' })
  const pieces = [['first', 'long'], ['second', 'a', 'done'], ['second', 'b', 'done'], ['second', 'c', 'done'], ['first', 'long', 'done']]
  for (const [n, [group = '', id, end]] of pieces.entries()) {
    const piece = { id, epoch: 'e', at: 0, to: end === undefined ? 1 : 2, text: end === undefined ? 'x' : 'xy', end }
    peer.send(message(group, n, JSON.stringify({ type: 'wsg.stream', data: piece })))
  }
  await until(() => events.message.length === pieces.length)
  t.match(streams.get('first', 'long'), { state: 'done', text: 'xy' })
  t.strictSame(streams.list('second').map(({ id }) => id), ['b', 'c'])
})

t.test('streams of a group that the client left without a connection are asked for once, and forgotten', async t => {
  let refused = 0
  const server = await scriptedServer(t, {
    ack: false,
    onFrame: (peer, { id, data }) => {
      if (id === undefined) return
      const isRead = String(data).includes('wsg.stream.read')
      if (isRead && peer !== server.peers[0]) {
        refused++
        peer.send({ type: 'error', id, code: 'WSG_FORBIDDEN', message: 'not in the group' })
      } else peer.send({ type: 'ack', id, data: isRead ? { id: 'answer', epoch: 'e', at: 0, to: 1, text: 'x' } : { ids: ['answer'] } })
    }
  })
  const { client } = recordedClient(t, server.url)
  const streams = streamsOf(client, { quietMs: 50 })
  client.on('state', ({ state }) => { if (state === 'waiting') void client.leave('lobby') })
  const peer = await server.peer(0)
  await client.join('lobby')
  peer.send({ type: 'joined', group: 'lobby' })
  await until(() => streams.get('lobby', 'answer')?.text === 'x')
  peer.ws.terminate()
  await until(() => refused === 1)
  await until(() => streams.list('lobby').length === 0)
})

t.test('a group that is left while its streams are read does not come back', async t => {
  const server = await scriptedServer(t, { ack: false })
  const { client, events } = recordedClient(t, server.url)
  const streams = streamsOf(client)
  const peer = await server.peer(0)
  const asked = async (what: string): Promise<Frame> => await until(() => peer.frames.find(({ data }) => String(data).includes(what)))
  peer.send({ type: 'joined', group: 'lobby' })
  peer.send({ type: 'ack', id: (await asked('wsg.stream.list')).id, data: { ids: ['one', 'two'] } })
  const { id } = await asked('wsg.stream.read')
  peer.send({ type: 'left', group: 'lobby' }, { type: 'ack', id, data: { id: 'one', epoch: 'e', at: 0, to: 1, text: 'x' } })
  peer.send({ type: 'ack' }, message('other', 1))
  await until(() => events.message.length === 1)
  await new Promise(resolve => { setTimeout(resolve, 50) })
  t.equal(peer.frames.filter(({ data }) => String(data).includes('wsg.stream.read')).length, 1)
  t.strictSame(streams.list('lobby'), [])
})
