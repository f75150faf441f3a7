// Whatever bytes come on a socket, before the upgrade and after it.
import fc from 'fast-check'
import { connect } from 'node:net'
import t from 'tap'
import { clientFrame, upgradeHead } from '../http/raw.ts'
import { attacked, fuzz } from './rig.ts'

const service = await attacked(t, { maxQueuedMessages: 20 }, app => {
  app.get('/echo', { websocket: true }, app.wsHandler({ onMessage (connection, data) { connection.send(data) } }))
  app.get('/slow', { websocket: true }, app.wsHandler({ onMessage: async () => await new Promise(resolve => setTimeout(resolve, 1)) }))
  app.post('/plain', async () => 'plain')
})

/** Closed by RFC 6455, by a limit, or without a word. */
const closeCodes = new Set([1000, 1001, 1002, 1005, 1007, 1008, 1009, 4008, 4400, 4408])

const bytes = fc.uint8Array({ maxLength: 200 }).map(data => Buffer.from(data))
const frame = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.tuple(fc.constantFrom(0, 1, 2, 8, 9, 10), bytes, fc.boolean())
      .map(([code, data, final]) => clientFrame(code, data, final))
  },
  // Any first byte: reserved bits, unknown opcodes; any length that is announced and does not come.
  { weight: 3, arbitrary: fc.tuple(fc.nat(255), fc.nat(255), bytes).map(([a, b, data]) => Buffer.concat([Buffer.from([a, b]), data])) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 60_000 }).map(size => clientFrame(2, Buffer.alloc(size))) },
  {
    weight: 1,
    arbitrary: fc.integer({ min: 1, max: 2_000 }).map(count => Buffer.concat(Array.from({ length: count }, () => clientFrame(1, ''))))
  },
  { weight: 1, arbitrary: bytes }
)
const header = fc.tuple(
  fc.constantFrom(
    'Upgrade', 'Connection', 'Sec-WebSocket-Version', 'Sec-WebSocket-Key', 'Sec-WebSocket-Protocol', 'Sec-WebSocket-Extensions', 'Host',
    'Origin', 'Content-Length', 'Expect'
  ),
  fc.oneof(
    fc.constantFrom('websocket', 'h2c', 'Upgrade', 'keep-alive', '13', '8', 'wsg.v1', 'permessage-deflate', 'bearer, x', '0', '5', ''),
    fc.string({ maxLength: 30 })
  )
)
const input = fc.record({
  path: fc.oneof(fc.constantFrom('/echo', '/slow', '/bystander/x', '/plain', '/nowhere', '/bystander/%00', '*'), fc.webPath()),
  headers: fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, { weight: 2, arbitrary: fc.array(header, { maxLength: 4 }) }),
  framed: fc.boolean(),
  chunks: fc.array(frame, { maxLength: 6 }),
  ending: fc.constantFrom('end', 'reset', 'wait')
})

interface Input {
  readonly path: string
  readonly headers: ReadonlyArray<readonly [string, string]>
  readonly framed: boolean
  readonly chunks: readonly Buffer[]
  readonly ending: string
}

/** All that the server said to it. The client is gone then. */
async function attempt ({ path, headers, framed, chunks, ending }: Input): Promise<Buffer> {
  const socket = connect({ port: service.port, host: '127.0.0.1' })
  const received: Buffer[] = []
  socket.on('data', chunk => received.push(chunk))
  socket.on('error', () => {}) // 'close' follows
  const gone = new Promise(resolve => socket.once('close', resolve))
  const clean = headers.map(([name, value]) => [name, value.replace(/[^\x20-\x7e]/g, '?')] as const)
  socket.write(upgradeHead(
    path.replace(/[^\x21-\x7e]/g, '?') || '/', { ...(framed ? { 'Sec-WebSocket-Protocol': 'wsg.v1' } : {}), ...Object.fromEntries(clean) }
  ))
  for (const chunk of chunks) socket.write(chunk)
  await new Promise(resolve => setTimeout(resolve, ending === 'wait' ? 30 : 5))
  if (ending === 'reset') socket.resetAndDestroy()
  else socket.end()
  const timer = setTimeout(() => socket.destroy(), 200)
  await gone
  clearTimeout(timer)
  return Buffer.concat(received)
}

/** The code of the close frame at the end of what a WebSocket server sent. */
function closeCode (bytes: Buffer): number | undefined {
  for (let at = 0; at + 2 <= bytes.length;) {
    const [first = 0, second = 0] = bytes.subarray(at)
    const head = second === 126 ? 4 : second === 127 ? 10 : 2
    if (at + head > bytes.length) return undefined
    const size = second === 126 ? bytes.readUInt16BE(at + 2) : second === 127 ? Number(bytes.readBigUInt64BE(at + 2)) : second
    if ((first & 15) === 8) return size < 2 || at + head + 2 > bytes.length ? 1005 : bytes.readUInt16BE(at + head)
    at += head + size
  }
  return undefined
}

await fuzz(t, input, async one => {
  const answer = await attempt(one)
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(answer.toString('latin1'))?.[1] ?? 0)
  // What is not even HTTP gets a 400, or nothing when the client was gone first. The service is at fault for none of it.
  if (status >= 500 && status !== 501) throw new Error(`the answer is ${status}`)
  if (status !== 101) return
  const code = closeCode(answer.subarray(answer.indexOf('\r\n\r\n') + 4))
  // A client that says a code itself gets it back.
  const said = one.chunks.some(chunk => (chunk[0] ?? 0) % 16 === 8)
  if (code !== undefined && !closeCodes.has(code) && !said) throw new Error(`closed with ${code}`)
})
await service.finish()
