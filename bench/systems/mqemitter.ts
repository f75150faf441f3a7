import websocket from '@fastify/websocket'
import Fastify from 'fastify'
import mqemitter from 'mqemitter-redis'
import type { System } from './system.ts'

/** Each connection listens to the topic of its group, as the docs of mqemitter show it. */
export const system: System = {
  name: '@fastify/websocket, mqemitter-redis',
  protocol: 'ws',
  path: '/ws/room%u',

  async serve (port, url, { announce = false, binary = false } = {}) {
    const emitter = mqemitter({ connectionString: url })
    const app = Fastify()
    await app.register(websocket)
    app.get<{ Params: { room: string } }>('/ws/:room', { websocket: true }, (socket, request) => {
      const { room } = request.params
      const deliver = (message: mqemitter.Message, done: () => void): void => {
        socket.send(message.payload, { binary })
        done()
      }
      socket.on('close', () => emitter.removeListener(room, deliver))
      emitter.on(room, deliver, () => { if (announce) socket.send('joined') })
    })
    await app.listen({ port, host: '127.0.0.1' })
    return {
      stats: () => ({ connections: app.websocketServer.clients.size }),
      async close () {
        await app.close()
        emitter.close(() => {})
      }
    }
  },

  async publisher (url) {
    const emitter = mqemitter({ connectionString: url })
    return {
      publish: async (topic, payload) => await new Promise<void>((resolve, reject) => {
        emitter.emit({ topic, payload }, error => error ? reject(error) : resolve())
      })
    }
  }
}
