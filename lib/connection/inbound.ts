import type { FastifyRequest } from 'fastify'
import { CloseCode } from '../protocol/close-codes.ts'
import { isSendableClose } from './close.ts'
import { hasCode } from '../errors.ts'
import type { ClientRequest } from './frame-codec.ts'
import type { Metrics } from '../metrics.ts'
import type { ConnectionCallbacks } from '../route-types.ts'
import type { Connection, LossReason } from '../types.ts'

export interface InboundLimits {
  readonly maxQueuedMessages: number
  readonly maxQueuedBytes: number
}

/** What the callbacks need of their connection. */
export interface InboundConnection extends Connection {
  /** Closes, and terminates soon after: the client, or this side, is at fault. */
  closeForFault (code: number, reason?: string): void
}

/** Handles what clients of the framed protocol ask for, in its turn. */
export interface RequestHandler {
  handle (request: ClientRequest): unknown
  /** A callback failed for the request that was handled last, and `onError` keeps the connection. */
  failed (error: Error): void
  /** All that came is handled. */
  idle (): void
}

export interface Closed { readonly code: number, readonly reason: string }
/** Messages of a group are lost to the connection. */
interface Loss { readonly type: 'loss', readonly group: string, readonly reason: LossReason }
type Message = string | Buffer | ClientRequest | Loss
interface Queued { readonly message: Message, readonly bytes: number }

/** Calls the callbacks of one connection, never two at once: onConnect, each message in order, onError, and onDisconnect exactly once. */
export class MessageQueue {
  readonly #connection: InboundConnection
  readonly #callbacks: ConnectionCallbacks
  readonly #limits: InboundLimits
  readonly #metrics: Metrics
  readonly #requests: RequestHandler | undefined
  #queue: Queued[] = []
  #queuedBytes = 0
  /** A callback runs, or the first one did not yet. */
  #busy = true
  #connecting = true
  /** `onConnect` was reached, so `onDisconnect` will be. */
  #announced = false
  /** Nothing more is handled: this side closes the connection. */
  #stopped = false
  #socketError: Error | undefined
  #ended: Closed | undefined
  #released: Promise<void> | undefined
  #done = false
  #finished: Promise<void> | undefined
  #resolveFinished: (() => void) | undefined

  constructor (connection: InboundConnection, callbacks: ConnectionCallbacks, limits: InboundLimits, metrics: Metrics, requests?: RequestHandler) {
    this.#connection = connection
    this.#callbacks = callbacks
    this.#limits = limits
    this.#metrics = metrics
    this.#requests = requests
  }

  /** Resolves when `onDisconnect` is done; never rejects. */
  get finished (): Promise<void> {
    this.#finished ??= this.#done ? Promise.resolve() : new Promise(resolve => { this.#resolveFinished = resolve })
    return this.#finished
  }

  /** Runs `onConnect` once `entered` is done, then handles what arrived meanwhile. Never rejects. */
  async start (entered: Promise<void> | undefined, request: FastifyRequest<{ Params: Connection['params'] }>): Promise<void> {
    try {
      if (entered !== undefined) await entered
      // Closed by this side before the callbacks heard of it: then they never do.
      this.#announced = !this.#stopped
      if (this.#announced) await this.#callbacks.onConnect?.(this.#connection, request)
    } catch (error) {
      this.#connectFailed(toError(error))
    }
    this.#connecting = false
    await this.#work()
  }

  receive (data: Buffer, isBinary: boolean): void {
    if (this.#stopped || this.#ended !== undefined) return
    if (this.#busy) this.#enqueue(isBinary ? detached(data) : data.toString(), data.length)
    else this.#begin(isBinary ? data : data.toString())
  }

  /** The same for a request of the framed protocol, which was `bytes` long. */
  receiveRequest (request: ClientRequest, bytes: number): void {
    if (this.#stopped || this.#ended !== undefined) return
    if (this.#busy) this.#enqueue(request, bytes)
    else this.#begin(request)
  }

  /** Messages of a group are lost to the connection: for `onGap`, in its turn. */
  gap (group: string, reason: LossReason): void {
    if (this.#callbacks.onGap === undefined || this.#stopped || this.#ended !== undefined) return
    const message: Loss = { type: 'loss', group, reason }
    // No client causes these, and there is one per loss: the limits of the queue are not for them.
    if (this.#busy) this.#queue.push({ message, bytes: 0 })
    else this.#begin(message)
  }

  #begin (message: Message): void {
    this.#busy = true
    let result: unknown
    try {
      result = this.#handle(message)
    } catch (error) {
      result = this.#messageFailed(toError(error))
    }
    // A handler that is done at once needs no promise.
    if (isThenable(result)) void this.#work(result)
    else this.#idle()
  }

  /** Drops what waits, and whatever still comes. */
  stop (): void {
    this.#stopped = true
    this.#queue = []
    this.#queuedBytes = 0
  }

  /** The socket failed, and closes by itself; `onError` hears of it before `onDisconnect`. */
  socketFailed (error: Error): void {
    this.#socketError ??= error
  }

  /** The socket is closed; `released` settles when its memberships are gone. Called once. */
  end (closed: Closed, released: Promise<void> = Promise.resolve()): void {
    this.#ended = closed
    this.#released = released.catch((error: unknown) => { this.#logFailure(toError(error), 'memberships were not released') })
    if (!this.#busy) this.#idle()
  }

  #connectFailed (error: Error): void {
    const { closeCode, closeReason = '' } = error as Error & { closeCode?: unknown, closeReason?: unknown }
    if (isSendableClose(closeCode, closeReason)) {
      this.#connection.log.info({ err: error }, 'onConnect refused the connection')
      return this.#connection.closeForFault(closeCode as number, closeReason as string)
    }
    this.#logFailure(error, 'onConnect failed')
    if (hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT')) this.#connection.closeForFault(CloseCode.TryAgainLater, 'not available now')
    else this.#connection.closeForFault(CloseCode.InternalError)
  }

  #enqueue (message: Message, bytes: number): void {
    const { maxQueuedMessages, maxQueuedBytes } = this.#limits
    // A single message may be as large as maxPayload allows.
    if (this.#queue.length >= maxQueuedMessages || (this.#queue.length > 0 && this.#queuedBytes + bytes > maxQueuedBytes)) {
      this.#metrics.queueOverflows++
      this.#connection.log.warn({ queuedMessages: this.#queue.length, queuedBytes: this.#queuedBytes }, 'too many messages waiting')
      return this.#connection.closeForFault(this.#connecting ? CloseCode.TryAgainLater : CloseCode.PolicyViolation)
    }
    this.#queue.push({ message, bytes })
    this.#queuedBytes += bytes
  }

  /** Waits for a callback that runs, then handles the queue, one message at a time. Never rejects. */
  async #work (running?: PromiseLike<unknown>): Promise<void> {
    let pending: unknown = running
    for (;;) {
      try {
        if (isThenable(pending)) await pending
        const next = this.#queue.shift()
        if (next === undefined) break
        this.#queuedBytes -= next.bytes
        pending = this.#handle(next.message)
      } catch (error) {
        pending = this.#messageFailed(toError(error))
      }
    }
    this.#idle()
  }

  #handle (message: Message): unknown {
    const isObject = typeof message === 'object' && 'type' in message
    if (isObject && message.type === 'loss') return this.#tellGap(message)
    this.#metrics.messagesReceived++
    if (isObject) return this.#requests?.handle(message)
    return this.#callbacks.onMessage(this.#connection, message)
  }

  /** Never rejects. */
  async #tellGap ({ group, reason }: Loss): Promise<void> {
    try {
      await this.#callbacks.onGap?.(this.#connection, group, { reason })
    } catch (error) {
      if (!await this.#survives(toError(error), 'onGap failed')) this.#connection.closeForFault(CloseCode.InternalError)
    }
  }

  /** Never rejects. */
  async #messageFailed (error: Error): Promise<void> {
    if (await this.#survives(error, 'onMessage failed')) this.#requests?.failed(error)
    else this.#connection.closeForFault(CloseCode.InternalError)
  }

  /** Whether `onError` wants to keep the connection. */
  async #survives (error: Error, what: string): Promise<boolean> {
    if (this.#callbacks.onError === undefined) {
      this.#logFailure(error, what)
      return false
    }
    try {
      return await this.#callbacks.onError(this.#connection, error) === true
    } catch (inner) {
      this.#connection.log.error({ err: toError(inner) }, 'onError failed')
      return false
    }
  }

  #idle (): void {
    this.#busy = false
    this.#requests?.idle()
    if (this.#ended !== undefined) void this.#finish(this.#ended)
  }

  async #finish (closed: Closed): Promise<void> {
    try {
      await this.#released
      if (this.#announced && this.#socketError !== undefined) await this.#survives(this.#socketError, 'socket failed')
      if (this.#announced) await this.#callbacks.onDisconnect?.(this.#connection, closed)
    } catch (error) {
      this.#logFailure(toError(error), 'onDisconnect failed')
    }
    this.#metrics.connectionsClosed++
    this.#done = true
    this.#resolveFinished?.()
  }

  #logFailure (err: Error, message: string): void {
    // That a client left in the middle of something is nobody's fault.
    if (this.#connection.closed && hasCode(err, 'WSG_CONNECTION_GONE')) this.#connection.log.debug({ err }, message)
    else this.#connection.log.error({ err }, message)
  }
}

/** ws hands out views into what the network delivered at once: a few bytes that wait would hold 64 KiB. */
function detached (data: Buffer): Buffer {
  if (data.buffer.byteLength <= 2 * data.length) return data
  const copy = Buffer.allocUnsafeSlow(data.length)
  copy.set(data)
  return copy
}

export function isThenable (value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value
}

function toError (thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(`a callback threw ${typeof thrown === 'string' ? thrown : typeof thrown}, which is no Error`, { cause: thrown })
}
