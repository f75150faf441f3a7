import t from 'tap'
import { streamsOf } from '../../lib/client/streams.ts'
import { until } from '../helpers/until.ts'
import { message, recordedClient, scriptedServer } from './scripted-server.ts'

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
