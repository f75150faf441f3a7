import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox'
import type { FastifyInstance } from 'fastify'
import { broadcast, broadcastAnyway, hasCode } from './broadcast.ts'
import { lineOf, RoomParams } from './rooms.ts'
import type { User } from './tokens.ts'

/** How many earlier messages somebody who comes in is shown. */
const historyLength = 20
/** Lines about who comes and goes are of no use later: they are sent at most once, and kept out of the room's log. */
const passing = { volatile: true }

/** The WebSocket routes. */
export const chat: FastifyPluginAsyncTypebox = async app => {
  const announced = new WeakSet<object>()

  // wsAuth answers 401 without a good token, so every connection of this route has a User.
  app.get('/ws/chat/:room', { websocket: true, schema: { params: RoomParams }, preHandler: app.wsAuth() }, app.wsHandler<RoomParams, User>({
    // Tells clients of the framed protocol, such as the page, who is here. All others get the texts alone.
    presence: true,

    async onConnect (connection) {
      const { identity: { name }, params: { room } } = connection
      // Sent before the join: afterwards, what others say may come first.
      connection.send(`Welcome ${name} to ${room}!`)
      // A client that comes back says how far it got, and gets what it missed instead of the latest messages.
      await app.registry.join(connection, room, connection.framed ? { history: historyLength } : {})
      announced.add(connection)
      await broadcast(app, room, `${name} joined the room`, passing)
    },

    async onMessage ({ framed, identity, params }, data) {
      const line = lineOf(identity.name, data.toString())
      // The result becomes the answer that a framed client gets for its message: the position in the room's log, or why it was not sent.
      return framed ? await broadcast(app, params.room, line) : await broadcastAnyway(app, params.room, line)
    },

    async onDisconnect (connection) {
      const { identity: { name, userId }, params: { room } } = connection
      // Nobody was told of a client that was gone before it had joined. Who closes one of two tabs is still here.
      if (!announced.has(connection) || await isInRoom(app, userId, room)) return
      await broadcast(app, room, `${name} left the room`, passing)
    },

    onError ({ log }, error) {
      // An outage of Redis is not the client's fault: the client stays. Any other error closes its connection.
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

/** Whether any connection of the user is in the room, on whatever instance. `false` when nobody can say, as without Redis. */
async function isInRoom (app: FastifyInstance, userId: string, room: string): Promise<boolean> {
  try {
    return (await app.registry.groups({ userId })).includes(room)
  } catch (error) {
    app.log.warn({ err: error, room }, 'cannot ask whether somebody is in the room')
    return false
  }
}
