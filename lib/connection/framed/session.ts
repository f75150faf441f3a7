import { randomBytes } from 'node:crypto'
import { CloseCode } from '../../protocol/close-codes.ts'
import { WebsocketGroupsError } from '../../errors.ts'
import type { JsonPayload, Payload, ServerFrame } from '../../protocol/frames.ts'
import { encodeFrame, encodePast, parseFrame, type ClientRequest, type ParsedFrame, type ResumePoint } from './frame-codec.ts'
import { parsePosition } from '../../backplane/position.ts'
import { deferred, type Deferred } from '../../deadline.ts'
import { assertGroupName } from '../../group-name.ts'
import { isThenable } from '../inbound/callback-results.ts'
import { JsonMessage } from '../inbound/json-message.ts'
import { isAnswer } from './message-answer.ts'
import { describeError } from '../error-answer.ts'
import { extraMessages, tooComplex } from '../inbound/json-limits.ts'
import { callOnMessage } from '../inbound/on-message.ts'
import type { MessageQueue } from '../inbound/message-queue.ts'
import type { FramedInit } from '../init.ts'
import type { RequestHandler } from '../inbound/queued-message.ts'
import type { SocketWriter } from '../outbound/writer.ts'
import type { ConnectionCallbacks } from '../../route-types.ts'
import { toError } from '../../thrown.ts'
import { RequestRates } from './request-rates.ts'
import { sessionName } from './session-name.ts'
import { TokenRefresh, type Reauthentication, type RefreshedConnection } from './token-refresh.ts'

/** The part of a connection that its session needs. */
export interface FramedConnection extends RefreshedConnection {
  readonly outbound: Pick<SocketWriter, 'greeted' | 'encoding' | 'route' | 'behind' | 'room'>
  write (payload: Buffer | string, binary: boolean): boolean
}

type Hello = Extract<ParsedFrame, { type: 'hello' }>

const sessionBytes = 16
const drawnSession = /^[\w-]{22}$/
const maxHelloBytes = 65_536
/** How many messages a client gets of a history at once. */
const [defaultPage, maxPage] = [100, 1_000]
const pong = Buffer.from(encodeFrame({ type: 'pong' }))

/** The server side of the framed protocol for one client (docs/protocol.md): a hello, then requests, handled one after another. */
export class FramedSession implements RequestHandler {
  readonly #connection: FramedConnection
  readonly #callbacks: ConnectionCallbacks
  readonly #init: FramedInit
  readonly #reauthentication: Reauthentication | undefined
  readonly #queue: MessageQueue
  /** Runs until the client said hello or is gone. */
  #deadline: NodeJS.Timeout | undefined
  /** Resolves when the client said hello or is gone; `undefined` after that. */
  #greeted: Deferred<void> | undefined = deferred()
  #helloReceived = false
  #name: string | undefined
  /** Groups that the client joined by itself. */
  #joined: Set<string> | undefined
  #tokens: TokenRefresh | undefined
  /** Made by the first request other than a message. */
  #rates: RequestRates | undefined
  /** The positions from which the client wants to resume, by group, until a join takes them. */
  #offers: Map<string, ResumePoint> | undefined
  #offersTimer: NodeJS.Timeout | undefined

  constructor (
    connection: FramedConnection, callbacks: ConnectionCallbacks, init: FramedInit, queue: MessageQueue, reauthentication?: Reauthentication
  ) {
    this.#connection = connection
    this.#callbacks = callbacks
    this.#init = init
    this.#reauthentication = reauthentication
    this.#queue = queue
    this.#deadline = setTimeout(() => connection.closeForFault(CloseCode.NoHello), init.helloTimeoutMs).unref()
  }

  /** Before the hello nothing but `pong` is sent. */
  get helloReceived (): boolean { return this.#helloReceived }

  /** The public name of the session. Not its id, which is what proves that a client is back. */
  get name (): string | undefined { return this.#name }

  /** Resolves when the callbacks may run: the client said hello (or is gone), the connection is known, and `greeted` did its part. */
  async opened (entered: Promise<void> | undefined, greeted?: () => Promise<void> | undefined): Promise<void> {
    // Wait for both together: a connection that cannot be made known has to fail now, not when its client says hello.
    await Promise.all([this.#greeted?.promise, entered])
    await greeted?.()
  }

  receive (data: Buffer, isBinary: boolean): void {
    // What the client sent before it closed may still arrive.
    if (!this.#queue.takes) return
    if (isBinary) return this.#violation('frames must be text')
    // Before the hello nothing but the token is known of the client, so the size of the hello is limited.
    if (!this.#helloReceived && data.length > maxHelloBytes) return this.#violation(`hello must have at most ${maxHelloBytes} bytes`)
    const extra = extraMessages(data)
    if (extra === undefined) return this.#violation(tooComplex)
    if (extra > 0) this.#queue.chargeMessages(extra)
    const parsed = parseFrame(data.toString(), data.length)
    if (!parsed.ok) return this.#violation(parsed.why)
    const { frame } = parsed
    // Answered at once, also while a callback runs: a ping is about the link, not about the application.
    if (frame?.type === 'ping') this.#connection.write(pong, false)
    else if (frame?.type === 'hello') this.#hello(frame)
    else if (!this.#helloReceived) this.#violation('hello must come first')
    else if (frame !== undefined) this.#queue.receiveRequest(this, frame, data.length)
  }

  handle (request: ClientRequest): unknown {
    if (request.type === 'message') return this.#message(request.id, request.data)
    this.#rates ??= new RequestRates(this.#init.requestLimits)
    const waitMs = this.#rates.charge(request)
    return waitMs === 0 ? this.#serve(request) : this.#rates.wait(waitMs, this.#connection).then(() => this.#serve(request))
  }

  #serve (request: Exclude<ClientRequest, { type: 'message' }>): unknown {
    if (this.#connection.closed) return undefined
    switch (request.type) {
      case 'join': return this.#join(request)
      case 'leave': return this.#leave(request.id, request.group)
      case 'history': return this.#history(request)
      case 'token': return this.#token(request.id, request.token)
    }
  }

  failed ({ id }: ClientRequest, error: Error): void { this.#refuse(id, error) }

  /** The socket is closed. */
  ended (): void {
    clearTimeout(this.#offersTimer)
    this.#endWait()
  }

  /** Ends the wait for the hello, and frees its timer and promise: every idle connection would keep half a kilobyte of them. */
  #endWait (): void {
    clearTimeout(this.#deadline)
    this.#greeted?.resolve()
    this.#deadline = this.#greeted = undefined
  }

  /** Where the client wants to resume in the group. A second call returns nothing. */
  takeOffer (group: string): ResumePoint | undefined {
    const offer = this.#offers?.get(group)
    if (offer !== undefined) this.#offers?.delete(group)
    return offer
  }

  send (frame: ServerFrame<unknown, Payload | JsonPayload>): void {
    // If the application puts the connection back into the group, the client did not join by itself.
    if (frame.type === 'left') this.#joined?.delete(frame.group)
    if (this.#helloReceived) this.#connection.write(encodeFrame(frame), false)
  }

  #hello ({ session, resume, json }: Hello): void {
    if (this.#helloReceived) return this.#violation('hello must be sent once')
    // An id that this package did not draw is replaced: the welcome has the new one.
    const id = session !== undefined && drawnSession.test(session) ? session : randomBytes(sessionBytes).toString('base64url')
    this.#name = sessionName(id, this.#connection.userId)
    if (resume.size > 0) this.#offer(resume)
    this.#helloReceived = true
    this.#connection.outbound.greeted(json)
    const { pingMs, resumeMs } = this.#init
    this.send({ type: 'welcome', connectionId: this.#connection.id, session: id, pingMs, resumeMs })
    this.#endWait()
  }

  /** Keeps the offers for a while: the client chose the names of the groups, which must not live as long as the connection. */
  #offer (resume: ReadonlyMap<string, ResumePoint>): void {
    this.#offers = new Map(resume)
    this.#offersTimer = setTimeout(() => { this.#offers = undefined }, this.#init.helloTimeoutMs).unref()
  }

  #violation (why: string): void {
    this.#connection.log.debug({ why }, 'framed protocol violated')
    this.#connection.closeForFault(CloseCode.BadFrame, why)
  }

  #message (id: number | undefined, data: string | Buffer | JsonMessage): unknown {
    if (this.#init.mayPost?.(this.#connection) === false) {
      return this.#refuse(id, new WebsocketGroupsError('WSG_FORBIDDEN', 'not in the group'))
    }
    const result = this.#onMessage(data)
    if (id === undefined) return result
    if (isThenable(result)) return Promise.resolve(result).then(value => this.#ack(id, value))
    return this.#ack(id, result)
  }

  #onMessage (data: string | Buffer | JsonMessage): unknown {
    const { json, metrics } = this.#init
    if (!(data instanceof JsonMessage)) return callOnMessage(this.#callbacks, this.#connection, data, metrics)
    if (json === undefined) return callOnMessage(this.#callbacks, this.#connection, data.toString(), metrics)
    return callOnMessage(json, this.#connection, data, metrics)
  }

  async #join ({ id, group, since, grant, history }: Extract<ClientRequest, { type: 'join' }>): Promise<void> {
    if (!await this.#may('mayJoin', id, group)) return
    if (history !== undefined && !await this.#may('mayRead', id, group)) return
    try {
      if (since !== undefined) {
        if (parsePosition(since) === undefined) throw new WebsocketGroupsError('WSG_POSITION_INVALID')
        // Replaces what the hello offered, except for the grant, which need not be repeated.
        const offers = this.#offers ??= new Map<string, ResumePoint>()
        offers.set(group, { since, grant: grant ?? offers.get(group)?.grant })
      }
      const result = await this.#init.join(this.#connection, group, history === undefined ? {} : { history: Math.min(history, maxPage) })
      ;(this.#joined ??= new Set()).add(group)
      this.#ack(id, result)
    } catch (error) {
      this.#refuse(id, error)
    } finally {
      this.#offers?.delete(group)
    }
  }

  /** Asks the callback, and refuses the request unless it says `true`. When the callback throws, `onError` decides, as for `onMessage`. */
  async #may (callback: 'mayJoin' | 'mayRead', id: number | undefined, group: string): Promise<boolean> {
    try {
      assertGroupName(group)
    } catch (error) {
      this.#refuse(id, error)
      return false
    }
    const allowed = await this.#callbacks[callback]?.(this.#connection, group) === true
    if (!allowed) this.#refuse(id, new WebsocketGroupsError('WSG_FORBIDDEN'))
    return allowed
  }

  async #history ({ id, group, query }: Extract<ClientRequest, { type: 'history' }>): Promise<void> {
    if (id === undefined || !await this.#may('mayRead', id, group)) return
    try {
      const { messages, ...page } = await this.#init.history(group, { ...query, limit: Math.min(query.limit ?? defaultPage, maxPage) })
      const { json } = this.#connection.outbound.encoding
      // Senders are shown only where members are shown.
      const shown = messages.map(({ data, position, at, from }) => ({
        ...encodePast(data, json), position, at, ...(this.#callbacks.presence === true && from !== undefined ? { from } : {})
      }))
      this.send({ type: 'history', id, group, messages: shown, ...page })
    } catch (error) {
      this.#refuse(id, error)
    }
  }

  async #leave (id: number | undefined, group: string): Promise<void> {
    if (this.#callbacks.mayJoin === undefined) return this.#refuse(id, new WebsocketGroupsError('WSG_FORBIDDEN'))
    try {
      assertGroupName(group)
      await this.#init.leave(this.#connection, group)
      this.#ack(id)
    } catch (error) {
      this.#refuse(id, error)
    }
  }

  async #token (id: number | undefined, token: string): Promise<void> {
    this.#tokens ??= new TokenRefresh(
      this.#connection, this.#callbacks, this.#init, this.#reauthentication, group => this.#joined?.has(group) === true
    )
    try {
      await this.#tokens.refresh(token)
      this.#ack(id)
    } catch (error) {
      this.#refuse(id, error)
    }
  }

  /** Answers a request: with the `position` in the result of a broadcast or a join, or with the answer that a message by name has. */
  #ack (id: number | undefined, result?: unknown): void {
    if (id === undefined) return
    if (isAnswer(result)) {
      this.#connection.write(result.toFrame(id), false)
      return
    }
    const position = typeof result === 'object' && result !== null && 'position' in result ? result.position : undefined
    this.send({ type: 'ack', id, ...(typeof position === 'string' ? { position } : {}) })
  }

  /** Answers a request with an error. A request without an id gets no answer. */
  #refuse (id: number | undefined, error: unknown): void {
    if (id !== undefined) this.send({ type: 'error', id, ...describeError(toError(error)) })
  }
}
