import { once } from 'node:events'
import { createServer, type Agent } from 'node:http'
import { Server, type ServerOptions } from 'socket.io'
import { io } from 'socket.io-client'
import type { ClientEvents, ClientOptions, Client, DrillInstance, Publisher, ServeOptions } from './system.ts'

export const protocol = 'socketio'
export const path = '/socket.io/?EIO=4&transport=websocket&group=room%u'

/** One instance of the application on socket.io. */
export async function serve (
  port: number, options: Partial<ServerOptions>, disconnect: () => unknown, { announce = false }: ServeOptions = {}
): Promise<DrillInstance> {
  const http = createServer()
  const server = new Server(http, options)
  server.on('connection', async socket => {
    if (!socket.recovered) await socket.join(String(socket.handshake.query.group))
    if (announce) socket.emit('text', 'joined')
  })
  http.listen(port, '127.0.0.1')
  await once(http, 'listening')
  return {
    async publish (group, text) { server.to(group).emit('text', text) },
    stats: () => ({ connections: server.engine.clientsCount }),
    async close () {
      await server.close()
      await disconnect()
    }
  }
}

/** An instance that does not listen. */
export function publisher (options: Partial<ServerOptions>): Publisher {
  const server = new Server(options)
  return { publish: (group, data) => server.to(group).emit('text', data) }
}

/** `tells`: the server has state recovery on, so that a client that comes back learns whether it worked. */
export function connect ({ group, agent, backoffMs }: ClientOptions, events: ClientEvents, tells: boolean): Client {
  // WebSocket alone, as its docs advise for several instances without sticky sessions.
  const socket = io('http://localhost', {
    transports: ['websocket'],
    forceNew: true,
    query: { group },
    // ws takes it; the types say only what XMLHttpRequest takes.
    agent: agent as Agent & string,
    ...(backoffMs === undefined ? {} : { reconnectionDelay: backoffMs, reconnectionDelayMax: backoffMs, randomizationFactor: 1 })
  })
  let first = true
  socket.on('text', (text: string) => events.message(text))
  socket.on('connect', () => {
    if (tells && !first && !socket.recovered) events.signalled()
    first = false
    events.open()
  })
  socket.on('disconnect', reason => {
    events.broken()
    // Its own docs: after this reason the client must come back by hand.
    if (reason === 'io server disconnect') socket.connect()
  })
  return socket
}
