import type { LocalConnection } from './connection.ts'
import type { Metrics } from '../metrics.ts'

/** How many pings are sent in one turn of the event loop. A ping is a system call: thousands at once would hold up everything else. */
const batchSize = 256

/** Pings all connections of the instance on one timer, and terminates those that gave no sign of life in two intervals: see `Pulse`. */
export class Heartbeat {
  readonly #intervalMs: number
  readonly #connections: () => Iterable<LocalConnection>
  readonly #metrics: Metrics
  #timer: NodeJS.Timeout | undefined
  #batch: NodeJS.Immediate | undefined

  constructor (intervalMs: number, connections: () => Iterable<LocalConnection>, metrics: Metrics) {
    this.#intervalMs = intervalMs
    this.#connections = connections
    this.#metrics = metrics
  }

  start (): void {
    if (this.#intervalMs === 0) return
    this.#timer ??= setInterval(() => {
      // If a sweep takes longer than the interval, the next one is left out.
      if (this.#batch === undefined) this.#sweep(this.#connections()[Symbol.iterator]())
    }, this.#intervalMs).unref()
  }

  stop (): void {
    clearInterval(this.#timer)
    clearImmediate(this.#batch)
    this.#timer = undefined
    this.#batch = undefined
  }

  /** An iterator of a Map stays valid while connections come and go between two batches. */
  #sweep (connections: Iterator<LocalConnection>): void {
    this.#batch = undefined
    for (let done = 0; done < batchSize; done++) {
      const next = connections.next()
      if (next.done === true) return
      this.#check(next.value)
    }
    this.#batch = setImmediate(() => this.#sweep(connections)).unref()
  }

  #check (connection: LocalConnection): void {
    // Either side is closing, or the client ended its half of the socket and ws told nobody. The end has its own time limit.
    if (connection.closed) return connection.leaving()
    // While this side does not read the socket, the client's pongs wait in the network, and so does the end of the socket.
    const { paused } = connection
    if (paused) connection.pulse.received()
    switch (connection.pulse.look(connection.outbound.traffic, this.#intervalMs)) {
      case 'ping': return connection.ping()
      case 'wait':
        // Only a write finds out that the peer is gone: the network refuses the first ping, and then Node the next one.
        if (paused) connection.ping()
        return
      case 'terminate':
        this.#metrics.heartbeatTimeouts++
        connection.log.debug('connection terminated: no sign of life')
        connection.terminate()
    }
  }
}
