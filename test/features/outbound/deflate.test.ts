import t from 'tap'
import { WebSocket } from 'ws'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { serveGroups, streamOf, watchWrites } from './service.ts'

noUnhandled(t)

const text = JSON.stringify({ words: 'the same words again and again, '.repeat(100) })

t.test('a broadcast is compressed once for all who share the parameters, and each client can read it', async t => {
  const service = await serveGroups(t, { options: { perMessageDeflate: { threshold: 500 } } })
  const kinds = [true, true, { serverMaxWindowBits: 10 }, { serverNoContextTakeover: true }, { serverMaxWindowBits: 8 }, false] as const
  const clients = await Promise.all(kinds.map(async perMessageDeflate => {
    const socket = new WebSocket(`${service.url}/ws?groups=g`, { perMessageDeflate })
    const got: string[] = []
    socket.on('message', data => got.push(String(data)))
    await new Promise(resolve => socket.once('message', resolve))
    t.teardown(() => socket.terminate())
    return { socket, got, read: () => streamOf(socket).bytesRead }
  }))
  const writes = watchWrites(service)
  const before = clients.map(({ read }) => read())
  const sent: string[] = []
  for (let n = 0; n < 20; n++) {
    const message = `${n} ${n % 3 === 0 ? 'short' : text}`
    sent.push(message)
    await service.registry.broadcastToGroup('g', message)
    // Its own messages in between must not confuse the context of a client.
    for (const connection of service.registry.all()) connection.send(`own ${message}`)
    sent.push(`own ${message}`)
  }
  await new Promise<void>(resolve => clients[0]?.socket.on('pong', () => resolve()).ping())
  await Promise.all(clients.map(async ({ socket }) => await new Promise<void>(resolve => socket.once('pong', () => resolve()).ping())))
  for (const [i, { got }] of clients.entries()) t.strictSame(got.slice(1), sent, `client ${i}`)
  const bytes = clients.map(({ read }, i) => read() - (before[i] ?? 0))
  const plain = bytes.at(-1) ?? 0
  for (const small of bytes.slice(0, 4)) t.ok(small < plain / 5, `${small} of ${plain} bytes`)
  t.equal(Math.round((bytes[4] ?? 0) / 1_000), Math.round(plain / 1_000), 'a window that zlib cannot make is not used')
  t.equal(writes.size, kinds.length)
})

t.test('clients of a kind are written the very same bytes', async t => {
  const service = await serveGroups(t, { options: { perMessageDeflate: true } })
  const sockets = await Promise.all([1, 2, 3].map(async () => {
    const socket = new WebSocket(`${service.url}/ws?groups=g`)
    await new Promise(resolve => socket.once('message', resolve))
    t.teardown(() => socket.terminate())
    return socket
  }))
  const writes = watchWrites(service)
  const arrived = Promise.all(sockets.map(async socket => await new Promise(resolve => socket.once('message', resolve))))
  await service.registry.broadcastToGroup('g', text)
  await arrived
  const chunks = [...writes.values()].map(([first]) => first)
  t.ok(chunks[0] !== undefined && chunks.every(chunk => chunk === chunks[0]))
  t.equal((chunks[0]?.[0] ?? 0) & 0x40, 0x40, 'compressed')
  t.ok((chunks[0]?.length ?? Infinity) < text.length / 5)
})
