import type { FastifyBaseLogger } from 'fastify'
import { toError } from './thrown.ts'

/**
 * What this package logs, and at which level. Each line has its name in the field `event`: filters and alerts can rely on the name, while
 * the message may be reworded. docs/operations.md says what to do about each.
 */
export const logEvents = {
  ready: ['info', 'websocket groups ready'],
  ready_without_backplane: ['warn', 'websocket groups ready, but the backplane is not: the outage policies apply'],
  backplane_up: ['info', 'the backplane is up'],
  backplane_not_up: ['warn', 'the backplane is not up'],
  backplane_call_failed: ['error', 'a custom backplane failed in a way that the contract of backplanes does not allow'],
  drain_started: ['info', 'closing connections one after another'],
  drained: ['info', 'drained'],
  dashboard_action: ['info', 'somebody acted through the dashboard'],
  dashboard_report_failed: ['error', 'the dashboard has no report of its own instance'],

  messages_lost: ['warn', 'connections of this instance lost messages of their groups'],
  replay_failed: ['error', 'a client could not be sent the messages that it missed'],
  log_unreadable: ['warn', 'a log could not be read'],
  log_settings_differ: ['warn', 'processes have different settings for the log of a group: the larger ones apply'],
  envelope_unknown: ['warn', 'dropped a message from Redis that is not an envelope of this package'],

  lease_not_renewed: ['warn', 'the lease could not be renewed'],
  lease_lost: ['warn', 'this instance was declared dead and registers again'],
  not_registered: ['warn', 'Redis answers, but this instance could not register'],
  registration_lost: ['warn', 'Redis no longer knew this instance: all memberships are written again'],
  redis_setup_risky: ['warn', 'Redis is not set up as it should be'],
  instance_reaped: ['info', 'cleaned up after a dead instance'],
  reaping_failed: ['warn', 'cleaning up after a dead instance failed'],
  stale_members_removed: ['info', 'members of instances that are gone were removed'],
  members_left_behind: ['warn', 'memberships could not be removed: the other instances remove them when the lease ends'],
  revocation_failed: ['warn', 'a revocation (a user put out of a group, or blocked) could not be stored or read'],
  secret_unreadable: ['warn', 'the secret that all instances share could not be read'],
  occupancy_unknown: ['warn', 'the backplane could not tell which groups and users came or went: hooks are late'],

  token_refused: ['info', 'token refused'],
  identity_invalid: ['warn', 'token refused: authenticate must return an identity (an object)'],
  authentication_failed: ['error', 'a client could not be authenticated'],
  admission_failed: ['error', 'an upgrade could not be admitted'],
  room_failed: ['error', 'a client could not be let into a room'],
  open_failed: ['error', 'a connection could not be opened'],
  refresh_failed: ['error', 'a membership could not be judged with a fresh token: it ends'],
  tokens_refused: ['warn', 'connection closed: too many tokens were refused'],

  on_connect_refused: ['info', 'onConnect refused the connection'],
  on_connect_failed: ['error', 'onConnect failed'],
  on_message_failed: ['error', 'onMessage failed'],
  message_handler_failed: ['error', 'the handler of a message by name failed'],
  answer_not_stored: ['warn', 'the answer to a message with an idempotency key could not be stored'],
  on_error_failed: ['error', 'onError failed'],
  on_disconnect_failed: ['error', 'onDisconnect failed'],
  callbacks_overdue: ['warn', 'the callbacks of a connection that is gone are not done after a minute: nothing waits for them any longer'],
  hook_failed: ['error', 'a hook of the application for groups or users failed'],
  instances_handler_failed: ['error', 'a handler of registry.instances failed'],
  tracing_failed: ['error', 'the option tracing threw: a delivery is missing in the traces'],
  socket_failed: ['error', 'socket failed'],
  release_failed: ['error', 'memberships could not be released'],

  slow_consumer_closed: ['warn', 'slow consumer closed'],
  queue_overflow: ['warn', 'connection closed: too many messages waiting'],
  message_stalled: ['warn', 'connection closed: other connections needed the memory of its unfinished message'],
  ws_unknown: ['warn', 'unknown release of ws: each message is written by itself, which is slower']
} as const satisfies Record<string, readonly ['info' | 'warn' | 'error', string]>

export type LogEvent = keyof typeof logEvents

/** The logger of this instance. Every line names the instance. */
export function instanceLog (log: FastifyBaseLogger, instanceId: string, label: string | undefined): FastifyBaseLogger {
  return log.child(label === undefined ? { instanceId } : { instanceId, instanceLabel: label })
}

/** The logger of one connection. Every line names the connection. */
export function connectionLog (log: FastifyBaseLogger, connectionId: string): FastifyBaseLogger {
  return log.child({ connectionId })
}

interface Allowance {
  /** How many lines may be written now; fractions add up to whole lines. */
  lines: number
  countedAt: number
  suppressed: number
}

interface Pace { readonly atOnce: number, readonly everyMs: number }

const fewAtOnce: Pace = { atOnce: 10, everyMs: 6_000 }
const onePerMinute: Pace = { atOnce: 1, everyMs: 60_000 }

/**
 * Limits the lines of each event: a few at once, then one in a while. The field `suppressed` says how many lines were left out since the
 * one before, if any were. Tests inject `now`.
 */
export class BoundedLog {
  readonly #allowances = new Map<LogEvent, Allowance>()
  readonly #pace: Pace
  readonly #now: () => number

  constructor (pace: Pace = fewAtOnce, now = () => performance.now()) {
    this.#pace = pace
    this.#now = now
  }

  write (log: FastifyBaseLogger, event: LogEvent, fields: object = {}): void {
    const { atOnce, everyMs } = this.#pace
    const now = this.#now()
    const allowance = this.#allowances.get(event) ?? { lines: atOnce, countedAt: now, suppressed: 0 }
    this.#allowances.set(event, allowance)
    allowance.lines = Math.min(atOnce, allowance.lines + (now - allowance.countedAt) / everyMs)
    allowance.countedAt = now
    if (allowance.lines < 1) {
      allowance.suppressed++
      return
    }
    const [level, message] = logEvents[event]
    const thrown = 'err' in fields ? { err: toError(fields.err) } : {}
    const left = allowance.suppressed > 0 ? { suppressed: allowance.suppressed } : {}
    log[level]({ event, ...fields, ...thrown, ...left }, message)
    allowance.lines--
    allowance.suppressed = 0
  }
}

// One limit per logger, not per caller: the 256 partitions of a cluster share a logger, and in an outage all would write the same line.
const [fewLines, rareLines] = [new WeakMap<FastifyBaseLogger, BoundedLog>(), new WeakMap<FastifyBaseLogger, BoundedLog>()]

function linesOf (log: FastifyBaseLogger, lines: typeof fewLines, pace: Pace, now?: () => number): BoundedLog {
  const known = lines.get(log)
  if (known !== undefined) return known
  const bounded = new BoundedLog(pace, now)
  lines.set(log, bounded)
  return bounded
}

/** Writes a line about something that no client can cause. The field `err` may be anything that was thrown. */
export function logEvent (log: FastifyBaseLogger, event: LogEvent, fields?: object): void {
  linesOf(log, fewLines, fewAtOnce).write(log, event, fields)
}

/** Makes a function that writes a line unless the logger had one of this event less than a minute ago. */
export function oncePerMinute (log: FastifyBaseLogger, event: LogEvent, now?: () => number): (fields?: object) => void {
  const lines = linesOf(log, rareLines, onePerMinute, now)
  return fields => lines.write(log, event, fields)
}
