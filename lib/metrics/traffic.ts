/** How many routes are counted apart, more than an application has. The traffic of all others is counted together. */
const maxRoutes = 200
const otherRoutes = 'other'

/** What the connections of one route sent and got. */
export class RouteTraffic {
  /** The route as it was written; empty for a connection of no route. */
  readonly name: string
  messagesIn = 0
  /** Of the messages alone: decompressed, without the frames around them. */
  bytesIn = 0
  messagesOut = 0
  /** As written to sockets: with frames, and compressed if the client asked for compression. */
  bytesOut = 0

  constructor (name: string) {
    this.name = name
  }

  received (bytes: number): void {
    this.messagesIn++
    this.bytesIn += bytes
  }

  written (messages: number, bytes: number): void {
    this.messagesOut += messages
    this.bytesOut += bytes
  }
}

/** The traffic of an instance by route, as the routes were written: `/ws/:room`. */
export class Traffic {
  readonly #routes = new Map<string, RouteTraffic>()

  /** Returns the same object for the same route. */
  of (route: string): RouteTraffic {
    const known = this.#routes.get(route)
    if (known !== undefined) return known
    if (this.#routes.size >= maxRoutes && route !== otherRoutes) return this.of(otherRoutes)
    const traffic = new RouteTraffic(route)
    this.#routes.set(route, traffic)
    return traffic
  }

  routes (): Iterable<[string, RouteTraffic]> {
    return this.#routes
  }
}
