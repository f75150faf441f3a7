import type { Metrics } from '../metrics.ts'
import type { ConnectionCallbacks } from '../route-types.ts'
import type { Connection } from '../types.ts'
import { isThenable } from './callback-results.ts'

/** Calls `onMessage`, and records how long that takes. Returns and throws what the callback does. */
export function callOnMessage (
  callbacks: ConnectionCallbacks, connection: Connection, data: string | Buffer, { timings }: Pick<Metrics, 'timings'>
): unknown {
  const startedAt = performance.now()
  let pending = false
  try {
    const result: unknown = callbacks.onMessage(connection, data)
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
