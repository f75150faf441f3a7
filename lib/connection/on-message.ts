import type { Metrics } from '../metrics.ts'
import type { Connection } from '../types.ts'
import { isThenable } from './callback-results.ts'

/** Whatever takes messages. */
interface MessageCallbacks<Data> {
  onMessage (connection: Connection, data: Data): unknown
}

/** Calls `onMessage`, and records how long that takes. Returns and throws what the callback does. */
export function callOnMessage<Data> (
  callbacks: MessageCallbacks<Data>, connection: Connection, data: Data, { timings }: Pick<Metrics, 'timings'>
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
