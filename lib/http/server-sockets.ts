import type { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import type { WebSocketServer } from 'ws'
import type { Metrics } from '../metrics.ts'
import { divertOtherUpgrades } from './upgrade-requests.ts'
import { responseOf, UpgradeSockets } from './upgrade-sockets.ts'

/** How often to look for sockets that wait for their client by now (milliseconds). */
const sweepMs = 100
/** How long WebSockets that the application handles itself get at least to answer their close, which follows the drain (milliseconds). */
const minAnswerMs = 250

/** How long the shutdown may take beyond the grace (milliseconds). */
const restMs = 1_000
const minRestMs = 500

/** A connection over TLS points to the TCP connection beneath it. */
type Wrapped = Socket & { readonly _parent?: Socket | null }

/**
 * The sockets of an HTTP server. At the shutdown it ends those that `server.close()` would wait for: half a request until Node's
 * `headersTimeout` (60 s), a WebSocket that does not answer until ws gives up (30 s), an unanswered upgrade forever.
 */
export class ServerSockets {
  readonly upgrades: UpgradeSockets
  readonly #http = new Set<Socket>()
  readonly #webSockets: () => Pick<WebSocketServer, 'clients'> | undefined
  readonly #graceMs: number
  #deadline: number | undefined
  #timer: NodeJS.Timeout | undefined
  /** Shared by all sockets, to save a closure for each. */
  readonly #forget: (this: Socket) => void

  constructor (
    webSockets: () => Pick<WebSocketServer, 'clients'> | undefined, graceMs: number, metrics: Pick<Metrics, 'upgradeRefused'>
  ) {
    this.upgrades = new UpgradeSockets(metrics)
    this.#webSockets = webSockets
    this.#graceMs = graceMs
    const sockets = this.#http
    this.#forget = function () { sockets.delete(this) }
  }

  /** Called before the server takes connections. `othersListen`: see `divertOtherUpgrades`. */
  watch (server: EventEmitter, othersListen: () => boolean): void {
    divertOtherUpgrades(server, othersListen)
    // HTTP/2 sessions carry many requests, and Fastify closes them itself.
    if (!('closeIdleConnections' in server)) return
    server.on('connection', (socket: Socket) => this.#add(socket))
    server.on('secureConnection', (socket: Wrapped) => {
      if (socket._parent !== null && socket._parent !== undefined) this.#remove(socket._parent)
      this.#add(socket)
    })
    server.on('upgrade', (_request, socket: Socket) => this.#remove(socket))
  }

  /** The shutdown begins: unanswered upgrades get 503, and sockets that wait for their client are ended after the grace. */
  closing (): void {
    this.#deadline = performance.now() + this.#graceMs
    this.upgrades.refuse()
  }

  /** The plugin's own connections are closed; the server is about to be. */
  drained (): void {
    this.upgrades.refuse()
    // Browsers open such sockets ahead of need: nothing is lost with them.
    for (const socket of this.#http) if (socket.bytesRead === 0) socket.destroy()
    const waitMs = Math.max(this.#leftMs(), minAnswerMs)
    this.#timer ??= setTimeout(() => this.#sweep(), waitMs).unref()
  }

  /** The server is closed. Returns how many milliseconds of the second after the grace are left. */
  closed (): number {
    clearTimeout(this.#timer)
    this.#sweepOnce()
    return Math.max(this.#leftMs() + restMs, minRestMs)
  }

  /** What is left of the grace; all of it when the application closes before it was ready. */
  #leftMs (): number {
    return this.#deadline === undefined ? this.#graceMs : this.#deadline - performance.now()
  }

  #add (socket: Socket): void {
    this.#http.add(socket)
    socket.on('close', this.#forget)
  }

  #remove (socket: Socket): void {
    this.#http.delete(socket)
    socket.off('close', this.#forget)
  }

  #sweep (): void {
    this.#sweepOnce()
    this.#timer = setTimeout(() => this.#sweep(), sweepMs).unref()
  }

  #sweepOnce (): void {
    for (const socket of this.#http) if (waitsForClient(socket)) socket.destroy()
    for (const client of this.#webSockets()?.clients ?? []) client.terminate()
    this.upgrades.destroy()
  }
}

/** Whether the socket waits for its client. One that waits for a handler of the application is for the application to end. */
function waitsForClient (socket: Socket): boolean {
  const response = responseOf(socket)
  // Between two requests, or in the middle of one.
  if (response?.req.complete !== true) return true
  return socket.writableLength > 0 || response.writableLength > 0
}
