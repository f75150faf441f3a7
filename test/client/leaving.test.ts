import t from 'tap'
import { until } from '../helpers/until.ts'
import { message, position, recordedClient, scriptedServer, type Frame } from './scripted-server.ts'

const joined = (
  group: string, n?: number, more: object = {}
): Frame => ({ type: 'joined', group, ...n === undefined ? {} : { position: position(n) }, ...more })

t.test('a leave and a join at once: what is left is the membership before, not the one that is joined', async (t) => {
  // As the server does it: one after the other, `left` before its ack.
  const server = await scriptedServer(t, {
    ack: false,
    onFrame: (peer, { type, group, id, since }) => {
      if (type === 'leave') peer.send(message('g', 3), { type: 'left', group })
      if (type === 'join') peer.send(joined('g', since ? 9 : 5, since ? { recovered: true } : {}))
      if (id) peer.send({ type: 'ack', id })
    }
  })
  const { client, events } = recordedClient(t, server.url)
  await client.join('g')
  const first = await server.peer(0)
  const before = first.frames.length
  await Promise.all([client.leave('g'), client.join('g')])
  t.strictSame(client.groups, ['g'])
  t.strictSame(client.positions, { g: position(5) })
  // A leave that is answered while a later one is not.
  const outdated = (client.leave('g'), client.join('g'))
  await Promise.all([client.leave('g'), client.join('g', { since: position(8) }), t.rejects(outdated, { code: 'LEFT' })])
  t.match(first.frames.slice(before).map(({ type, since }) => [type, since]),
    [['leave'], ['join', undefined], ['leave'], ['join', undefined], ['leave'], ['join', position(8)]], 'nothing is resumed that was left')
  t.strictSame([client.groups, client.positions, events.gap], [['g'], { g: position(9) }, []])
  first.send({ type: 'left', group: 'g' }, joined('h')) // by the server, later
  await until(() => client.groups.includes('h'))
  t.strictSame(client.groups, ['h'])
  await client.join('g')
  first.ws.terminate()
  t.match(await (await server.peer(1)).got('join'), { group: 'g' })
})

t.test('a leave and a join at once, and a break before the answers: joined on the next connection, from no earlier position', async (t) => {
  const server = await scriptedServer(t, {
    ack: false,
    onFrame: (peer, { type, id }) => {
      if (type === 'join' && server.peers.length > 1) {
        peer.send({ type: 'ack', id })
      }
    }
  })
  const { client, events } = recordedClient(t, server.url)
  const first = await server.peer(0)
  first.send(joined('g', 1), joined('h', 1))
  await until(() => events.joined.length === 2)
  const all = [client.leave('g'), client.join('g'), client.leave('h'), client.join('h', { since: position(7) })]
  await until(() => first.frames.length === 5)
  first.ws.terminate()
  await Promise.all(all)
  const second = await server.peer(1)
  t.strictSame(second.frames[0]?.resume, { h: position(7) })
  t.match(
    second.frames.slice(1).map(({ type, group, since }) => [type, group, since]), [['join', 'g', undefined], ['join', 'h', position(7)]]
  )
})
