import { once } from 'node:events'
import { WebSocket } from 'ws'
import { connect, type Client, type ClientEvents, type ConnectOptions } from '../client/index.ts'
import { Inbox } from './inbox.ts'

export interface OpenOptions {
  /** Sent as a subprotocol, as browsers do. */
  readonly token?: string | undefined
  readonly headers?: Readonly<Record<string, string>> | undefined
}

/** The method of a client that resolves when nothing of it is left, which is for the cluster alone. */
export const ending = Symbol('ending')

/** Resolves when nothing of the socket is left: until then a timer of it may keep the process of the test alive. */
async function end (socket: WebSocket): Promise<void> {
  if (socket.readyState === WebSocket.CLOSED) return
  const closed = new Promise(resolve => socket.once('close', resolve))
  socket.terminate()
  await closed
}

/** A client that speaks no protocol of this package: a WebSocket. */
export class TestClient extends Inbox<string | Buffer> implements Disposable {
  readonly socket: WebSocket

  constructor (socket: WebSocket) {
    super()
    this.socket = socket
    socket.on('message', (data: Buffer, isBinary) => this.received(isBinary ? data : data.toString()))
    socket.on('close', (code, reason) => this.ended({ code, reason: reason.toString() }))
    // `close` follows every error, and is what tests wait for.
    socket.on('error', () => {})
  }

  /**
   * `begun` gets the client before it is connected, if it ever is.
   * @throws {Error} when the upgrade is refused: the text of the error has the status
   */
  static async open (url: string, { token, headers }: OpenOptions, begun: (client: TestClient) => void): Promise<TestClient> {
    const socket = new WebSocket(url, token === undefined ? [] : ['bearer', token], { headers: { ...headers } })
    const client = new TestClient(socket)
    begun(client)
    await once(socket, 'open')
    return client
  }

  send (data: string | Uint8Array): void {
    this.socket.send(data)
  }

  /** Breaks the link: no close frame, as when a network is gone. */
  cut (): void {
    this.socket.terminate()
  }

  close (code?: number, reason?: string): void {
    this.socket.close(code, reason)
  }

  /** @internal */
  async [ending] (): Promise<void> {
    await end(this.socket)
  }

  [Symbol.dispose] (): void {
    this.close()
  }
}

/** The client of this package, which resumes after a break. Its messages are those of the event `message`. */
export class FramedTestClient extends Inbox<ClientEvents['message']> implements Disposable {
  readonly client: Client
  #socket: WebSocket | undefined

  private constructor (urls: readonly string[], options: ConnectOptions) {
    super()
    const opened = (socket: WebSocket): void => { this.#socket = socket }
    class Recorded extends WebSocket {
      constructor (url: string, protocols: string[]) {
        super(url, protocols)
        opened(this)
      }
    }
    this.client = connect([...urls], { WebSocket: Recorded, backoff: { minMs: 10, maxMs: 50 }, ...options })
    this.client.on('message', message => this.received(message))
    this.client.on('close', closed => this.ended(closed))
    // Attempts fail in tests of outages: `close` tells when the client gives up.
    this.client.on('error', () => {})
  }

  /**
   * `begun` gets the client before it is connected, if it ever is.
   * @throws {Error} when the server refuses the client for good
   */
  static async open (
    urls: readonly string[], options: ConnectOptions, begun: (client: FramedTestClient) => void
  ): Promise<FramedTestClient> {
    const test = new FramedTestClient(urls, options)
    begun(test)
    await new Promise<void>((resolve, reject) => {
      test.client.on('state', ({ state }) => { if (state === 'open') resolve() })
      test.client.on('close', ({ code, reason, error }) => reject(error ?? new Error(`closed with ${code} ${reason}`)))
    })
    return test
  }

  /** Breaks the link: no close frame, as when a network is gone. The client comes back by itself. */
  cut (): void {
    this.#socket?.terminate()
  }

  close (): void {
    this.client.close()
  }

  /** @internal */
  async [ending] (): Promise<void> {
    if (this.#socket !== undefined) await end(this.#socket)
  }

  [Symbol.dispose] (): void {
    this.close()
  }
}
