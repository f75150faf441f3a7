import { connect as connectSocket, type Socket } from 'node:net'
import type { Test } from 'tap'
import type { WebSocket } from 'ws'
import type { Connection, WebsocketGroupsOptions } from '../../../plugin.ts'
import { serve, type Served } from '../../helpers/service.ts'

export interface Service extends Served {
  /** What happens to the messages of clients; a test may put its own here. */
  onMessage: (connection: Connection, data: string | Buffer) => unknown
}

/** An application whose clients join the groups that their address names: `/ws?groups=a,b`. */
export async function serveGroups (t: Test, options: WebsocketGroupsOptions = {}): Promise<Service> {
  const served = await serve(t, options, app => app.get('/ws', { websocket: true }, app.wsHandler({
    async onConnect (connection, request) {
      for (const group of (request.query as { groups: string }).groups.split(',')) await app.registry.join(connection, group)
      connection.send(`id ${connection.id}`)
    },
    onMessage: (connection, data) => service.onMessage(connection as Connection, data)
  })))
  const service: Service = { ...served, onMessage () {} }
  return service
}

/** The stream below a socket of the server, as this package writes to it. */
export function streamOf (socket: WebSocket | undefined): Socket {
  return (socket as unknown as { _socket: Socket })._socket
}

/** The chunks that the server writes to each of its sockets from now on. */
export function watchWrites ({ app }: Service): Map<WebSocket, Buffer[]> {
  const chunks = new Map<WebSocket, Buffer[]>()
  for (const socket of app.websocketServer.clients) {
    const written: Buffer[] = []
    chunks.set(socket, written)
    const stream = streamOf(socket)
    const { write } = stream
    stream.write = ((chunk: Buffer, ...rest: []) => {
      written.push(chunk)
      return write.call(stream, chunk, ...rest)
    }) as Socket['write']
  }
  return chunks
}

/** A client that does not read, until it is told to. */
export async function lazyClient (t: Test, service: Service, path: string): Promise<Socket> {
  const socket = connectSocket({ port: service.port, host: '127.0.0.1', allowHalfOpen: true })
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  socket.write(
    `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n'
  )
  await new Promise(resolve => socket.once('data', resolve))
  socket.pause()
  return socket
}
