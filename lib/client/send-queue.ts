import type { AckFrame, ClientFrame, HistoryFrame, JsonPayload, Payload, RequestFrame } from '../protocol/frames.ts'
import { ClientError } from './errors.ts'
import { maxSends, maxWindow } from './limits.ts'
import { fromPayload } from './payload.ts'
import type { Ack, ConnectOptions, SendOptions } from './types.ts'

/** `error` says why the request failed: UNKNOWN_OUTCOME when the connection broke. */
type Done = (error: ClientError | undefined, answer: Answer) => void
type Answer = Partial<Omit<AckFrame, 'type' | 'id'> & Pick<HistoryFrame, 'messages' | 'gap' | 'more'>>

interface Request {
  readonly id: number
  readonly encoded: string
  /** The request is about one connection, and is dropped with it. */
  readonly control: boolean
  readonly done: Done
  readonly retry: boolean | undefined
  sends: number
}

/** The connection that requests go out on. */
interface Wire {
  readonly bufferedAmount: number
  send (text: string): void
}

/** The requests of this client that have no answer yet: in order, within limits, on the wire or waiting for a connection. */
export class SendQueue {
  readonly #limits: Required<NonNullable<ConnectOptions['queue']>>
  readonly #sent = new Map<number, Request>()
  #waiting: Request[] = []
  #bytes = 0
  #lastId = 0
  #window = maxWindow
  #wire: Wire | undefined
  #closed = false

  constructor (limits: ConnectOptions['queue']) {
    this.#limits = { maxMessages: 1_000, maxBytes: 1_048_576, ...limits }
  }

  message (payload: Payload | JsonPayload, { retry }: SendOptions): Promise<Ack> {
    return quiet(new Promise((resolve, reject) => {
      const request = this.#request({ type: 'message', ...payload }, false, (error, { position, data, binary }) => {
        this.#bytes -= bytes
        if (error) reject(error)
        else resolve({ position, ...data !== undefined && { data: fromPayload({ data, binary } as Payload) } })
      }, retry)
      const { maxMessages, maxBytes } = this.#limits
      const bytes = request.encoded.length
      const pending = this.#waiting.length + this.#sent.size
      // A message that is alone may be of any size: the server has a limit of its own.
      const isFull = pending >= maxMessages || (pending > 0 && this.#bytes + bytes > maxBytes)
      if (isFull) throw new ClientError('QUEUE_FULL', 'too many messages wait')
      this.#bytes += bytes
      this.#add(request)
    }))
  }

  /** Sends without asking for an answer. Returns `false` when the message has to wait its turn: call `message` then. */
  post (payload: Payload | JsonPayload): boolean {
    if (!this.#wire || this.#waiting.length || this.#wire.bufferedAmount > this.#limits.maxBytes) return false
    this.#wire.send(JSON.stringify({ type: 'message', ...payload } satisfies ClientFrame))
    return true
  }

  /** Sends any other request, in turn with the messages or at once. */
  ask (frame: RequestFrame, done: Done, atOnce?: boolean): void {
    const request = this.#request(frame, true, done)
    if (atOnce && this.#wire) this.#send(request, this.#wire)
    else this.#add(request)
  }

  /** There is a connection. The requests that `first` makes go before those that wait. */
  attach (wire: Wire, first: () => void): void {
    const waiting = this.#waiting
    this.#waiting = []
    first()
    this.#waiting = [...this.#waiting, ...waiting]
    this.#wire = wire
    this.#pump()
  }

  /** Sends nothing more on this connection, but takes its answers. */
  hold (): void {
    this.#wire = undefined
  }

  /** Settles a request. Returns `false` when no request has this id. */
  receive (id: number | undefined, answer: Answer, error?: ClientError): boolean {
    const request = this.#sent.get(id ?? 0)
    if (!request) return false
    this.#sent.delete(request.id)
    request.done(error, answer)
    this.#pump()
    return true
  }

  /** The connection is gone. The server may have handled what was sent: only messages with `retry` are sent again. */
  broken (tooFast: boolean): void {
    if (tooFast) this.#window = this.#window >> 1 || 1
    for (const request of this.#takeAll()) {
      const { control, sends, retry, done } = request
      if (!control && (!sends || (retry && sends < maxSends))) this.#waiting.push(request)
      else done(unknownOutcome(), {})
    }
  }

  /** The client is closed: rejects everything that has no answer. */
  close (): void {
    this.#closed = true
    for (const { done, control, sends } of this.#takeAll()) done(control || sends ? unknownOutcome() : closed(), {})
  }

  #takeAll (): Request[] {
    const all = [...this.#sent.values(), ...this.#waiting]
    this.#sent.clear()
    this.#waiting = []
    this.#wire = undefined
    return all
  }

  #request (frame: RequestFrame, control: boolean, done: Done, retry?: boolean): Request {
    const id = ++this.#lastId
    return { id, encoded: JSON.stringify({ ...frame, id }), control, done, retry, sends: 0 }
  }

  #add (request: Request): void {
    if (this.#closed) return request.done(closed(), {})
    this.#waiting.push(request)
    this.#pump()
  }

  #pump (): void {
    while (this.#wire && this.#sent.size < this.#window) {
      const request = this.#waiting.shift()
      if (!request) return
      this.#send(request, this.#wire)
    }
  }

  #send (request: Request, wire: Wire): void {
    request.sends++
    this.#sent.set(request.id, request)
    wire.send(request.encoded)
  }
}

/** A rejection that nobody awaits must not end the process of the client. */
export function quiet<Value> (promise: Promise<Value>): Promise<Value> {
  promise.catch(() => {})
  return promise
}

export function closed (): ClientError {
  return new ClientError('CLOSED', 'the client is closed')
}

function unknownOutcome (): ClientError {
  return new ClientError('UNKNOWN_OUTCOME', 'no answer came')
}
