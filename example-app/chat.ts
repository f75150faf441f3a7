import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { broadcast } from './broadcast.ts'
import { RoomParams } from './rooms.ts'
import type { User } from './tokens.ts'

/** The WebSocket routes. */
export const chat: FastifyPluginAsyncTypebox = async app => {
  const announced = new WeakSet<object>()

  // wsAuth answers 401 without a good token, so every connection of this route has a User.
  app.get('/ws/chat/:room', { websocket: true, schema: { params: RoomParams }, preHandler: app.wsAuth() }, app.wsHandler<RoomParams, User>({
    async onConnect (connection) {
      const { identity: { name }, params: { room } } = connection
      // Before the join: from then on, what others say may come first.
      connection.send(`Welcome ${name} to ${room}!`)
      await app.registry.join(connection, room)
      announced.add(connection)
      await broadcast(app, room, `${name} joined the room`)
    },

    async onMessage ({ identity, params }, data) {
      await broadcast(app, params.room, `[${identity.name}]: ${data.toString()}`)
    },

    async onDisconnect (connection) {
      // A client may be gone before it has joined: nobody knows of it then.
      if (announced.has(connection)) await broadcast(app, connection.params.room, `${connection.identity.name} left the room`)
    }
  }))

  app.get('/ws/simple', { websocket: true }, app.wsHandler({
    onConnect (connection) {
      connection.send('Connected! Send me messages.')
    },
    onMessage (connection, data) {
      connection.send(`You said: ${data.toString()}`)
    }
  }))
}
