import type { FastifyRequest } from 'fastify'
import type { Metrics } from '../../metrics.ts'
import type { ConnectionCallbacks } from '../../route-types.ts'
import type { Connection, SpanFacts } from '../../types.ts'
import { isThenable } from './callback-results.ts'

export type ConnectRequest = FastifyRequest<{ Params: Connection['params'] }>

/** A handler of messages. */
interface MessageCallbacks<Data> {
  onMessage (connection: Connection, data: Data): unknown
}

/** A connection that knows which route it came by. */
export interface RoutedConnection extends Connection {
  readonly outbound: { readonly route: { readonly name: string } }
}

/** Calls `onMessage`, and records how long that takes. Returns and throws what the callback does. */
export function callOnMessage<Data> (
  callbacks: MessageCallbacks<Data>, connection: RoutedConnection, data: Data, { timings, tracing }: Pick<Metrics, 'timings' | 'tracing'>
): unknown {
  const startedAt = performance.now()
  let pending = false
  try {
    const call = (): unknown => callbacks.onMessage(connection, data)
    const result = tracing === undefined ? call() : tracing.run(factsOf(connection, data), call)
    pending = isThenable(result)
    return isThenable(result) ? timed(result) : result
  } finally {
    if (!pending) timings.onMessage.observeSince(startedAt)
  }

  async function timed (result: PromiseLike<unknown>): Promise<unknown> {
    try {
      return await result
    } finally {
      timings.onMessage.observeSince(startedAt)
    }
  }
}

/** Calls `onConnect`, in a span when the application traces. A route without the callback has the span, too: the connection is open. */
export function callOnConnect (
  callbacks: ConnectionCallbacks, connection: Connection, request: ConnectRequest, { tracing }: Pick<Metrics, 'tracing'>
): unknown {
  if (tracing === undefined) return callbacks.onConnect?.(connection, request)
  const route = request.routeOptions.url
  return tracing.run({ name: 'connect', connectionId: connection.id, route }, () => callbacks.onConnect?.(connection, request))
}

function factsOf (connection: RoutedConnection, data: unknown): SpanFacts {
  return { name: 'message', connectionId: connection.id, route: connection.outbound.route.name, ...sizeOf(data) }
}

function sizeOf (data: unknown): { readonly bytes?: number } {
  if (typeof data === 'string') return { bytes: Buffer.byteLength(data) }
  return Buffer.isBuffer(data) ? { bytes: data.length } : {}
}
