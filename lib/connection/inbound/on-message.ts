import type { FastifyRequest } from 'fastify'
import type { Metrics } from '../../metrics.ts'
import type { ConnectionCallbacks } from '../../route-types.ts'
import type { Connection } from '../../types.ts'
import { isThenable } from './callback-results.ts'

export type ConnectRequest = FastifyRequest<{ Params: Connection['params'] }>

/** A handler of messages. */
interface MessageCallbacks<Data> {
  onMessage (connection: Connection, data: Data): unknown
}

/** Calls `onMessage`, and records how long that takes. Returns and throws what the callback does. */
export function callOnMessage<Data> (
  callbacks: MessageCallbacks<Data>, connection: Connection, data: Data, { timings, tracing }: Pick<Metrics, 'timings' | 'tracing'>
): unknown {
  const startedAt = performance.now()
  let pending = false
  try {
    const call = (): unknown => callbacks.onMessage(connection, data)
    const result = tracing === undefined ? call() : tracing.run({ name: 'message', connectionId: connection.id, ...sizeOf(data) }, call)
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

/** Calls `onConnect`. Returns what the callback does. */
export function callOnConnect (
  callbacks: ConnectionCallbacks, connection: Connection, request: ConnectRequest, { tracing }: Pick<Metrics, 'tracing'>
): unknown {
  const { onConnect } = callbacks
  if (onConnect === undefined) return undefined
  if (tracing === undefined) return onConnect.call(callbacks, connection, request)
  const route = request.routeOptions.url
  return tracing.run({ name: 'connect', connectionId: connection.id, route }, () => onConnect.call(callbacks, connection, request))
}

function sizeOf (data: unknown): { readonly bytes?: number } {
  if (typeof data === 'string') return { bytes: Buffer.byteLength(data) }
  return Buffer.isBuffer(data) ? { bytes: data.length } : {}
}
