import type { EventEmitter } from 'node:events'
import { ServerResponse, type IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'

/**
 * Ends the sockets of upgrades that were answered with plain HTTP. @fastify/websocket does that in a hook of the scope it is registered
 * in, which runs neither for a 404 outside of that scope nor for the 503 that Fastify answers while it closes: such a socket would stay half
 * open, and the server would wait for it when it closes. Returns what undoes it.
 */
export function endRefusedUpgrades (server: EventEmitter): () => void {
  server.on('upgrade', endWhenAnswered)
  return () => { server.off('upgrade', endWhenAnswered) }
}

function endWhenAnswered (_request: IncomingMessage, socket: Socket): void {
  // When all listeners ran: @fastify/websocket's gives the socket its response. An upgrade that succeeds never finishes it.
  queueMicrotask(() => {
    const response = responseOf(socket)
    if (response?.writableFinished === true) socket.destroy()
    else response?.once('finish', () => socket.destroy())
  })
}

/**
 * After the upgrade the network socket goes on pointing to the response that was never sent, and through its listeners to the request,
 * its headers and its logger: about 2.5 KB for as long as the connection lives.
 */
export function dropResponse (socket: Socket | undefined): void {
  // Under @fastify/websocket's injectWS there is no network socket.
  if (socket !== undefined) responseOf(socket)?.detachSocket(socket)
}

function responseOf (socket: Socket & { readonly _httpMessage?: unknown }): ServerResponse | undefined {
  const response = socket._httpMessage
  return response instanceof ServerResponse && response.socket === socket ? response : undefined
}
