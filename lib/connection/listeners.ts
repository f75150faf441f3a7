import type { RawData, WebSocket } from 'ws'

const owner = Symbol('connection')

/** Who is called when something happens to a socket. */
export interface SocketOwner {
  received (data: Buffer, isBinary: boolean): void
  pinged (): void
  ponged (data: Buffer): void
  socketFailed (error: Error): void
  socketClosed (code: number, reason: string): void
}

const closed = 3

interface OwnedSocket extends WebSocket { [owner]: SocketOwner }

/** Listens from now on. All sockets share the same functions, which find the owner by a symbol: a closure for each would take memory. */
export function listen (socket: WebSocket, connection: SocketOwner): void {
  (socket as OwnedSocket)[owner] = connection
  socket.on('message', onMessage)
  socket.on('ping', onPing)
  socket.on('pong', onPong)
  socket.on('error', onError)
  socket.on('close', onClose)
}

/** Resolves when the socket is closed. */
export async function whenGone (socket: Pick<WebSocket, 'readyState' | 'once'>): Promise<void> {
  if (socket.readyState !== closed) await new Promise<void>(resolve => { socket.once('close', () => resolve()) })
}

function onMessage (this: WebSocket, data: RawData, isBinary: boolean): void {
  (this as OwnedSocket)[owner].received(data as Buffer, isBinary)
}

function onPing (this: WebSocket): void {
  (this as OwnedSocket)[owner].pinged()
}

function onPong (this: WebSocket, data: Buffer): void {
  (this as OwnedSocket)[owner].ponged(data)
}

function onError (this: WebSocket, error: Error): void {
  (this as OwnedSocket)[owner].socketFailed(error)
}

function onClose (this: WebSocket, code: number, reason: Buffer): void {
  (this as OwnedSocket)[owner].socketClosed(code, reason.toString())
}
