import { framedProtocol, type ClientFrame, type HelloFrame, type WelcomeFrame } from '../protocol/frames.ts'
import { ClientError, type ErrorDetails } from './errors.ts'
import { maxTimerMs } from './limits.ts'
import { parseFrame, type Frame } from './payload.ts'
import { Liveness } from './liveness.ts'
import type { WebSocketClass, WebSocketLike } from './types.ts'

/** Tells the server that the client gives up this connection and comes back. A page may close with 1000 and 3000 to 4999 alone. */
const givenUp = 4000
/** The reason for dropping a connection on which nothing came any longer. */
export const silence = 'no sign of life'
/** The reason for dropping a connection that was opened and got no welcome. */
export const noWelcome = 'no welcome in time'

export interface AttemptHost {
  token (): Promise<string | undefined>
  hello (): Omit<HelloFrame, 'type'>
  welcomed (frame: WelcomeFrame, attempt: ConnectionAttempt): void
  received (frame: Frame): void
  /** The server wants the client back after this time. */
  comeBack (afterMs: number): void
  /** Called once, after all other calls; not at all after `close()`. `error` says why there was no welcome. */
  lost (code: number, reason: string, error?: ClientError): void
  failed (error: ClientError): void
}

interface Answer { readonly statusCode: number, readonly headers: Readonly<Record<string, string | undefined>> }

/** What a socket of ws has beyond that of a browser. */
interface NodeSocket extends WebSocketLike {
  terminate?: () => void
  on?: (name: 'unexpected-response', listener: (request: unknown, answer: Answer) => void) => void
  readonly _socket?: { bytesRead?: number } | null
}

export interface AttemptOptions {
  readonly protocols: readonly string[]
  readonly WebSocket: WebSocketClass
  readonly limitMs: number
  /** The attempt waits for this first. Never rejects. */
  readonly ready?: Promise<void> | '' | false | undefined
}

/** One attempt to connect, and the connection that comes of it. Once it is over, the host hears nothing more of the socket. */
export class ConnectionAttempt {
  readonly #options: AttemptOptions
  readonly #host: AttemptHost
  readonly #patience: number
  readonly #timer: ReturnType<typeof setTimeout>
  #socket: NodeSocket | undefined
  #liveness: Liveness | undefined
  #refusal: ErrorDetails = {}
  #opened = false
  #over = false

  /** `patience`: an answer may take this many times as long as usual. */
  constructor (url: string, options: AttemptOptions, host: AttemptHost, patience: number) {
    this.#options = options
    this.#patience = patience
    this.#host = host
    this.#timer = setTimeout(() => this.drop(1006, this.#opened ? noWelcome : 'no answer in time'), Math.min(options.limitMs, maxTimerMs))
    void this.#open(url)
  }

  get bufferedAmount (): number {
    return this.#socket?.bufferedAmount ?? 0
  }

  /** Whether the server answered a ping on this connection. */
  get answered (): boolean | undefined {
    return this.#liveness?.answered
  }

  send (text: string): void {
    this.#socket?.send(text)
  }

  /** Asks the server for a sign of life. */
  probe (): void {
    this.#liveness?.probe()
  }

  /** Closes the connection for good, without calling `lost`. */
  close (code: number, reason: string): void {
    this.#socket?.close(code, reason)
    this.#release()
  }

  /** Gives the connection up and calls `lost`. */
  drop (code: number, reason: string, error?: ClientError): void {
    const socket = this.#socket
    // After close(), ws would wait 30 s for the answer of a dead peer, and hold the process.
    if (socket?.terminate) socket.terminate()
    else socket?.close(givenUp)
    this.#end(code, reason, error)
  }

  async #open (url: string): Promise<void> {
    const { WebSocket, protocols, ready } = this.#options
    try {
      if (ready) await ready
      const token = await this.#host.token()
      if (!this.#over) this.#listen(this.#socket = new WebSocket(url, [framedProtocol, ...protocols, ...token ? ['bearer', token] : []]))
    } catch (cause) {
      // The token is checked already, so the constructor throws only for what no attempt can change: an insecure address in a secure page.
      this.#end(1006, '', cause instanceof ClientError ? cause : new ClientError('ADDRESS_UNUSABLE', String(cause), { cause }))
    }
  }

  #listen (socket: NodeSocket): void {
    socket.onopen = () => {
      this.#opened = true
      if (socket.protocol === framedProtocol) this.send(JSON.stringify({ type: 'hello', ...this.#host.hello() } satisfies ClientFrame))
      else this.#unsupported()
    }
    socket.onmessage = ({ data }: { data: unknown }) => this.#receive(data)
    socket.onerror = ({ message, error: cause }: { message?: string, error?: unknown }) => {
      this.#refusal = { cause }
      if (/subprotocol/.test(`${message}`)) this.#unsupported()
    }
    // ws alone tells the status and the headers of an answer that is no upgrade, and leaves the rest to this listener.
    socket.on?.('unexpected-response', (_request, { statusCode: status, headers }) => {
      this.#refusal = { status }
      const after = headers['retry-after']
      const afterMs = after ? +after * 1_000 || Date.parse(after) - Date.now() : 0
      if (afterMs > 0 && (status === 429 || status === 503)) this.#host.comeBack(Math.min(afterMs, maxTimerMs))
      this.drop(1006, '')
    })
    socket.onclose = ({ code, reason }: { code: number, reason: string }) => this.#end(code, reason)
  }

  #receive (data: unknown): void {
    this.#liveness?.seen()
    try {
      const frame = parseFrame(data)
      if (this.#liveness) this.#host.received(frame)
      else if (frame.type === 'welcome') this.#welcome(frame)
      // A server of this protocol says nothing else before its welcome.
      else if (frame.type !== 'pong') this.#unsupported()
    } catch (cause) {
      if (!this.#liveness) return this.#unsupported()
      this.#host.failed(new ClientError('BAD_FRAME', 'no frame', { cause }))
    }
  }

  /** The route does not speak the framed protocol. */
  #unsupported (): void {
    this.drop(1006, '', new ClientError('PROTOCOL_UNSUPPORTED', `no ${framedProtocol}`))
  }

  #welcome (frame: WelcomeFrame): void {
    clearTimeout(this.#timer)
    const ping = (): void => this.send('{"type":"ping"}')
    const dead = (): void => this.drop(1006, silence)
    this.#liveness = new Liveness(frame.pingMs, ping, dead, this.#patience, () => this.#socket?._socket?.bytesRead)
    this.#host.welcomed(frame, this)
  }

  #end (code: number, reason: string, error?: ClientError): void {
    if (this.#over) return
    this.#release()
    const { status } = this.#refusal
    this.#host.lost(code, reason, error ?? (this.#liveness
      ? undefined
      : new ClientError('CONNECT_FAILED', `not connected: ${status ?? code} ${reason}`, { closeCode: code, ...this.#refusal })))
  }

  #release (): void {
    this.#over = true
    clearTimeout(this.#timer)
    this.#liveness?.stop()
    const socket = this.#socket
    // Functions instead of null: ws throws errors that nobody listens for, and emits one when a socket is closed before it opened.
    if (socket) socket.onopen = socket.onmessage = socket.onerror = socket.onclose = () => {}
    this.#socket = undefined
  }
}
