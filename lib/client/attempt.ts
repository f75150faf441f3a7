import { framedProtocol, type ClientFrame, type HelloFrame, type WelcomeFrame } from '../protocol/frames.ts'
import { ClientError, type ErrorDetails } from './errors.ts'
import { parseFrame, type Frame } from './payload.ts'
import { Liveness } from './liveness.ts'
import type { WebSocketClass, WebSocketLike } from './types.ts'

/** Says to the server: this connection is given up, the session is not. Browsers let a page send 1000 and 3000-4999 alone. */
const givenUp = 4000
/** The reason when nothing comes any more. */
export const silence = 'no sign of life'

export interface AttemptHost {
  token (): Promise<string | undefined>
  hello (): Omit<HelloFrame, 'type'>
  welcomed (frame: WelcomeFrame): void
  received (frame: Frame): void
  /** Once, and last; not after `close()`. The error says why there was no welcome. */
  lost (code: number, reason: string, error?: ClientError): void
  failed (error: ClientError): void
}

export interface AttemptOptions {
  readonly protocols: readonly string[]
  readonly WebSocket: WebSocketClass
  readonly timeoutMs: number
}

/** One attempt to connect and the connection that comes of it, with one socket. Once it is over nothing is heard of it any more. */
export class ConnectionAttempt {
  readonly #options: AttemptOptions
  readonly #host: AttemptHost
  readonly #timer: ReturnType<typeof setTimeout>
  #socket: (WebSocketLike & { terminate?: () => void }) | undefined
  #liveness: Liveness | undefined
  #refusal: ErrorDetails = {}
  #over = false

  constructor (url: string, options: AttemptOptions, host: AttemptHost) {
    this.#options = options
    this.#host = host
    this.#timer = setTimeout(() => this.drop(1006, 'no answer in time'), options.timeoutMs)
    void this.#open(url)
  }

  get bufferedAmount (): number {
    return this.#socket?.bufferedAmount ?? 0
  }

  send (text: string): void {
    this.#socket?.send(text)
  }

  /** Finds out whether the connection is alive. */
  probe (): void {
    this.#liveness?.probe()
  }

  /** Ends it for good; `lost` is not called. */
  close (code: number, reason: string): void {
    this.#socket?.close(code, reason)
    this.#release()
  }

  /** Gives it up; `lost` is called. */
  drop (code: number, reason: string, error?: ClientError): void {
    const socket = this.#socket
    // ws would hold the process for 30 s, waiting for the answer of a peer that is dead.
    if (socket?.terminate) socket.terminate()
    else socket?.close(givenUp)
    this.#end(code, reason, error)
  }

  async #open (url: string): Promise<void> {
    const { WebSocket, protocols } = this.#options
    try {
      const token = await this.#host.token()
      if (!this.#over) this.#listen(this.#socket = new WebSocket(url, [framedProtocol, ...protocols, ...token ? ['bearer', token] : []]))
    } catch (cause) {
      // Also what the constructor throws, for a token with characters that no header may hold.
      this.#end(1006, '', cause instanceof ClientError ? cause : new ClientError('CONNECT_FAILED', String(cause), { cause }))
    }
  }

  #listen (socket: WebSocketLike): void {
    socket.onopen = () => {
      if (socket.protocol === framedProtocol) this.send(JSON.stringify({ type: 'hello', ...this.#host.hello() } satisfies ClientFrame))
      else this.drop(1006, '', new ClientError('PROTOCOL_UNSUPPORTED', `no ${framedProtocol} server`))
    }
    socket.onmessage = ({ data }: { data: unknown }) => this.#receive(data)
    socket.onerror = ({ message, error }: { message?: string, error?: unknown }) => {
      // ws says it, browsers do not.
      const [, status] = /response: (\d+)/.exec(message ?? '') ?? []
      this.#refusal = { status: status ? Number(status) : undefined, cause: error }
    }
    socket.onclose = ({ code, reason }: { code: number, reason: string }) => this.#end(code, reason)
  }

  #receive (data: unknown): void {
    this.#liveness?.seen()
    try {
      const frame = parseFrame(data)
      if (frame.type === 'welcome' && !this.#liveness) this.#welcome(frame)
      else this.#host.received(frame)
    } catch (cause) {
      this.#host.failed(new ClientError('BAD_FRAME', 'not a frame', { cause }))
    }
  }

  #welcome (frame: WelcomeFrame): void {
    clearTimeout(this.#timer)
    this.#liveness = new Liveness(frame.pingMs, () => this.send('{"type":"ping"}'), () => this.drop(1006, silence))
    this.#host.welcomed(frame)
  }

  #end (code: number, reason: string, error?: ClientError): void {
    if (this.#over) return
    this.#release()
    const { status } = this.#refusal
    this.#host.lost(code, reason, error ?? (this.#liveness ? undefined : new ClientError('CONNECT_FAILED', `no connection: ${status ?? code} ${reason}`, { closeCode: code, ...this.#refusal })))
  }

  #release (): void {
    this.#over = true
    clearTimeout(this.#timer)
    this.#liveness?.stop()
    const socket = this.#socket
    // Not null: ws throws an error that nobody listens for, and one comes when a socket is closed before it opened.
    if (socket) socket.onopen = socket.onmessage = socket.onerror = socket.onclose = () => {}
    this.#socket = undefined
  }
}
