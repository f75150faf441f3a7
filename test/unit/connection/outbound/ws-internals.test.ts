import t from 'tap'
import { once } from 'node:events'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import type * as Ws from 'ws'
import { encodeWsFrame } from '../../../../lib/connection/outbound/ws-frame.ts'
import { openWire } from '../../../../lib/connection/outbound/ws-internals.ts'

const require = createRequire(import.meta.url)
const ofFastifyWebsocket = createRequire(require.resolve('@fastify/websocket'))
/** The oldest release that @fastify/websocket takes, and the one that is installed. */
const releases = { 'ws-oldest': require('ws-oldest') as typeof Ws, ws: ofFastifyWebsocket('ws') as typeof Ws }

t.test('the oldest release that is tested is the oldest that @fastify/websocket allows', async t => {
  const { dependencies } = ofFastifyWebsocket('./package.json') as { dependencies: { ws: string } }
  const { version } = require('ws-oldest/package.json') as { version: string }
  t.equal(dependencies.ws, `^${version}`)
})

for (const [name, { WebSocketServer, WebSocket }] of Object.entries(releases)) {
  for (const perMessageDeflate of [false, { threshold: 10, serverMaxWindowBits: 10 }]) {
    const form = perMessageDeflate === false ? 'plain' : 'compressed'
    t.test(`${name}, ${form}: what is written arrives in order with what ws writes, and before the close`, async t => {
      const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate })
      t.teardown(() => server.close())
      await once(server, 'listening')
      server.on('connection', socket => {
        const closing: string[] = []
        const wire = openWire(socket, {
          beforeClose (code, reason) {
            t.strictSame([code, reason], [4001, 'done'])
            closing.push('x'.repeat(100))
            wire?.stream.write(encodeWsFrame(closing.join(), false, wire.deflate))
          }
        })
        if (wire === undefined) return socket.close(4000, 'unknown shape')
        t.same(wire.deflate?.windowBits, perMessageDeflate === false ? undefined : 10)
        wire.stream.write(encodeWsFrame('one', false, wire.deflate))
        wire.stream.write(
          Buffer.concat([encodeWsFrame('two'.repeat(20), false, wire.deflate), encodeWsFrame(Buffer.alloc(70_000, 3), true, wire.deflate)])
        )
        socket.ping('four') // as ws answers pings, at any time
        socket.close(4001, 'done')
        t.equal(closing.length, 1, 'asked for what is left, once')
      })
      const client = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`)
      const got: string[] = []
      client.on('ping', (data: Buffer) => got.push(`ping ${data.toString()}`))
      client.on('message', (data: Buffer) => got.push(`${data.length} ${data.subarray(0, 3).toString()}`))
      const [code, reason] = await once(client, 'close') as [number, Buffer]
      t.strictSame([code, reason.toString()], [4001, 'done'])
      t.strictSame(got, ['3 one', '60 two', '70000 \u0003\u0003\u0003', 'ping four', '100 xxx'])
    })
  }
}
