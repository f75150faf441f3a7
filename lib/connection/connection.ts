import type { FastifyBaseLogger, FastifyRequest } from 'fastify'
import type { WebSocket } from 'ws'
import { CloseCode } from '../protocol/close-codes.ts'
import type { ServerFrame } from '../protocol/frames.ts'
import { FramedSession, type FramedConnection } from './framed/session.ts'
import { encodeMessage, type ResumePoint } from './framed/frame-codec.ts'
import { Ending } from './ending.ts'
import { assertClose, closeReasons, farewell, isForAWhile } from './close.ts'
import { MessageQueue, type Closed } from './inbound/message-queue.ts'
import type { ConnectionInit } from './init.ts'
import { listen, whenGone, type SocketOwner } from './listeners.ts'
import { connectionLog } from '../logging.ts'
import { assertData, toJson } from './outbound/message.ts'
import { SocketWriter } from './outbound/writer.ts'
import type { Connection, Data, Identity, LossReason } from '../types.ts'
import { Pulse } from './pulse.ts'
import type { Tags } from './tags.ts'

const open = 1

/** How many connections this process made so far. */
let made = 0

/** One socket of this instance: listens from the first moment on, limits what waits to be sent, and ends exactly once. */
export class LocalConnection implements FramedConnection, SocketOwner {
  readonly id: string
  /** Unique in this process. Numbers are cheaper to remember than ids or connections. */
  readonly number = ++made
  readonly params: Connection['params']
  readonly userId: string | undefined
  /** The key for the limit of connections per address; '' for none. */
  readonly address: string
  /** The option `presence` of the route: what clients are told about who is in their groups. */
  readonly presence: boolean | 'count'
  /** Belongs to a page of a dashboard, not to a client of the application. */
  readonly forOperators: boolean
  readonly pulse = new Pulse()
  /** The client answered the ping that follows the `reconnect` frame. */
  shutdownAcked = false
  /** Tags for broadcasts with a filter; made by the first join that has any. */
  tags: Tags | undefined
  readonly outbound: SocketWriter
  readonly #socket: WebSocket
  readonly #host: ConnectionInit<LocalConnection>['host']
  #log: FastifyBaseLogger
  #ownLog = false
  readonly #inbound: MessageQueue
  #identity: Connection['identity']
  readonly #session: FramedSession | undefined
  /** Made by the first join, to keep idle connections small. */
  #groups: Set<string> | undefined
  #ending: Ending | undefined
  #abort: AbortController | undefined
  #state: Connection['state'] | undefined

  constructor (init: ConnectionInit<LocalConnection>) {
    this.#socket = init.socket
    this.id = init.id
    this.params = init.params
    this.#identity = init.identity
    this.userId = init.userId
    this.#log = init.log
    this.outbound = new SocketWriter(this, init.socket, init.framed !== undefined, init.host.scheduler, init.route)
    this.presence = init.callbacks.presence ?? false
    this.forOperators = init.forOperators === true
    this.#inbound = new MessageQueue(this, init.callbacks, init.socket, init.host)
    if (init.framed !== undefined) {
      this.#session = new FramedSession(this, init.callbacks, init.framed, this.#inbound, init.reauthentication)
    }
    this.#host = init.host
    this.address = init.address ?? ''
    init.host.metrics.connectionsOpened++
    listen(init.socket, this)
  }

  get identity (): Connection['identity'] { return this.#identity }

  get groups (): readonly string[] { return this.#ending?.groups ?? [...this.#groups ?? []] }

  /** Whether the connection is in the group, or was when the socket closed: its last messages are still handled after that. */
  isIn (group: string): boolean {
    return this.#ending?.groups?.includes(group) ?? this.#groups?.has(group) === true
  }

  get groupCount (): number { return this.#groups?.size ?? 0 }
  get state (): Connection['state'] { return (this.#state ??= {} as Connection['state']) }
  get framed (): boolean { return this.#session !== undefined }

  /** Whether the client waits for an answer. */
  get pending (): boolean { return this.framed && this.#inbound.pending }
  /** Whether this side has stopped reading the socket, so that answers to pings do not arrive. */
  get paused (): boolean { return this.#inbound.paused }

  get closed (): boolean { return this.#ending !== undefined || this.#socket.readyState !== open }
  /** The close code that either side sent first; `undefined` before that. */
  get closeCode (): number | undefined { return this.#ending?.said?.code }
  /** Whether the application closed the connection with a code after which the client does not come back. */
  get dismissed (): boolean { return this.#ending?.dismissed === true }
  /** The public name of the client's session. */
  get sessionName (): string | undefined { return this.#session?.name }
  get bufferedBytes (): number { return this.outbound.bufferedBytes }

  /** Made on first use, like `log`: most connections use neither, and the two take more memory than the rest of an idle connection. */
  get signal (): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController()
      if (this.#ending !== undefined) this.#abort.abort()
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
  get finished (): Promise<void> { return this.#inbound.finished }

  send (data: Data): boolean {
    assertData(data)
    const binary = typeof data !== 'string'
    const taken = this.framed
      ? this.outbound.ready && this.write(encodeMessage(data, binary, {}, this.outbound.encoding.json), false)
      : this.write(data, binary)
    if (taken) this.#host.metrics.framesSent++
    return taken
  }

  sendJson (value: unknown): boolean {
    return this.send(toJson(value))
  }

  /** Sends a frame to a framed client; does nothing for others. */
  announce (frame: ServerFrame): void {
    this.#session?.send(frame)
  }

  /** Reports that the connection lost messages of a group. */
  gapped (group: string, reason: LossReason): void {
    this.#host.metrics.gapConnections++
    this.#host.lost?.(group, reason)
    this.#inbound.gap(group, reason)
  }

  /** The hub put the connection into the group. */
  groupJoined (group: string): void {
    (this.#groups ??= new Set()).add(group)
  }

  /** The hub took the connection out of the group. */
  groupLeft (group: string): void {
    this.#groups?.delete(group)
    this.tags?.delete(group)
  }

  /** Takes the position from which the client wants to resume in the group. A second call returns nothing. */
  takeOffer (group: string): ResumePoint | undefined {
    return this.#session?.takeOffer(group)
  }

  /** The client sent a fresh token of the same user. */
  renewIdentity (identity: Identity): void {
    this.#identity = identity
  }

  /** Sends without checking the data; in the framed protocol the data is a frame. */
  write (payload: Uint8Array | string, binary: boolean): boolean {
    return this.outbound.write(payload, binary)
  }

  tooSlow (bufferedBytes: number, atOnce: boolean): void {
    this.#host.metrics.limitHit('slowConsumersClosed', this)
    this.#host.metrics.lines.write(this.log, 'slow_consumer_closed', { bufferedBytes })
    if (atOnce) this.forceClosed(CloseCode.SlowConsumer, closeReasons[CloseCode.SlowConsumer])
    else this.closeForFault(CloseCode.SlowConsumer)
  }

  async setInfo (info: unknown): Promise<void> {
    await this.#host.setInfo?.(this, info)
  }

  close (code: number = CloseCode.Normal, reason = ''): void {
    this.#close({ code, reason }, !isForAWhile(code))
  }

  /** Called when either side closes, or ends its half of the socket: takes the connection out of all groups, counts and lists. */
  leaving (said?: Closed): void {
    this.#ending ??= new Ending(said, false)
    if (this.#ending.begin([...this.#groups ?? []], this.#socket)) this.#ending.released = this.#host.release(this)
    this.#abort?.abort()
  }

  received (data: Buffer, isBinary: boolean): void {
    this.pulse.received()
    this.#inbound.countMessage()
    this.outbound.route.received(data.length)
    if (this.#session === undefined) this.#inbound.receive(data, isBinary)
    else this.#session.receive(data, isBinary)
  }

  pinged (): void { this.#inbound.chargeMessages(1) }
  ponged (data: Buffer): void {
    if (!this.pulse.ponged()) this.#inbound.chargeMessages(1)
    if (data.equals(farewell)) this.shutdownAcked = true
  }

  socketFailed (error: Error): void {
    this.#inbound.socketFailed(error)
    this.closeForFault(CloseCode.InternalError)
  }

  terminate (): void {
    this.#inbound.stop()
    this.outbound.finish()
    this.#socket.terminate()
  }

  async [Symbol.asyncDispose] (): Promise<void> {
    this.close()
    await whenGone(this.#socket)
  }

  ping (): void {
    if (!this.closed) this.#socket.ping()
  }

  /** Tells a framed client when to come back; after that the client sends nothing more. */
  announceShutdown (afterMs: number): void {
    this.announce({ type: 'reconnect', afterMs })
    this.outbound.flush()
    // The pong arrives after everything that the client sent before it read this frame.
    if (!this.closed) this.#socket.ping(farewell)
  }

  /** Ends the connection now, without waiting for a 'close' event that a dead peer may delay beyond the end of the server. */
  forceClosed (code: number, reason: string): void {
    this.terminate()
    this.socketClosed(code, reason)
  }

  /** Runs `onConnect`, then handles what arrived meanwhile. Called once. */
  start (request: FastifyRequest<{ Params: Connection['params'] }>): void {
    // The instance is shutting down and has closed the connection already: nobody would take the connection out of the hub again.
    const entered = this.#ending === undefined ? this.#host.enter(this) : undefined
    const session = this.#session
    void this.#inbound.start(session === undefined ? entered : session.opened(entered, () => this.#host.greeted?.(this)), request)
  }

  closeForFault (code: number, reason = closeReasons[code as CloseCode]): void {
    this.#close({ code, reason }, false)
    this.#inbound.stop()
    this.leaving()
  }

  socketClosed (code: number, reason: string): void {
    this.leaving()
    const closed = this.#ending?.finish({ code, reason })
    if (closed === undefined) return
    this.outbound.ended()
    // The callbacks are not called for a client that never said hello.
    if (this.#session?.helloReceived === false) this.#inbound.stop()
    this.#session?.ended()
    this.#inbound.end(closed, this.#ending?.released)
  }

  #close (said: Closed, dismissed: boolean): void {
    assertClose(said.code, said.reason)
    // When the client closed first, the queue is not stopped: the client's last messages are still handled.
    if (this.closed) return
    this.#inbound.stop()
    this.#ending = new Ending(said, dismissed)
    // Send what waits before the close frame.
    this.#socket.close(said.code, said.reason)
    this.leaving()
  }
}
