import { Agent, type ClientRequestArgs } from 'node:http'
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'

/** How a balancer chooses among the instances: the first that takes the connection has it. */
interface Balancer {
  order (ports: readonly number[]): readonly number[]
  /** It tries this one. */
  dialled? (port: number, socket: Socket): void
}

/** Chance, as kube-proxy does it. */
export const atRandom: Balancer = {
  order: ports => ports.map(port => ({ port, rank: Math.random() })).sort((a, b) => a.rank - b.rank).map(({ port }) => port)
}

/** The instance with the fewest connections through this balancer, as nginx's `least_conn`. */
export class LeastConnections implements Balancer {
  readonly #counts = new Map<number, number>()

  order (ports: readonly number[]): readonly number[] {
    // By chance among equals.
    return [...atRandom.order(ports)].sort((a, b) => (this.#counts.get(a) ?? 0) - (this.#counts.get(b) ?? 0))
  }

  dialled (port: number, socket: Socket): void {
    const add = (one: number): void => { this.#counts.set(port, (this.#counts.get(port) ?? 0) + one) }
    add(1)
    socket.once('close', () => add(-1))
  }
}

type Done = (error: Error | null, stream: Duplex) => void

/**
 * The network between one client and the instances: reaches one that lives, as a TCP balancer would, and can be cut. To the client it is an
 * HTTP agent, so that there is no further process on the way that could be the bottleneck.
 */
export class Line extends Agent {
  /** Of the instances; may change at any time. */
  ports: readonly number[]
  readonly #balancer: Balancer
  #socket: Socket | undefined
  #down = false

  constructor (ports: readonly number[], balancer = atRandom) {
    super()
    this.ports = ports
    this.#balancer = balancer
  }

  /** Resets the connection, which both ends notice at once, and lets none through for that long. */
  cut (ms: number): void {
    this.#down = true
    this.#socket?.resetAndDestroy()
    setTimeout(() => { this.#down = false }, ms)
  }

  // Always through the callback, as it may take several attempts.
  override createConnection (_: ClientRequestArgs, callback?: Done): undefined {
    this.#dial(this.#balancer.order(this.ports), callback as (error: Error | null, stream?: Duplex) => void)
  }

  #dial ([port, ...others]: readonly number[], done: (error: Error | null, stream?: Duplex) => void): void {
    if (this.#down || port === undefined) return done(new Error(this.#down ? 'the line is cut' : 'no instance is there'))
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    this.#socket = socket
    this.#balancer.dialled?.(port, socket)
    const failed = (): void => this.#dial(others, done)
    socket.once('error', failed)
    socket.once('connect', () => {
      socket.off('error', failed)
      done(null, socket)
    })
  }
}
