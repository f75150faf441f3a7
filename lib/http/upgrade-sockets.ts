import type { EventEmitter } from 'node:events'
import { ServerResponse, STATUS_CODES, type IncomingMessage } from 'node:http'
import { finished, type Duplex } from 'node:stream'
import { Socket } from 'node:net'
import { WebsocketGroupsError } from '../errors.ts'
import type { Metrics } from '../metrics.ts'

interface Unanswered {
  readonly socket: Duplex
  readonly forget: () => void
}

/**
 * Knows the sockets of upgrades that nobody answered yet, and ends those that get a plain HTTP answer. @fastify/websocket does the latter
 * in a hook of the scope it is registered in, which runs neither for a 404 outside of that scope nor for the 503 that Fastify answers while
 * it closes: such a socket would stay half open, and the server would wait for it when it closes.
 */
export class UpgradeSockets {
  readonly #unanswered = new Map<IncomingMessage, Unanswered>()
  readonly #metrics: Pick<Metrics, 'upgradeRefused'>
  readonly #listener = (request: IncomingMessage, socket: Duplex): void => this.#add(request, socket)

  constructor (metrics: Pick<Metrics, 'upgradeRefused'>) {
    this.#metrics = metrics
  }

  watch (server: EventEmitter): void {
    server.on('upgrade', this.#listener)
  }

  /** The request became a WebSocket, and the socket is the WebSocket's from now on. */
  upgraded (request: IncomingMessage): void {
    this.#unanswered.get(request)?.forget()
  }

  /** Answers 503 to all upgrades that are not answered yet. Later answers of Fastify to them go nowhere. */
  refuse (): void {
    for (const [request, { socket, forget }] of this.#unanswered) {
      const response = responseOf(socket)
      // The response has begun, or a listener of the application took the socket: do not write to it.
      if (response === undefined || response.headersSent) continue
      forget()
      this.#metrics.upgradeRefused(request)
      response.detachSocket(socket as Socket)
      socket.end(refusal(), () => socket.destroy())
    }
  }

  /** Ends all unanswered sockets. */
  destroy (): void {
    for (const { socket } of this.#unanswered.values()) socket.destroy()
  }

  #add (request: IncomingMessage, socket: Duplex): void {
    const forget = (): void => {
      this.#unanswered.delete(request)
      socket.off('close', forget)
    }
    this.#unanswered.set(request, { socket, forget })
    // Unlike a network socket, the stream of injectWS does not close by itself when both sides ended.
    if (!(socket instanceof Socket)) finished(socket, () => socket.destroy())
    socket.on('close', forget)
    // Runs after all listeners: that of @fastify/websocket gives the socket its response, which an upgrade that succeeds never finishes.
    queueMicrotask(() => {
      const response = responseOf(socket)
      if (response?.writableFinished === true) socket.destroy()
      else response?.once('finish', () => socket.destroy())
    })
  }
}

/**
 * After the upgrade the network socket still refers to the response that was never sent, and through its listeners to the request, its
 * headers and its logger: about 2.5 KB for the life of the connection.
 */
export function dropResponse (socket: Socket | undefined): void {
  // Under @fastify/websocket's injectWS there is no network socket.
  if (socket !== undefined) responseOf(socket)?.detachSocket(socket)
}

/** The response that is being written to the socket, or will be. */
export function responseOf (socket: Duplex & { readonly _httpMessage?: unknown }): ServerResponse | undefined {
  const response = socket._httpMessage
  return response instanceof ServerResponse && response.socket === socket ? response : undefined
}

/** The answer as Fastify would write it. */
function refusal (): string {
  const { code, statusCode, message } = new WebsocketGroupsError('WSG_REFUSED', 'the instance is shutting down')
  const error = STATUS_CODES[statusCode]
  const body = JSON.stringify({ statusCode, code, error, message })
  const head = [
    `HTTP/1.1 ${statusCode} ${error}`,
    'content-type: application/json; charset=utf-8',
    `content-length: ${Buffer.byteLength(body)}`,
    'connection: close'
  ]
  return `${head.join('\r\n')}\r\n\r\n${body}`
}
