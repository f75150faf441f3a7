// Shows that the load generator sees what goes wrong: a server that misbehaves on purpose, and what is reported of it.
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import test from 'node:test'
import { LoadGenerator } from '../rig/load-generator.ts'

function frame (opcode: number, payload: string): Buffer {
  const body = Buffer.from(payload)
  const header = Buffer.alloc(body.length < 126 ? 2 : body.length < 65_536 ? 4 : 10)
  header[0] = 0x80 | opcode
  header[1] = body.length < 126 ? body.length : body.length < 65_536 ? 126 : 127
  if (header.length === 4) header.writeUInt16BE(body.length, 2)
  if (header.length === 10) header.writeBigUInt64BE(BigInt(body.length), 2)
  return Buffer.concat([header, body])
}

const nowUs = (): bigint => process.hrtime.bigint() / 1_000n
const message = (n: number, { group = 0, bytes = 120, ageUs = 0n } = {}): string => `${group} ${n} ${nowUs() - ageUs} `.padEnd(bytes, 'x')

interface Opened { readonly load: LoadGenerator, readonly server: Server, readonly socket: Socket, readonly received: Buffer[] }

async function open (protocol: 'ws' | 'socketio', greeting: Buffer): Promise<Opened> {
  const received: Buffer[] = []
  const server = createServer(socket => {
    socket.once('data', () => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n')
      socket.write(greeting)
      socket.on('data', data => received.push(data as Buffer))
    })
  }).listen(0, '127.0.0.1')
  const connected = once(server, 'connection') as Promise<[Socket]>
  const load = new LoadGenerator()
  await once(server, 'listening')
  await load.open({ protocol, path: '/%u' }, [(server.address() as AddressInfo).port], { clients: 1, groups: 1 })
  return { load, server, socket: (await connected)[0], received }
}

async function close ({ load, server, socket }: Opened): Promise<void> {
  socket.destroy()
  server.close()
  await load.end()
}

/** In pieces that have nothing to do with the frames. */
async function writeInPieces (socket: Socket, bytes: Buffer, size: number): Promise<void> {
  for (let at = 0; at < bytes.length; at += size) {
    socket.write(bytes.subarray(at, at + size))
    await sleep(1)
  }
}

test('counts what is missing, doubled, out of order, and for another group', async () => {
  const opened = await open('ws', frame(1, 'joined'))
  await opened.load.start()
  const numbers = [1, 2, 4, 5, 5, 7, 6, 4, 100, 30]
  opened.socket.write(Buffer.concat([...numbers.map(n => frame(1, message(n))), frame(1, message(8, { group: 9 }))]))
  await sleep(200)
  const window = await opened.load.mark()
  const report = await opened.load.report()
  await close(opened)
  // 30 is more than 64 numbers behind 100: whether it came before is no longer known, and it counts as doubled.
  assert.deepEqual([window.delivered, report.delivered, report.doubled, report.outOfOrder, report.misled], [7, 7, 3, 1, 1])
})

test('puts frames of all lengths together from pieces, text and binary', async () => {
  const opened = await open('ws', frame(1, 'joined'))
  await opened.load.start()
  const frames = [40, 125, 126, 1_024, 16_384, 65_535, 65_536, 200_000, 120].map((bytes, i) => frame(i % 2 + 1, message(i + 1, { bytes })))
  await writeInPieces(opened.socket, Buffer.concat(frames), 1_009)
  await sleep(100)
  const window = await opened.load.mark()
  const { delivered, outOfOrder, broken } = await opened.load.report()
  await close(opened)
  assert.deepEqual([delivered, outOfOrder, broken], [9, 0, 0])
  assert.equal(window.bytes, 40 + 125 + 126 + 1_024 + 16_384 + 65_535 + 65_536 + 200_000 + 120)
})

test('measures ages to 4 %, and only between start and mark', async () => {
  const opened = await open('ws', frame(1, 'joined'))
  opened.socket.write(frame(1, message(1, { ageUs: 60_000_000n })))
  await sleep(50)
  await opened.load.start()
  const agesMs = Array.from({ length: 100 }, (_, i) => (i + 1) * 100)
  opened.socket.write(Buffer.concat(agesMs.map((ms, i) => frame(1, message(i + 2, { ageUs: BigInt(ms) * 1_000n })))))
  await sleep(50)
  await opened.load.mark()
  opened.socket.write(frame(1, message(102, { ageUs: 60_000_000n })))
  await sleep(50)
  const { delivered, ages } = await opened.load.report()
  await close(opened)
  assert.equal(delivered, 102)
  assert.equal(ages.count, 100)
  assert.equal(ages.buckets.reduce((sum, [, count]) => sum + count, 0), 100)
  for (const [us, wanted] of [[ages.p50, 5e6], [ages.p99, 9.9e6], [ages.max, 10e6]] as const) {
    assert.ok(Math.abs(us - wanted) < wanted * 0.04, `${us} instead of ${wanted}`)
  }
})

test('answers pings, and counts a connection that ends', async () => {
  const opened = await open('ws', frame(1, 'joined'))
  opened.socket.write(frame(9, 'are you there'))
  await sleep(100)
  assert.equal(Buffer.concat(opened.received).toString('latin1'), '\x8a\x8d\0\0\0\0are you there')
  opened.socket.end()
  await sleep(100)
  assert.equal((await opened.load.report()).broken, 1)
  await close(opened)
})

test('speaks engine.io and socket.io', async () => {
  const opened = await open(
    'socketio', Buffer.concat([frame(1, '0{"sid":"a"}'), frame(1, '40{"sid":"b"}'), frame(1, '42["text","joined"]')])
  )
  opened.socket.write(Buffer.concat([
    frame(1, '2'),
    frame(1, `42["text","${message(1)}"]`),
    frame(1, `42["text","${message(2)}","1700000000000-0"]`),
    frame(1, '451-["text",{"_placeholder":true,"num":0}]'),
    frame(2, message(3))
  ]))
  await sleep(100)
  const report = await opened.load.report()
  const answers = Buffer.concat(opened.received).toString('latin1')
  await close(opened)
  assert.deepEqual([report.delivered, report.doubled, report.outOfOrder, report.misled], [3, 0, 0, 0])
  assert.equal(answers, '\x81\x82\0\0\0\x0040\x81\x81\0\0\0\x003')
})
