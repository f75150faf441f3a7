import { Agent, type ClientRequestArgs } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'

type Done = (error: Error | null, stream: Duplex) => void

/**
 * The network between one client and the instances: reaches one that lives, as a TCP balancer would, and can be cut. To the client it is an
 * HTTP agent, so that there is no further process on the way that could be the bottleneck.
 */
export class Line extends Agent {
  /** Of the instances; may change at any time. */
  ports: readonly number[]
  #socket: Socket | undefined
  #down = false

  constructor (ports: readonly number[]) {
    super()
    this.ports = ports
  }

  /** Resets the connection, which both ends notice at once, and lets none through for that long. */
  cut (ms: number): void {
    this.#down = true
    this.#socket?.resetAndDestroy()
    setTimeout(() => { this.#down = false }, ms)
  }

  // Always through the callback, as it may take several attempts.
  override createConnection (_: ClientRequestArgs, callback?: Done): undefined {
    this.#dial(shuffled(this.ports), callback as (error: Error | null, stream?: Duplex) => void)
  }

  #dial ([port, ...others]: readonly number[], done: (error: Error | null, stream?: Duplex) => void): void {
    if (this.#down || port === undefined) return done(new Error(this.#down ? 'the line is cut' : 'no instance is there'))
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    this.#socket = socket
    const failed = (): void => this.#dial(others, done)
    socket.once('error', failed)
    socket.once('connect', () => {
      socket.off('error', failed)
      done(null, socket)
    })
  }
}

function shuffled (ports: readonly number[]): number[] {
  return ports.map(port => ({ port, rank: Math.random() })).sort((a, b) => a.rank - b.rank).map(({ port }) => port)
}
