import type { FastifyBaseLogger } from 'fastify'

/** The logger of this instance: every line says which instance wrote it. */
export function instanceLog (log: FastifyBaseLogger, instanceId: string, label: string | undefined): FastifyBaseLogger {
  return log.child(label === undefined ? { instanceId } : { instanceId, instanceLabel: label })
}

/** The logger of one connection. */
export function connectionLog (log: FastifyBaseLogger, connectionId: string): FastifyBaseLogger {
  return log.child({ connectionId })
}

const minuteMs = 60_000

/**
 * A warning that a peer can cause at will: written at most once a minute, with how often it happened since the last time.
 * `now` is injected by tests.
 */
export function oncePerMinute (log: FastifyBaseLogger, message: string, now: () => number = () => performance.now()): (fields?: object) => void {
  let lastAt = -Infinity
  let suppressed = 0
  return (fields = {}) => {
    if (now() - lastAt < minuteMs) {
      suppressed++
      return
    }
    log.warn({ ...fields, suppressed }, message)
    lastAt = now()
    suppressed = 0
  }
}
