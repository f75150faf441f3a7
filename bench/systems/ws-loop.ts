import websocket from '@fastify/websocket'
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import type { WebSocket } from 'ws'
import type { System } from './system.ts'

/** What one writes by hand: a channel for each group, a set of sockets for each channel, and a loop that sends. */
export const system: System = {
  name: '@fastify/websocket, send in a loop',
  protocol: 'ws',
  path: '/ws/room%u',

  async serve (port, url, { announce = false, binary = false } = {}) {
    const redis = new Redis(url)
    const groups = new Map<string, Set<WebSocket>>()
    redis.on('messageBuffer', (channel: Buffer, data: Buffer) => {
      for (const socket of groups.get(channel.toString()) ?? []) socket.send(data, { binary })
    })
    const app = Fastify()
    await app.register(websocket)
    app.get<{ Params: { room: string } }>('/ws/:room', { websocket: true }, async (socket, request) => {
      const { room } = request.params
      const members = groups.get(room) ?? new Set()
      groups.set(room, members.add(socket))
      socket.on('close', () => {
        members.delete(socket)
        if (members.size > 0 || groups.get(room) !== members) return
        groups.delete(room)
        void redis.unsubscribe(room)
      })
      if (members.size === 1) await redis.subscribe(room)
      if (announce) socket.send('joined')
    })
    await app.listen({ port, host: '127.0.0.1' })
    return {
      stats: () => ({ connections: app.websocketServer.clients.size }),
      async close () {
        await app.close()
        redis.disconnect()
      }
    }
  },

  async publisher (url) {
    const redis = new Redis(url)
    return { publish: async (group, data) => await redis.publish(group, data) }
  }
}
