import t from 'tap'
import { connect as connectSocket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { connect, type TestClient } from '../../helpers/client.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { seededRandom } from '../../helpers/fakes.ts'
import { serveGroups, watchWrites, type Service } from './service.ts'

noUnhandled(t)

async function join (t: Parameters<typeof connect>[0], service: Service, groups: string): Promise<TestClient & { readonly id: string }> {
  const client = connect(t, `${service.url}/ws?groups=${groups}`)
  const id = String(await client.next()).slice(3)
  return Object.assign(client, { id })
}

t.test('what comes for a connection in one turn of the event loop is one write, in the order it came', async t => {
  const service = await serveGroups(t)
  const { registry } = service
  const [a, b, c] = [await join(t, service, 'one,two'), await join(t, service, 'one,two'), await join(t, service, 'two')]
  const writes = watchWrites(service)
  const direct = registry.get(b.id)
  await registry.broadcastToGroup('one', '1')
  await registry.broadcastToGroup('two', Buffer.from('2'))
  direct?.send('for b')
  await registry.broadcastToAll('3')
  for (const [client, want] of [[a, ['1', '2', '3']], [b, ['1', '2', 'for b', '3']], [c, ['2', '3']]] as const) {
    for (const text of want) t.equal(String(await client.next()), text)
  }
  t.strictSame([...writes.values()].map(({ length }) => length), [1, 1, 1])
  await registry.broadcastToGroup('two', 'x')
  await registry.broadcastToGroup('two', 'y')
  for (const client of [a, b, c]) t.strictSame([await client.next(), await client.next()], ['x', 'y'])
  const last = [...writes.values()].map(chunks => chunks.at(-1))
  t.ok(last[0] !== undefined && last.every(chunk => chunk === last[0]), 'the bytes are put together once for all')
})

t.test('direct sends and broadcasts to several groups keep their order, in whatever mix', async t => {
  const service = await serveGroups(t)
  const groups = ['g0', 'g1', 'g2', 'g3']
  const memberships = ['g0', 'g0,g1', 'g1,g2,g3', 'g0,g1,g2,g3', 'g3', 'g2,g0']
  const clients: Array<TestClient & { readonly id: string }> = []
  for (const membership of memberships) clients.push(await join(t, service, membership))
  const random = seededRandom(4)
  const expected = clients.map((): string[] => [])
  for (let n = 0; n < 2_000; n++) {
    const text = `${n} ${'x'.repeat(random(20) === 0 ? random(70_000) : random(200))}`
    const to = random(7)
    if (to < 4) {
      await service.registry.broadcastToGroup(groups[to] ?? '', text)
      for (const [i, membership] of memberships.entries()) if (membership.includes(`g${to}`)) expected[i]?.push(text)
    } else if (to === 4) {
      await service.registry.broadcastToAll(text)
      for (const list of expected) list.push(text)
    } else {
      const i = random(clients.length)
      service.registry.get(clients[i]?.id ?? '')?.send(text)
      expected[i]?.push(text)
    }
    if (random(10) === 0) await turn()
  }
  for (const [i, client] of clients.entries()) {
    const got: string[] = []
    while (got.length < (expected[i]?.length ?? 0)) got.push(String(await client.next()))
    t.ok(got.join() === expected[i]?.join(), `client ${i}: ${got.length} messages`)
  }
})

t.test('what was sent before a close comes before it, whoever closes', async t => {
  const service = await serveGroups(t)
  const [left, ended] = [await join(t, service, 'g'), await join(t, service, 'g')]
  await service.registry.broadcastToGroup('g', 'news')
  const connection = service.registry.get(left.id)
  connection?.send('bye')
  connection?.close(4001)
  t.equal(connection?.send('too late'), false)
  t.equal((await left.closed).code, 4001)
  t.strictSame(left.messages.slice(1), ['news', 'bye'])
  service.registry.get(ended.id)?.send('bye')
  service.registry.get(ended.id)?.terminate()
  await ended.closed
  t.strictSame(ended.messages.slice(1), ['news', 'bye'])
})

t.test('a client that asks and closes in one breath still gets its answer', async t => {
  const service = await serveGroups(t)
  service.onMessage = (connection, data) => connection.send(`you said ${String(data)}`)
  const socket = connectSocket(service.port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  let text = ''
  socket.on('data', chunk => { text += chunk.toString('latin1') })
  socket.write(
    'GET /ws?groups=g HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
      'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n'
  )
  while (!text.includes('id ')) await new Promise(resolve => socket.once('data', resolve))
  socket.write(Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0x68, 0x69, 0x88, 0x80, 0, 0, 0, 0]))
  await new Promise(resolve => socket.once('close', resolve))
  t.ok(text.includes('you said hi'))
  t.ok(text.indexOf('you said hi') < text.lastIndexOf('\x88'), 'before the close frame')
})

t.test('with a flush interval messages wait for each other', async t => {
  const service = await serveGroups(t, { flushIntervalMs: 10 })
  const client = await join(t, service, 'g')
  const writes = watchWrites(service)
  for (let n = 0; n < 5; n++) {
    void service.registry.broadcastToGroup('g', String(n))
    await turn()
  }
  for (let n = 0; n < 5; n++) t.equal(await client.next(), String(n))
  t.strictSame([...writes.values()].map(({ length }) => length), [1])
})

t.test('a release of ws with another shape is used as it documents itself, with a warning', async t => {
  class OtherShape extends WebSocket {
    setSocket (...args: unknown[]): void {
      const base = WebSocket.prototype as unknown as { setSocket (...args: unknown[]): void }
      base.setSocket.apply(this, args)
      Object.assign(this, { _extensions: () => {} })
    }
  }
  const service = await serveGroups(t, { options: { WebSocket: OtherShape } as object })
  const client = await join(t, service, 'g')
  const writes = watchWrites(service)
  await service.registry.broadcastToGroup('g', 'a')
  service.registry.get(client.id)?.send('b')
  void service.registry.broadcastToGroup('g', Buffer.from('c'))
  t.strictSame([await client.next(), await client.next(), await client.next()], ['a', 'b', Buffer.from('c')])
  t.equal([...writes.values()][0]?.length, 6, 'a header and a payload for each')
  await client.close()
})
