import t, { type Test } from 'tap'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { randomBytes } from 'node:crypto'
import { constants, deflateRawSync } from 'node:zlib'
import type * as Ws from 'ws'
import type { LocalConnection } from '../../../lib/connection/connection.ts'
import { IntakeBudget } from '../../../lib/connection/inbound/intake-budget.ts'
import { resolveLimits } from '../../../lib/options/limits.ts'
import type { Rate } from '../../../lib/options/types.ts'
import { Metrics } from '../../../lib/metrics.ts'
import { connectionOn } from '../../helpers/fakes.ts'
import { until } from '../../helpers/until.ts'
import { clientFrame, rawConnection, upgradeHead, type RawConnection } from '../../http/raw.ts'

const require = createRequire(import.meta.url)
/** The oldest release that @fastify/websocket takes, and the one that is installed. */
const releases = {
  'ws-oldest': require('ws-oldest') as typeof Ws,
  ws: createRequire(require.resolve('@fastify/websocket'))('ws') as typeof Ws
}

interface Flooded {
  readonly socket: Ws.WebSocket
  readonly connection: LocalConnection
  readonly metrics: Metrics
  readonly messages: Array<string | Buffer>
  readonly ends: number[]
  readonly client: RawConnection
  readonly intake: IntakeBudget
  /** How many connections gave their groups back. */
  readonly released: () => number
  /** Opens another one. */
  open (): Promise<RawConnection>
}

/** `ready`: what each message is handled after; `rate`: the limit of their rate; `perMessageDeflate`: clients may compress. */
async function flooded (
  t: Test, { WebSocketServer }: typeof Ws, ready?: Promise<void>, rate?: Rate, perMessageDeflate = false
): Promise<Flooded> {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', maxPayload: 1_048_576, perMessageDeflate })
  t.teardown(() => {
    for (const client of server.clients) client.terminate()
    server.close()
  })
  await once(server, 'listening')
  const metrics = new Metrics()
  const messages: Array<string | Buffer> = []
  const ends: number[] = []
  const sockets: Ws.WebSocket[] = []
  const connections: LocalConnection[] = []
  const intake = new IntakeBudget({ ...resolveLimits(), messages: rate }, metrics)
  let released = 0
  server.on('connection', socket => {
    sockets.push(socket)
    const { connection: opened, start } = connectionOn(socket, {
      id: `i.${sockets.length}`,
      metrics,
      callbacks: {
        onMessage (connection, data) {
          messages.push(data)
          if (ready !== undefined) return ready
          connection.send('got it')
        },
        onDisconnect (_, { code }) { ends.push(code) }
      },
      host: { intake, release: async () => { released++ } }
    })
    connections.push(opened)
    start()
  })
  const open = async (): Promise<RawConnection> => {
    const client = await rawConnection(t, `http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    client.write(upgradeHead('/', perMessageDeflate ? { 'Sec-WebSocket-Extensions': 'permessage-deflate' } : {}))
    await client.answers(1)
    return client
  }
  const client = await open()
  const [socket, connection] = [sockets[0] as Ws.WebSocket, connections[0] as LocalConnection]
  return { socket, connection, metrics, messages, ends, client, intake, released: () => released, open }
}

for (const [name, release] of Object.entries(releases)) {
  t.test(`${name}: the answers to a client that pings and never reads do not pile up`, async t => {
    const { socket, metrics, ends, client, open } = await flooded(t, release)
    const bystander = await open()
    client.socket.pause()
    const stream = (socket as unknown as { _socket: { writableLength: number } })._socket
    let received = 0
    let most = 0
    socket.on('ping', () => {
      received++
      most = Math.max(most, stream.writableLength)
    })
    const pings = Buffer.concat(Array.from({ length: 500 }, () => clientFrame(9, Buffer.alloc(125))))
    for (let sent = 500; sent <= 50_000; sent += 500) {
      client.write(pings)
      await until(() => received === sent)
    }
    t.ok(most < 500, `${most} bytes waited at most`)
    bystander.write(clientFrame(1, 'hello'))
    await until(() => bystander.text.endsWith('got it'))
    client.write(clientFrame(9, 'latest'))
    client.socket.resume()
    await until(() => client.text.endsWith('\x8a\x06latest'))
    t.strictSame(ends, [])
    t.equal(metrics.slowConsumersClosed, 0)
  })

  t.test(`${name}: nothing more is inflated once this side ended the connection and the network socket is gone`, async t => {
    const { socket, connection, client, ends } = await flooded(t, release, undefined, undefined, true)
    t.match(client.text, /permessage-deflate/)
    const count = 60
    let inflated = 0
    socket.on('message', () => {
      inflated++
      if (inflated === 3) connection.terminate()
    })
    const deflated = deflateRawSync(Buffer.alloc(1_000_000), { finishFlush: constants.Z_SYNC_FLUSH, level: 9 }).subarray(0, -4)
    const compressed = clientFrame(0x42, deflated)
    // All of them fit into one chunk of the network.
    client.write(Buffer.concat(Array.from({ length: count }, () => compressed)))
    await once(socket, 'close')
    await until(() => ends.length === 1)
    t.ok(inflated < 6, `${inflated} of ${count} were inflated`)
  })

  t.test(`${name}: of many pings at once the latest is answered`, async t => {
    const { ends, client } = await flooded(t, release)
    let pings = 0
    for (let n = 1; n <= 20; n++) {
      const last = String(100 + n)
      // The release that is installed has a limit of its own, of 60.
      client.write(Buffer.concat([...Array.from({ length: 200 }, () => clientFrame(9, 'x')), clientFrame(9, last)]))
      pings += 201
      await until(() => client.text.endsWith(`\x8a\x03${last}`))
    }
    const pongs = client.text.split('\x8a').length - 1
    t.ok(pongs < pings / 4, `${pongs} answers to ${pings} pings`)
    t.strictSame(ends, [])
  })

  const frames = {
    pings: clientFrame(9, 'x'),
    'pongs that nobody asked for': clientFrame(10, 'x'),
    'twenty empty parts of a message': Buffer.concat(Array.from({ length: 20 }, (_, n) => clientFrame(n === 0 ? 1 : 0, '', false)))
  }
  for (const [kind, frame] of Object.entries(frames)) {
    t.test(`${name}: ${kind} count as messages do, and no more come through than messages would`, async t => {
      const { socket, metrics, ends, client, intake } = await flooded(t, release, undefined, { perSecond: 1, burst: 100 })
      const receiver = (socket as unknown as { readonly _receiver: { readonly writableLength: number } })._receiver
      client.write(kind.startsWith('twenty') ? frame : Buffer.concat(Array.from({ length: 90 }, () => frame)))
      await until(() => client.socket.writableLength === 0)
      t.equal(intake.stats().socketsPaused, 0)
      const more = kind.startsWith('twenty') ? Array.from({ length: 20 * 110 }, () => clientFrame(0, '', false)) : Array(1_000).fill(frame)
      client.write(Buffer.concat(more as Buffer[]))
      await until(() => intake.stats().socketsPaused === 1)
      t.ok(receiver.writableLength > 1_000, 'the rest waits as it came')
      t.equal(metrics.pauses, 1)
      t.strictSame(ends, [])
    })
  }

  t.test(`${name}: a message of too many frames is refused, one of many is not`, async t => {
    const { metrics, ends, client, messages, open } = await flooded(t, release)
    const bystander = await open()
    const pieces = (count: number): Buffer => Buffer.concat([
      clientFrame(1, 'a', false),
      ...Array.from({ length: count }, () => clientFrame(0, 'b', false))
    ])
    client.write(pieces(4_000))
    client.write(clientFrame(0, 'c'))
    await until(() => messages.length === 1)
    t.equal(messages[0]?.length, 4_002)
    client.write(pieces(5_000))
    await until(() => ends.length === 1)
    t.strictSame(ends, [1008])
    t.equal(metrics.fragmentFloods, 1)
    bystander.write(clientFrame(1, 'hello'))
    await until(() => bystander.text.endsWith('got it'))
  })

  t.test(`${name}: of a chunk of small messages no more is read than may wait`, async t => {
    let open = (): void => {}
    const ready = new Promise<void>(resolve => { open = resolve })
    const { messages, client, intake, metrics, ends } = await flooded(t, release, ready)
    const numbers = Array.from({ length: 10_000 }, (_, n) => String(n))
    client.write(Buffer.concat(numbers.map(n => clientFrame(1, n))))
    await until(() => intake.stats().socketsPaused === 1)
    await new Promise(resolve => setTimeout(resolve, 50))
    // Ten may wait, and one part of a chunk was read beyond that.
    t.ok(Number(intake.stats().intakeBytes) < 50_000, `${intake.stats().intakeBytes ?? 0} bytes are held`)
    open()
    await until(() => messages.length === numbers.length)
    t.strictSame(messages, numbers)
    await until(() => intake.stats().intakeBytes === 0 && intake.stats().socketsPaused === 0)
    t.strictSame([ends, metrics.queueOverflows], [[], 0])
  })

  t.test(`${name}: messages of all sizes come as they were sent, however the network cuts them`, async t => {
    const { messages, client } = await flooded(t, release)
    const sent = Array.from({ length: 300 }, (_, n) => randomBytes(n % 50 === 0 ? 100_000 : n % 7 === 0 ? n * 40 : n % 20))
    const bytes = Buffer.concat(sent.map((data, n) => n % 3 === 0
      ? Buffer.concat([clientFrame(2, data.subarray(0, n), false), clientFrame(9, 'ping'), clientFrame(0, data.subarray(n))])
      : clientFrame(2, data)))
    for (let at = 0, size = 1; at < bytes.length; at += size, size = 1 + size * 7 % 60_000) client.write(bytes.subarray(at, at + size))
    await until(() => messages.length === sent.length)
    t.ok(messages.every((data, n) => Buffer.from(data).equals(sent[n] ?? Buffer.alloc(0))))
  })

  t.test(`${name}: a client that is gone while much of it waits is out of its groups at once, and ends when all is handled`, async t => {
    let open = (): void => {}
    const ready = new Promise<void>(resolve => { open = resolve })
    const { socket, messages, client, ends, intake, released } = await flooded(t, release, ready)
    client.write(Buffer.concat(Array.from({ length: 10_000 }, () => clientFrame(1, 'x'))))
    await until(() => intake.stats().socketsPaused === 1)
    client.socket.resetAndDestroy()
    // A socket that is not read is not seen to end: the next write shows it, such as a ping.
    await until(() => {
      if (socket.readyState === socket.OPEN) socket.ping()
      return released() === 1
    })
    t.strictSame(ends, [])
    open()
    await until(() => ends.length === 1)
    t.ok(messages.length > 0)
  })

  t.test(`${name}: a frame that comes in tiny chunks is put together as it comes`, async t => {
    const { socket, messages, client } = await flooded(t, release)
    const receiver = (socket as unknown as { _receiver: { write (chunk: Buffer): void, readonly _buffers: readonly Buffer[] } })._receiver
    const payload = randomBytes(10_000)
    let most = 0
    for (const byte of clientFrame(2, payload)) {
      receiver.write(Buffer.from([byte]))
      most = Math.max(most, receiver._buffers.length)
    }
    await until(() => messages.length === 1)
    t.strictSame(messages[0], payload)
    t.ok(most > 1_000 && most <= 1_024, String(most))
    client.write(clientFrame(1, 'and on'))
    await until(() => messages.length === 2)
    t.equal(messages[1], 'and on')
  })
}
