import { Redis } from 'ioredis'
import type { System } from './system.ts'

interface Socket { readonly data: { readonly room: string }, subscribe (topic: string): void, send (text: string): void }
interface Server {
  readonly pendingWebSockets: number
  upgrade (request: object, options: { data: Socket['data'] }): boolean
  publish (topic: string, data: string | Buffer): number
  stop (force: boolean): Promise<void>
  subscriberCount (topic: string): number
}
/** The part of Bun's global that is used here. */
declare const Bun: {
  serve (options: {
    port: number
    hostname: string
    fetch (request: { readonly url: string }, server: Server): unknown
    websocket: { open (socket: Socket): unknown, close (socket: Socket): unknown, message (): void }
  }): Server
  RedisClient: new (url: string) => {
    subscribe (channel: string, listener: (message: string, channel: string) => void): Promise<unknown>
    unsubscribe (channel: string): Promise<unknown>
    close (): void
  }
}

/**
 * Bun's own server, whose topics are written in native code (uWebSockets), behind its own Redis client. Runs in Bun, published to from
 * Node.js.
 */
export const system: System = {
  name: 'Bun, native server',
  protocol: 'ws',
  path: '/ws/room%u',

  async serve (port, url, { announce = false, binary = false } = {}) {
    const redis = new Bun.RedisClient(url)
    const subscribed = new Map<string, Promise<unknown>>()
    const server = Bun.serve({
      port,
      hostname: '127.0.0.1',
      fetch (request, server) {
        const room = new URL(request.url).pathname.slice('/ws/'.length)
        return server.upgrade(request, { data: { room } }) ? undefined : new Response(null, { status: 426 })
      },
      websocket: {
        async open (socket) {
          const { room } = socket.data
          socket.subscribe(room)
          let subscription = subscribed.get(room)
          if (subscription === undefined) {
            // What its client hands out are strings; the bench sends nothing that would be spoiled by that.
            subscription = redis.subscribe(room, message => server.publish(room, binary ? Buffer.from(message) : message))
            subscribed.set(room, subscription)
          }
          await subscription
          if (announce) socket.send('joined')
        },
        async close ({ data: { room } }) {
          if (server.subscriberCount(room) > 0 || !subscribed.delete(room)) return
          await redis.unsubscribe(room)
        },
        message () {}
      }
    })
    return {
      stats: () => ({ connections: server.pendingWebSockets }),
      async close () {
        await server.stop(true)
        redis.close()
      }
    }
  },

  async publisher (url) {
    const redis = new Redis(url)
    return { publish: async (group, data) => await redis.publish(group, data) }
  }
}
