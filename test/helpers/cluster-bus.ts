import type { Test } from 'tap'
import { connect, createServer, type Socket } from 'node:net'
import { freePort } from './ports.ts'

/**
 * The cluster bus of some servers, through proxies, so that single servers can be cut off from all others while clients reach them as
 * before. Each server dials from an address of its own, which tells the proxies who calls.
 */
export class ClusterBus {
  readonly #t: Test
  readonly #sockets = new Map<Socket, readonly [owner: string, caller: string]>()
  readonly #isolated = new Set<string>()
  #servers = 0

  constructor (t: Test) {
    this.#t = t
    t.teardown(() => this.#drop(() => true))
  }

  /** Opens the way to one server's bus port. Returns its address, its name on this bus, and the port that others dial. */
  async open (busPort: number): Promise<{ readonly address: string, readonly port: number }> {
    const address = `127.0.1.${++this.#servers}`
    const server = createServer({ noDelay: true }, socket => {
      const caller = socket.remoteAddress ?? ''
      socket.on('error', () => {}) // 'close' follows
      if (this.#isolated.has(caller) || this.#isolated.has(address)) {
        socket.destroy()
        return
      }
      const upstream = connect({ port: busPort, host: '127.0.0.1', noDelay: true })
      upstream.on('error', () => {})
      this.#sockets.set(socket, [address, caller])
      socket.on('close', () => {
        this.#sockets.delete(socket)
        upstream.destroy()
      })
      upstream.on('close', () => socket.destroy())
      socket.pipe(upstream).pipe(socket)
    })
    const port = await freePort()
    await new Promise<void>(resolve => server.listen(port, '127.0.0.1', resolve))
    this.#t.teardown(() => { server.close() })
    return { address, port }
  }

  /** Cuts the server with this address off from all others, or lets it in again. */
  isolate (address: string, on: boolean): void {
    if (on) this.#isolated.add(address)
    else this.#isolated.delete(address)
    this.#drop(([owner, caller]) => this.#isolated.has(owner) || this.#isolated.has(caller))
  }

  #drop (which: (ends: readonly [owner: string, caller: string]) => boolean): void {
    for (const [socket, ends] of this.#sockets) if (which(ends)) socket.destroy()
  }
}
