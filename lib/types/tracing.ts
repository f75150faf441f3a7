/**
 * What a span is about. `send`: a message is sent; `deliver`: it is handed to connections; `connect`: a connection opens; `message`: a
 * client's message is handled; `repair`: a log is read for what its subscription missed.
 */
export interface SpanFacts {
  readonly name: 'send' | 'deliver' | 'connect' | 'message' | 'repair'
  /** What the message is for. */
  readonly to?: 'group' | 'user' | 'instance' | 'all' | undefined
  /** The group, where there is one. */
  readonly group?: string | undefined
  /** The route of the connection, as it was written. */
  readonly route?: string | undefined
  readonly connectionId?: string | undefined
  /** Size of the payload. The payload itself is never passed on. */
  readonly bytes?: number | undefined
  /** How many connections of this instance got the message. */
  readonly recipients?: number | undefined
}

/** Tells a tracing system what happens: the option `tracing`. `fastify-websocket-groups/opentelemetry` makes one for OpenTelemetry. */
export interface Tracing {
  /** Does a piece of work in a span of its own. Returns and throws what the work does. */
  run<Result> (span: SpanFacts, work: () => Result): Result
  /** The context of the span that is active, which travels with a message: W3C `traceparent`. `undefined` when nobody records it. */
  inject (): string | undefined
  /**
   * Called for a message that came with a context and was handed to connections of this instance: up to a second later, for many messages
   * in a row. The times are those of `Date.now()`.
   */
  delivered (span: SpanFacts, traceparent: string, startedAt: number, endedAt: number): void
}
