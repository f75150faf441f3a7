import { AsyncResource } from 'node:async_hooks'
import type { WebSocket } from 'ws'
import { CloseCode } from '../../protocol/close-codes.ts'
import { isSendableClose } from '../close.ts'
import { hasCode } from '../../errors.ts'
import { isClientFault, willPass } from '../error-answer.ts'
import { isThenable } from './callback-results.ts'
import { Input, type InboundHost } from './input.ts'
import { detached, MessageBuffer, weigh, type Received } from './message-buffer.ts'
import type { ClientRequest } from '../framed/frame-codec.ts'
import { tooManyParts } from './message-parts.ts'
import { isFramed, isLoss, type Message, type RequestHandler } from './queued-message.ts'
import { callOnConnect, callOnMessage, type ConnectRequest, type RoutedConnection } from './on-message.ts'
import type { SocketWriter } from '../outbound/writer.ts'
import type { LogEvent } from '../../logging.ts'
import type { Metrics } from '../../metrics.ts'
import type { ConnectionCallbacks } from '../../route-types.ts'
import { toError } from '../../thrown.ts'
import type { LossReason } from '../../types.ts'

/** The part of a connection that its callbacks need. */
export interface InboundConnection extends RoutedConnection {
  readonly outbound: RoutedConnection['outbound'] & Pick<SocketWriter, 'behind' | 'room'>
  /** Closes the connection because the client or this side is at fault, and terminates it soon after. */
  closeForFault (code: number, reason?: string): void
  leaving (): void
}

export interface Closed { readonly code: number, readonly reason: string }

/**
 * The one queue of a connection: calls its callbacks, never two at once: onConnect, each message or framed request in order, onError, and
 * onDisconnect exactly once. Made within the upgrade request, in whose async context all callbacks run.
 */
export class MessageQueue extends AsyncResource {
  readonly #connection: InboundConnection
  readonly #callbacks: ConnectionCallbacks
  readonly #metrics: Metrics
  /** Made when the first message has to wait. */
  #queue: MessageBuffer<Message> | undefined
  readonly #input: Input
  /** A callback runs, or `onConnect` has not run yet. */
  #busy = true
  #connecting = true
  /** `onConnect` was called, so `onDisconnect` will be. */
  #announced = false
  /** Nothing is handled any longer: this side closes the connection. */
  #stopped = false
  #socketError: Error | undefined
  #ended: Closed | undefined
  #released: Promise<void> | undefined
  #done = false
  #finished: Promise<void> | undefined
  #resolveFinished: (() => void) | undefined

  constructor (connection: InboundConnection, callbacks: ConnectionCallbacks, socket: WebSocket, host: InboundHost) {
    super('WebsocketGroupsConnection', { requireManualDestroy: true })
    this.#connection = connection
    this.#callbacks = callbacks
    this.#metrics = host.metrics
    this.#input = new Input(connection, socket, host)
  }

  /** A message waits, or its callback runs. */
  get pending (): boolean { return this.#busy && this.#ended === undefined && (!this.#connecting || this.#queue?.isEmpty === false) }

  /** Resolves when `onDisconnect` is done; never rejects. */
  get finished (): Promise<void> {
    this.#finished ??= this.#done ? Promise.resolve() : new Promise(resolve => { this.#resolveFinished = resolve })
    return this.#finished
  }

  /** Runs `onConnect` once `entered` is done, then handles what arrived meanwhile. Never rejects. */
  async start (entered: Promise<void> | undefined, request: ConnectRequest): Promise<void> {
    try {
      if (entered !== undefined) await entered
      // If this side closed the connection before `onConnect` ran, no callback ever hears of the connection.
      this.#announced = !this.#stopped
      if (this.#announced) await callOnConnect(this.#callbacks, this.#connection, request, this.#metrics)
    } catch (error) {
      this.#connectFailed(toError(error))
    }
    this.#connecting = false
    await this.#work()
  }

  /** Whether this side does not read the socket now. */
  get paused (): boolean { return this.#input.paused }
  /** A message of any kind came. */
  countMessage (): void { this.#input.messageReceived() }
  /** Counts a message that costs as much as this many others. */
  chargeMessages (count: number): void { this.#input.chargeMessages(count) }

  /** Whether what comes is still handled. */
  get takes (): boolean { return !this.#stopped && this.#ended === undefined }

  receive (data: Buffer, isBinary: boolean): void {
    if (!this.takes) return
    if (this.#busy) this.#enqueue(isBinary ? detached(data) : data.toString(), data.length)
    else this.runInAsyncScope(this.#begin, this, isBinary ? data : data.toString(), data.length)
  }

  /** Does the same for a framed request of `bytes` bytes. */
  receiveRequest (handler: RequestHandler, request: ClientRequest, bytes: number): void {
    if (this.takes) this.#take({ handler, request }, bytes)
  }

  /** Messages of a group are lost to the connection: tells `onGap`, in its turn. */
  gap (group: string, reason: LossReason): void {
    if (this.#callbacks.onGap !== undefined && this.takes) this.#take({ group, reason }, 0)
  }

  #take (message: Message, bytes: number): void {
    if (this.#busy) this.#enqueue(message, bytes)
    else this.runInAsyncScope(this.#begin, this, message, bytes)
  }

  #begin (message: Message, bytes: number): void {
    this.#busy = true
    let result: unknown
    try {
      result = this.#handle(message)
    } catch (error) {
      result = this.#messageFailed(message, toError(error))
    }
    // A handler that is done at once needs no promise.
    if (!isThenable(result)) return this.#idle()
    this.#input.intake.hold(weigh(bytes))
    void this.#work({ message, bytes }, result)
  }

  /** Drops what waits, and everything that still comes. */
  stop (): void {
    this.#stopped = true
    this.#queue?.clear()
    // The client's answer to the close must get through.
    this.#input.close()
  }

  /** The socket failed, and closes by itself; `onError` hears of it before `onDisconnect`. */
  socketFailed (error: Error): void {
    this.#socketError ??= error
    if ('code' in error && error.code === tooManyParts) this.#metrics.limitHit('fragmentFloods', this.#connection)
  }

  /** The socket is closed; `released` settles when its memberships are gone. Called once. */
  end (closed: Closed, released: Promise<void> = Promise.resolve()): void {
    this.#ended = closed
    this.#input.close()
    this.#released = released.catch((error: unknown) => { this.#logFailure(toError(error), 'release_failed') })
    if (!this.#busy) this.runInAsyncScope(this.#idle, this)
  }

  #connectFailed (error: Error): void {
    const { closeCode, closeReason = '' } = error as Error & { closeCode?: unknown, closeReason?: unknown }
    if (isSendableClose(closeCode, closeReason)) {
      this.#metrics.lines.write(this.#connection.log, 'on_connect_refused', { err: error })
      return this.#connection.closeForFault(closeCode as number, closeReason as string)
    }
    this.#logFailure(error, 'on_connect_failed')
    this.#closeFor(error)
  }

  /** An outage of the backplane, or a limit, is not the fault of the callback: the client is asked to try again later. */
  #closeFor (error: Error): void {
    if (willPass(error)) this.#connection.closeForFault(CloseCode.TryAgainLater, 'temporarily unavailable')
    else this.#connection.closeForFault(CloseCode.InternalError)
  }

  #enqueue (message: Message, bytes: number): void {
    this.#queue ??= new MessageBuffer(this.#input.limits, this.#input.intake)
    if (this.#queue.push(message, bytes)) return
    this.#metrics.limitHit('queueOverflows', this.#connection)
    const { length, bytes: queuedBytes } = this.#queue
    this.#metrics.lines.write(this.#connection.log, 'queue_overflow', { queuedMessages: length, queuedBytes })
    this.#connection.closeForFault(this.#connecting ? CloseCode.TryAgainLater : CloseCode.PolicyViolation)
  }

  /** Waits for the callback that runs for a message, then handles the queue, one message at a time. Never rejects. */
  async #work (first?: Received<Message>, running?: PromiseLike<unknown>): Promise<void> {
    let [current, pending]: [Received<Message> | undefined, unknown] = [first, running]
    for (;;) {
      try {
        if (isThenable(pending)) await pending
        if (current !== undefined) this.#input.release(weigh(current.bytes))
        current = undefined
        // Answers would pile up for a client that does not read them.
        if (this.#queue?.isEmpty === false && this.#connection.outbound.behind) await this.#connection.outbound.room()
        const next = this.#queue?.shift()
        if (next === undefined) break
        current = next
        // Of messages alone: snapshots take the others that were handled for messages that did not wait.
        if (!isLoss(next.message)) this.#metrics.timings.queueWait.observeSince(next.since)
        pending = this.#handle(next.message)
      } catch (error) {
        pending = this.#messageFailed(current?.message, toError(error))
      }
    }
    this.#idle()
  }

  #handle (message: Message): unknown {
    if (isLoss(message)) return this.#callbacks.onGap?.(this.#connection, message.group, { reason: message.reason })
    this.#metrics.messagesReceived++
    if (isFramed(message)) return message.handler.handle(message.request)
    return callOnMessage(this.#callbacks, this.#connection, message, this.#metrics)
  }

  /** Never rejects. */
  async #messageFailed (message: Message | undefined, error: Error): Promise<void> {
    const framed = isFramed(message)
    const stays = this.#callbacks.onError === undefined ? this.#isAnswer(error, framed) : await this.#survives(error, 'on_message_failed')
    if (framed) message.handler.failed(message.request, error)     // A waiting client gets its answer, even where the connection ends.
    if (!stays) return this.#closeFor(error)
    this.#metrics.messagesFailed++
  }

  /** Whether the connection stays open: the cause passes, the client is at fault, or a framed client gets the error as its answer. */
  #isAnswer (error: Error, framed: boolean): boolean {
    if (willPass(error) || isClientFault(error)) {
      this.#connection.log.debug({ err: error }, 'a message was refused')
      return true
    }
    this.#logFailure(error, 'on_message_failed')
    return framed
  }

  /** Whether `onError` wants to keep the connection. */
  async #survives (error: Error, what: LogEvent): Promise<boolean> {
    if (this.#callbacks.onError === undefined) {
      this.#logFailure(error, what)
      return false
    }
    try {
      return await this.#callbacks.onError(this.#connection, error) === true
    } catch (inner) {
      this.#metrics.lines.write(this.#connection.log, 'on_error_failed', { err: inner })
      return false
    }
  }

  #idle (): void {
    this.#busy = false
    if (this.#ended !== undefined) void this.#finish(this.#ended)
  }

  async #finish (closed: Closed): Promise<void> {
    try {
      await this.#released
      if (this.#announced && this.#socketError !== undefined) await this.#survives(this.#socketError, 'socket_failed')
      if (this.#announced) await this.#callbacks.onDisconnect?.(this.#connection, closed)
    } catch (error) {
      this.#logFailure(toError(error), 'on_disconnect_failed')
    }
    this.#metrics.connectionClosed(this.#connection, closed)
    this.#done = true
    this.#resolveFinished?.()
  }

  #logFailure (err: Error, event: LogEvent): void {
    // Nobody is at fault when a client leaves in the middle of a call.
    const { closed, log } = this.#connection
    if (closed && hasCode(err, 'WSG_CONNECTION_GONE')) log.debug({ err, event }, 'the client left meanwhile')
    else this.#metrics.lines.write(this.#connection.log, event, { err })
  }
}
