// Starts an instance, serves a client, closes, and must end by itself then. Argument: URL of a Redis, nothing for the memory backplane.
import Fastify from 'fastify'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { WebSocket } from 'ws'
import websocketGroups, { type Connection } from '../../../plugin.ts'

const app = Fastify()
await app.register(websocketGroups, { redis: process.argv[2] || undefined, bootTimeoutMs: 300, authenticate: () => ({ userId: 'ann' }) })
app.wsRoom('/ws/:room', {
  auth: false,
  onJoin: (connection: Pick<Connection, 'send'>) => connection.send('joined'),
  // Volatile: without a Redis a message can be delivered, but not logged.
  onMessage: async (_, data, group) => await app.registry.broadcastToGroup(group, data, { volatile: true })
})
await app.listen({ port: 0 })

const client = new WebSocket(`ws://127.0.0.1:${(app.server.address() as AddressInfo).port}/ws/lobby`, ['bearer', 'token'])
await once(client, 'message')
client.send('hi')
const [message] = await once(client, 'message') as [Buffer]
await app.registry.members('lobby').catch(() => [])
const closed = once(client, 'close')
await app.close()
const [code] = await closed as [number]
process.send?.({ message: message.toString(), code })
process.disconnect?.()
