import websocket from '@fastify/websocket'
import Fastify from 'fastify'
import type { System } from './system.ts'

/** What a connection takes before there are groups: for the memory alone. */
export const system: System = {
  name: '@fastify/websocket alone, no groups, no Redis',
  protocol: 'ws',
  path: '/ws/room%u',

  async serve (port, _, { announce = false } = {}) {
    const app = Fastify()
    await app.register(websocket)
    app.get('/ws/:room', { websocket: true }, socket => { if (announce) socket.send('joined') })
    await app.listen({ port, host: '127.0.0.1' })
    return {
      stats: () => ({ connections: app.websocketServer.clients.size }),
      async close () { await app.close() }
    }
  },

  async publisher () {
    return { publish () { throw new Error('there is nobody to publish to') } }
  }
}
