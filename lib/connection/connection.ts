import type { FastifyBaseLogger, FastifyRequest } from 'fastify'
import { types } from 'node:util'
import type { RawData, WebSocket } from 'ws'
import { CloseCode } from '../protocol/close-codes.ts'
import type { ServerFrame } from '../protocol/frames.ts'
import { WebsocketGroupsError } from '../errors.ts'
import { FramedSession, type FramedConnection, type FramedInit } from './framed-session.ts'
import { encodeMessage } from './frame-codec.ts'
import { assertClose, closeReasons } from './close.ts'
import { MessageQueue, type Closed } from './inbound.ts'
import type { InboundLimits } from './message-buffer.ts'
import type { IntakeBudget } from './intake-budget.ts'
import { connectionLog } from '../logging.ts'
import type { Metrics } from '../metrics.ts'
import { SocketWriter } from './outbound/writer.ts'
import type { FlushScheduler } from './outbound/flush-scheduler.ts'
import type { ConnectionCallbacks } from '../route-types.ts'
import type { Connection, Data } from '../types.ts'

export interface ConnectionInit {
  readonly socket: WebSocket
  readonly id: string
  readonly params: Connection['params']
  readonly identity: Connection['identity']
  readonly userId: string | undefined
  readonly log: FastifyBaseLogger
  readonly callbacks: ConnectionCallbacks
  readonly limits: InboundLimits
  /** What this instance has room for. */
  readonly intake: IntakeBudget
  readonly scheduler: FlushScheduler
  readonly metrics: Metrics
  /** Set when the client speaks the framed protocol. */
  readonly framed?: FramedInit | undefined
  /** Makes the connection known; `onConnect` waits for it. */
  readonly enter: (connection: LocalConnection) => Promise<void> | undefined
  /** Forgets the connection and its memberships; never rejects. */
  readonly release: (connection: LocalConnection) => Promise<void>
}

const owner = Symbol('connection')
/** What a ping carries that nobody else sends. */
const farewell = Buffer.from('farewell')
const open = 1
/** How long a client that is closed for a fault of its own, or of ours, may take to answer; ws itself would wait 30 s. */
const faultGraceMs = 2_000

/** Connections that this process made so far. */
let made = 0

interface OwnedSocket extends WebSocket { [owner]: LocalConnection }

/** One socket of this instance: its listeners from the first moment on, its sends with a limit, its end exactly once. */
export class LocalConnection implements FramedConnection {
  readonly id: string
  /** No other connection of this process has the number: cheaper to remember than the id, or than the connection. */
  readonly number = ++made
  readonly params: Connection['params']
  /** Written by the registry alone. */
  identity: Connection['identity']
  readonly userId: string | undefined
  /** Its route tells clients who is in their groups. */
  readonly presence: boolean
  /** Pings since the client last gave a sign of life. */
  unansweredPings = 0
  /** The client answered the ping that follows the `reconnect` frame. */
  shutdownAcked = false
  readonly outbound: SocketWriter
  readonly #socket: WebSocket
  readonly #metrics: Metrics
  readonly #enter: ConnectionInit['enter']
  readonly #release: ConnectionInit['release']
  #log: FastifyBaseLogger
  #ownLog = false
  readonly #inbound: MessageQueue
  readonly #session: FramedSession | undefined
  /** Made by the first join, as `#offered` is by the first offer: idle connections are to cost little. */
  #groups: Set<string> | undefined
  /** Positions that the client offered, by group, and that no join has taken yet. */
  #offered: Map<string, string> | undefined
  #sent: Closed | undefined
  #ended: Closed | undefined
  #finalGroups: readonly string[] | undefined
  #abort: AbortController | undefined

  constructor (init: ConnectionInit) {
    this.#socket = init.socket
    this.id = init.id
    this.params = init.params
    this.identity = init.identity
    this.userId = init.userId
    this.#log = init.log
    this.outbound = new SocketWriter(this, init.socket, init.framed !== undefined, init.scheduler)
    this.#metrics = init.metrics
    this.presence = init.callbacks.presence === true
    if (init.framed !== undefined) this.#session = new FramedSession(this, init.callbacks, init.framed, (request, bytes) => this.#inbound.receiveRequest(request, bytes))
    this.#inbound = new MessageQueue(this, init.callbacks, init.limits, init, init.metrics, this.#session)
    this.#enter = init.enter
    this.#release = init.release
    this.#metrics.connectionsOpened++
    // The same four functions serve all sockets, which find their connection by the symbol: thousands of closures less.
    const socket = init.socket as OwnedSocket
    socket[owner] = this
    socket.on('message', LocalConnection.#onMessage)
    socket.on('pong', LocalConnection.#onPong)
    socket.on('error', LocalConnection.#onError)
    socket.on('close', LocalConnection.#onClose)
  }

  static #onMessage (this: WebSocket, data: RawData, isBinary: boolean): void {
    const connection = (this as OwnedSocket)[owner]
    connection.unansweredPings = 0
    connection.#inbound.countMessage()
    if (connection.#session === undefined) connection.#inbound.receive(data as Buffer, isBinary)
    else connection.#session.receive(data as Buffer, isBinary)
  }

  static #onPong (this: WebSocket, data: Buffer): void {
    const connection = (this as OwnedSocket)[owner]
    connection.unansweredPings = 0
    if (data.equals(farewell)) connection.shutdownAcked = true
  }

  static #onError (this: WebSocket, error: Error): void {
    const connection = (this as OwnedSocket)[owner]
    connection.#inbound.socketFailed(error)
    connection.closeForFault(CloseCode.InternalError)
  }

  static #onClose (this: WebSocket, code: number, reason: Buffer): void {
    (this as OwnedSocket)[owner].#end({ code, reason: reason.toString() })
  }

  get groups (): readonly string[] {
    return this.#finalGroups ?? [...this.#groups ?? []]
  }

  /** How many groups the connection is in now. */
  get groupCount (): number {
    return this.#groups?.size ?? 0
  }

  /** The client speaks the framed protocol. */
  get framed (): boolean {
    return this.#session !== undefined
  }

  /** The client waits for an answer. */
  get pending (): boolean {
    return this.#session?.pending === true
  }

  /** This side does not read the socket for now, so that no answer to a ping can be heard. */
  get paused (): boolean {
    return this.#inbound.paused
  }

  get closed (): boolean {
    return this.#ended !== undefined || this.#socket.readyState !== open
  }

  /** With which code it closed; `undefined` before that. */
  get closeCode (): number | undefined {
    return this.#ended?.code
  }

  /** The public name of the client's session. */
  get sessionName (): string | undefined {
    return this.#session?.name
  }

  get bufferedBytes (): number {
    return this.outbound.bufferedBytes
  }

  /** Made when first asked for, as is `log`: most connections need neither, and they are what an idle connection costs. */
  get signal (): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController()
      if (this.#ended !== undefined) this.#abort.abort()
    }
    return this.#abort.signal
  }

  get log (): FastifyBaseLogger {
    if (!this.#ownLog) {
      this.#log = connectionLog(this.#log, this.id)
      this.#ownLog = true
    }
    return this.#log
  }

  /** Resolves when `onDisconnect` is done; never rejects. */
  get finished (): Promise<void> {
    return this.#inbound.finished
  }

  send (data: Data): boolean {
    const text = typeof data === 'string'
    if (!text && !types.isUint8Array(data)) throw new WebsocketGroupsError('WSG_DATA_INVALID', `got ${data === null ? 'null' : typeof data}`)
    const taken = this.framed ? this.outbound.ready && this.write(encodeMessage(data, !text), false) : this.write(data, !text)
    if (taken) this.#metrics.framesSent++
    return taken
  }

  sendJson (value: unknown): boolean {
    const text = JSON.stringify(value) as string | undefined
    if (text === undefined) throw new WebsocketGroupsError('WSG_DATA_INVALID', `JSON has no ${typeof value}`)
    return this.send(text)
  }

  /** Tells a client of the framed protocol; others are told nothing. */
  announce (frame: ServerFrame): void {
    this.#session?.send(frame)
  }

  /** The hub put the connection into the group. */
  groupJoined (group: string): void {
    this.#groups ??= new Set()
    this.#groups.add(group)
  }

  /** The hub took the connection out of the group. */
  groupLeft (group: string): void {
    this.#groups?.delete(group)
  }

  /** The client says, by group, which position it has: a join takes it up there. */
  offerPositions (positions: ReadonlyMap<string, string>): void {
    this.#offered = new Map(positions)
  }

  /** The position that the client offered for the group. A second call returns nothing. */
  takeOfferedPosition (group: string): string | undefined {
    const position = this.#offered?.get(group)
    if (position !== undefined) this.#offered?.delete(group)
    return position
  }

  /** Sends without looking at the data; in the framed protocol, a frame of it. */
  write (payload: Uint8Array | string, binary: boolean): boolean {
    return this.outbound.write(payload, binary)
  }

  tooSlow (bufferedBytes: number): void {
    this.#metrics.slowConsumersClosed++
    this.log.warn({ bufferedBytes }, 'slow consumer closed')
    this.closeForFault(CloseCode.SlowConsumer)
  }

  close (code: number = CloseCode.Normal, reason = ''): void {
    assertClose(code, reason)
    // A client that closes first has its last messages handled.
    if (this.closed) return
    this.#inbound.stop()
    this.#sent = { code, reason }
    this.#socket.close(code, reason)
  }

  terminate (): void {
    this.#inbound.stop()
    this.outbound.closing()
    this.#socket.terminate()
  }

  ping (): void {
    this.unansweredPings++
    if (!this.closed) this.#socket.ping()
  }

  /** Tells a framed client when to come back, upon which it sends no more. */
  announceShutdown (afterMs: number): void {
    this.announce({ type: 'reconnect', afterMs })
    this.outbound.flush()
    // Its pong comes behind all that the client sent before it read this.
    if (!this.closed) this.#socket.ping(farewell)
  }

  /** Ends the connection now, without waiting for a 'close' event that a dead peer may delay beyond the end of the server. */
  forceClosed (code: number, reason: string): void {
    this.terminate()
    this.#end({ code, reason })
  }

  /** Runs `onConnect`, then handles what arrived meanwhile. Called once. */
  start (request: FastifyRequest<{ Params: Connection['params'] }>): void {
    const entered = this.#enter(this)
    void this.#inbound.start(this.#session === undefined ? entered : this.#session.opened(entered), request)
  }

  closeForFault (code: number, reason = closeReasons[code as CloseCode]): void {
    this.close(code, reason)
    this.#inbound.stop()
    if (this.#ended === undefined) setTimeout(() => this.#socket.terminate(), faultGraceMs).unref()
  }

  #end (closed: Closed): void {
    if (this.#ended !== undefined) return
    // What this side said is why it closed, also when the client did not answer.
    this.#ended = this.#sent ?? closed
    this.#finalGroups = Object.freeze([...this.#groups ?? []])
    this.#abort?.abort()
    this.outbound.ended()
    // Without a hello the callbacks never hear of it.
    if (this.#session?.helloReceived === false) this.#inbound.stop()
    this.#session?.ended()
    this.#inbound.end(this.#ended, this.#release(this))
  }
}
