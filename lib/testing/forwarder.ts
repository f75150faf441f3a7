import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'

/** Passes TCP connections on to a server, until it is cut. */
export class Forwarder {
  /** By the connection of a client, the one to the server. */
  readonly #clients = new Map<Socket, Socket>()
  readonly #server: Server
  #cut = false

  private constructor (host: string, port: number) {
    this.#server = createServer(socket => {
      if (this.#cut) return socket.destroy()
      const other = connect({ host, port })
      socket.pipe(other).pipe(socket)
      this.#clients.set(socket, other)
      socket.on('close', () => this.#clients.delete(socket))
      for (const [one, its] of [[socket, other], [other, socket]] as const) {
        // When one ends, the other ends too; why does not matter here.
        one.on('error', () => one.destroy()).on('close', () => its.destroy())
      }
    })
  }

  static async to (host: string, port: number): Promise<Forwarder> {
    const forwarder = new Forwarder(host, port)
    forwarder.#server.listen(0, '127.0.0.1')
    await once(forwarder.#server, 'listening')
    return forwarder
  }

  get port (): number {
    return (this.#server.address() as AddressInfo).port
  }

  /** How many connections clients have not noticed the end of. */
  get connections (): number {
    return this.#clients.size
  }

  /** Ends all connections, and refuses new ones until `mend`. Nothing is passed on any more, to either side. */
  cut (): void {
    this.#cut = true
    for (const [client, server] of this.#clients) {
      server.unpipe(client)
      // Read on, or the client's own end would never come.
      client.unpipe(server).resume().end()
    }
  }

  mend (): void {
    this.#cut = false
  }

  async close (): Promise<void> {
    this.#cut = true
    for (const client of this.#clients.keys()) client.destroy()
    await new Promise(resolve => this.#server.close(resolve))
  }
}
