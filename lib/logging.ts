import type { FastifyBaseLogger } from 'fastify'

/** The logger of this instance. Every line names the instance. */
export function instanceLog (log: FastifyBaseLogger, instanceId: string, label: string | undefined): FastifyBaseLogger {
  return log.child(label === undefined ? { instanceId } : { instanceId, instanceLabel: label })
}

/** The logger of one connection. Every line names the connection. */
export function connectionLog (log: FastifyBaseLogger, connectionId: string): FastifyBaseLogger {
  return log.child({ connectionId })
}

const minuteMs = 60_000

/**
 * Makes a function that logs a warning which a peer can cause at will. It writes at most once a minute; `suppressed` says how many
 * warnings it left out since the last one. Tests inject `now`.
 */
export function oncePerMinute (
  log: FastifyBaseLogger, message: string, now: () => number = () => performance.now()
): (fields?: object) => void {
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
