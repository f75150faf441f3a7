import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import { broadcast, broadcastAnyway, hasCode } from './broadcast.ts'
import { lineOf, RoomParams } from './rooms.ts'
import type { User } from './tokens.ts'

/** How much of what was said before somebody who comes in is shown. */
const historyLength = 20
/** Who comes and goes is of no use later: at most once, and kept out of the room's log. */
const passing = { volatile: true }

/** The WebSocket routes. */
export const chat: FastifyPluginAsyncTypebox = async app => {
  const announced = new WeakSet<object>()

  // wsAuth answers 401 without a good token, so every connection of this route has a User.
  app.get('/ws/chat/:room', { websocket: true, schema: { params: RoomParams }, preHandler: app.wsAuth() }, app.wsHandler<RoomParams, User>({
    // For clients that speak the framed protocol, as the page does. All others get plain texts, and nothing but what is sent from here on.
    presence: true,

    async onConnect (connection) {
      const { identity: { name }, params: { room } } = connection
      // Before the join: from then on, what others say may come first.
      connection.send(`Welcome ${name} to ${room}!`)
      // Who was here a moment ago and says how far it got is told what it missed instead.
      await app.registry.join(connection, room, connection.framed ? { history: historyLength } : {})
      announced.add(connection)
      await broadcast(app, room, `${name} joined the room`, passing)
    },

    async onMessage ({ framed, identity, params }, data) {
      const line = lineOf(identity.name, data.toString())
      // What is returned goes into the answer that a framed client gets: where in the room's log its message stands, or why it was not
      // sent.
      return framed ? await broadcast(app, params.room, line) : await broadcastAnyway(app, params.room, line)
    },

    async onDisconnect (connection) {
      // A client may be gone before it has joined: nobody knows of it then.
      if (announced.has(connection)) await broadcast(app, connection.params.room, `${connection.identity.name} left the room`, passing)
    },

    onError ({ log }, error) {
      // Redis is out: no fault of the client, which stays. Anything else closes its connection.
      const passes = hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT')
      log[passes ? 'warn' : 'error']({ err: error }, 'onMessage failed')
      return passes
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
