import { connect, createServer, type Socket } from 'node:net'
import { freePort } from '../../helpers/ports.ts'

/** Which of an instance's two connections: it is told by its first SUBSCRIBE. */
export type LinkKind = 'command' | 'subscribe'

interface Connection {
  readonly client: Socket
  readonly server: Socket
  kind: LinkKind
  /** What Redis said and the client has not got yet, with the performance.now() at which it does. */
  readonly late: Array<{ readonly chunk: Buffer, readonly dueAt: number }>
  lostBytes: boolean
}

/** A TCP proxy between one instance and Redis that knows its two links apart and can be led to another server. */
export class Wire {
  readonly port: number
  /** Where new connections lead. */
  target: number
  readonly #connections = new Set<Connection>()
  readonly #server = createServer({ noDelay: true }, client => this.#accept(client))
  readonly #swallowed = new Set<LinkKind>()
  #paused = false
  #delayMs = { command: 0, subscribe: 0 }
  /** What comes from Redis, in bytes per millisecond. */
  #rate = Infinity
  #ambush: { readonly text: string, readonly sprung: () => void } | undefined

  private constructor (port: number, target: number) {
    this.port = port
    this.target = target
  }

  static async start (target: number): Promise<Wire> {
    const wire = new Wire(await freePort(), target)
    await new Promise<void>((resolve, reject) => wire.#server.once('error', reject).listen(wire.port, '127.0.0.1', resolve))
    return wire
  }

  get url (): string {
    return `redis://127.0.0.1:${this.port}`
  }

  links (kind: LinkKind): number {
    return [...this.#connections].filter(one => one.kind === kind).length
  }

  /** Resets connections; new ones are let in. */
  cut (...kinds: LinkKind[]): void {
    for (const one of this.#connections) if (kinds.length === 0 || kinds.includes(one.kind)) this.#reset(one)
  }

  /** Bytes vanish both ways and nothing is closed, until `lift`. */
  blackhole (...kinds: LinkKind[]): void {
    for (const kind of kinds.length === 0 ? ['command', 'subscribe'] as const : kinds) this.#swallowed.add(kind)
  }

  /** Ends the black hole. TCP never goes on after a hole in its stream: connections that lost bytes are reset. */
  lift (): void {
    this.#swallowed.clear()
    for (const one of this.#connections) if (one.lostBytes) this.#reset(one)
  }

  /**
   * Reads nothing more from Redis on the subscribe link, so that its output buffer there grows: on the connection that is there, or also on
   * the next ones. When that ends, the newest goes first.
   */
  pause (on: boolean, alsoNext = true): void {
    this.#paused = on && alsoNext
    for (const { kind, server } of [...this.#connections].reverse()) {
      if (kind === 'subscribe') on ? server.pause() : server.resume()
    }
  }

  /** What Redis says arrives this much later. */
  delay (kind: LinkKind, ms: number): void {
    this.#delayMs[kind] = ms
  }

  /** A slow link: so many bytes per second come from Redis on each connection; `Infinity` ends it. */
  limit (bytesPerSecond: number): void {
    this.#rate = bytesPerSecond / 1_000
  }

  /** Resolves once a request with this text has gone through; its reply is lost, and the link with it. */
  async loseReplyTo (text: string): Promise<void> {
    await new Promise<void>(resolve => { this.#ambush = { text, sprung: resolve } })
  }

  /** No reply is lost any more. */
  keepReplies (): void {
    this.#ambush = undefined
  }

  async lead (target: number): Promise<void> {
    this.target = target
    this.cut()
  }

  close (): void {
    this.#server.close()
    this.cut()
  }

  #accept (client: Socket): void {
    const server = connect({ port: this.target, host: '127.0.0.1', noDelay: true })
    const connection: Connection = { client, server, kind: 'command', late: [], lostBytes: false }
    this.#connections.add(connection)
    let dropping = false
    client.on('data', chunk => {
      if (connection.kind === 'command' && /\r\ns?subscribe\r\n/i.test(chunk.toString('latin1', 0, 100))) {
        connection.kind = 'subscribe'
        if (this.#paused) server.pause()
      }
      if (this.#swallowed.has(connection.kind)) {
        connection.lostBytes = true
        return
      }
      if (this.#ambush !== undefined && chunk.includes(this.#ambush.text)) {
        const { sprung } = this.#ambush
        this.#ambush = undefined
        dropping = true
        // The request arrives and is carried out; by its reply, which goes nowhere, we know.
        server.once('data', () => {
          this.#reset(connection)
          sprung()
        })
      }
      if (server.writable) server.write(chunk)
    })
    server.on('data', chunk => {
      if (dropping) return
      if (this.#swallowed.has(connection.kind)) {
        connection.lostBytes = true
      } else {
        const delayMs = this.#delayMs[connection.kind] + chunk.length / this.#rate
        if (delayMs === 0 && connection.late.length === 0) return this.#answer(connection, chunk)
        if (this.#rate < Infinity) this.#hold(connection, delayMs)
        // One timer a connection: with one for each chunk, chunks would overtake each other.
        if (connection.late.push({ chunk, dueAt: performance.now() + delayMs }) === 1) {
          setTimeout(() => this.#answerLate(connection), delayMs)
        }
      }
    })
    for (const socket of [client, server]) {
      socket.on('error', () => {})                     // 'close' follows
      socket.on('close', () => {
        if (this.#swallowed.has(connection.kind)) connection.lostBytes = true
        else this.#reset(connection)
      })
    }
  }

  /** Takes no more from Redis than the slow link carries: the rest waits there. */
  #hold ({ server, kind }: Connection, ms: number): void {
    server.pause()
    setTimeout(() => { if (!this.#paused || kind === 'command') server.resume() }, ms)
  }

  #answer ({ client, server, kind }: Connection, chunk: Buffer): void {
    if (!client.writable || client.write(chunk)) return
    server.pause()
    client.once('drain', () => { if (!this.#paused || kind === 'command') server.resume() })
  }

  #answerLate (connection: Connection): void {
    const { late } = connection
    const now = performance.now()
    while (late[0] !== undefined && late[0].dueAt <= now) this.#answer(connection, (late.shift() as typeof late[0]).chunk)
    if (late[0] !== undefined) setTimeout(() => this.#answerLate(connection), Math.ceil(late[0].dueAt - now))
  }

  #reset (connection: Connection): void {
    this.#connections.delete(connection)
    // Not resetAndDestroy(): on a socket that is being shut down it leaks the handle, and the event loop then spins on it for good.
    for (const socket of [connection.client, connection.server]) socket.destroy()
  }
}
