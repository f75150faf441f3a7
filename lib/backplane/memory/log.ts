import { randomBytes, randomInt } from 'node:crypto'
import { BoundedMap } from '../../bounded-map.ts'
import { logStart } from '../position.ts'
import type { Appended, Envelope, GapReason, LoggedEnvelope, LogPage, LogPosition, LogSettings } from '../backplane.ts'

const idempotencyMs = 300_000
const maxKeys = 100_000

interface Log {
  readonly epoch: string
  /** The position before the first of `messages`. */
  before: LogPosition
  readonly messages: LoggedEnvelope[]
  /** Positions by idempotency key. */
  readonly keys: BoundedMap<string, LogPosition>
  expiresAt: number
}

/** The logs of a memory cluster. */
export class MemoryLogs {
  /** In the order of their latest message, so that the first is the first to expire (where all have one TTL). */
  readonly #logs = new Map<string, Log>()

  append (group: string, envelope: Envelope, { maxMessages, ttlMs }: LogSettings, key: string | undefined): Appended & { readonly logged: Envelope | undefined } {
    const now = performance.now()
    this.#expire(now)
    const log = this.#logs.get(group) ?? newLog()
    const known = key === undefined ? undefined : log.keys.get(key)
    if (known !== undefined) return { position: known, queued: false, duplicate: true, logged: undefined }
    const top = topOf(log)
    const position = { epoch: log.epoch, offset: top.offset + 1, nonce: randomInt(1, 2 ** 32) }
    const logged = { ...envelope, position }
    log.messages.push(logged)
    while (log.messages.length > maxMessages) log.before = log.messages.shift()?.position ?? log.before
    if (key !== undefined) log.keys.set(key, position)
    log.expiresAt = now + ttlMs
    this.#logs.delete(group)
    this.#logs.set(group, log)
    return { position, queued: false, duplicate: false, logged }
  }

  read (group: string, since: LogPosition | undefined, limit: number): LogPage {
    this.#expire(performance.now())
    const log = this.#logs.get(group)
    if (log === undefined) return { gap: since === undefined || since.epoch === '' ? undefined : 'epoch', messages: [], before: logStart, end: logStart, more: false }
    const top = topOf(log)
    const gap = since === undefined ? undefined : gapBetween(log, since)
    if (gap === 'rewound') return { gap, messages: [], before: top, end: top, more: false }
    const start = since === undefined ? Math.max(0, log.messages.length - limit) : gap === undefined && since.epoch !== '' ? since.offset - log.before.offset : 0
    const messages = log.messages.slice(start, start + limit)
    return { gap, messages, before: log.messages[start - 1]?.position ?? log.before, end: top, more: start + messages.length < log.messages.length }
  }

  /** Where the log ends. */
  end (group: string): LogPosition {
    const log = this.#logs.get(group)
    return log === undefined ? logStart : topOf(log)
  }

  #expire (now: number): void {
    for (const [group, { expiresAt }] of this.#logs) {
      if (expiresAt > now) return
      this.#logs.delete(group)
    }
  }
}

function newLog (): Log {
  return { epoch: randomBytes(8).toString('latin1'), before: logStart, messages: [], keys: new BoundedMap({ maxWeight: maxKeys, maxAgeMs: idempotencyMs }), expiresAt: 0 }
}

function topOf ({ messages, before }: Log): LogPosition {
  return messages.at(-1)?.position ?? before
}

function gapBetween (log: Log, since: LogPosition): GapReason | undefined {
  if (since.epoch === '') return log.before.offset > 0 ? 'trimmed' : undefined
  if (since.epoch !== log.epoch) return 'epoch'
  if (since.offset < log.before.offset) return 'trimmed'
  const there = since.offset === log.before.offset ? log.before : log.messages[since.offset - log.before.offset - 1]?.position
  return there?.nonce === since.nonce ? undefined : 'rewound'
}
