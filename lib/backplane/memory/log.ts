import { randomBytes, randomInt } from 'node:crypto'
import { BoundedMap } from '../../bounded-map.ts'
import {
  memoryOf, overheadBytes, type AppendTarget, type Envelope, type GapReason, type LoggedEnvelope, type LogLimits, type LogPage,
  type LogPosition, type Place
} from '../backplane.ts'
import { logStart } from '../position.ts'
import { pageOf } from './page.ts'

const idempotencyMs = 300_000
const maxKeys = 100_000
/** How much memory all logs together may take (bytes); the logs of the groups that were quiet for the longest time make room. */
const maxTotalBytes = 67_108_864
/** How much a message counts beside its data in the limit of its log (bytes), roughly as in Redis. */
const messageBytes = 200

interface Log {
  readonly epoch: string
  /** The position before the first of `messages`. */
  before: LogPosition
  readonly messages: LoggedEnvelope[]
  /** What counts against the limit of the log. */
  bytes: number
  /** What the log takes in memory (bytes). */
  memory: number
  /** The largest settings of all appends. */
  limits: LogLimits
  expiresAt: number
}

interface MemoryAppended {
  readonly positions: ReadonlyMap<string, LogPosition>
  readonly duplicate: boolean
  /** The copies to deliver, one of each group that did not have the message yet. */
  readonly copies: readonly Envelope[]
  /** How many messages each log holds in which the message was stored. */
  readonly logLengths: readonly number[]
}

/** The logs of a memory cluster. */
export class MemoryLogs {
  /** In the order of their latest message. */
  readonly #logs = new Map<string, Log>()
  /** Positions by group and idempotency key. */
  readonly #keys: BoundedMap<string, LogPosition>
  readonly #maxBytes: number
  readonly #now: () => number
  #memory = 0

  constructor ({ maxBytes = maxTotalBytes, now = () => performance.now() } = {}) {
    this.#maxBytes = maxBytes
    this.#now = now
    this.#keys = new BoundedMap({ maxWeight: maxKeys, maxAgeMs: idempotencyMs, now })
  }

  stats (): Record<string, number> {
    return { memoryLogs: this.#logs.size, memoryLogBytes: this.#memory }
  }

  /** Stores a copy in the log of each group that keeps one. */
  append (targets: readonly AppendTarget[], envelope: Envelope, key: string | undefined): MemoryAppended {
    this.#expire()
    const positions = new Map<string, LogPosition>()
    const copies: Envelope[] = []
    /** The places of all copies, which share this list. Complete when the last copy is stored, and nobody reads before that. */
    const places: Place[] = []
    const more = targets.length > 1 ? { places } : {}
    const logLengths: number[] = []
    for (const { group, log: limits } of targets) {
      const copy = { ...envelope, ...more, target: { kind: 'group', name: group } as const }
      if (limits === undefined) {
        copies.push(copy)
        continue
      }
      const record = key === undefined ? undefined : `${group.length}:${group}:${key}`
      const known = record === undefined ? undefined : this.#keys.get(record)
      if (known === undefined) {
        const logged = this.#append(group, copy, limits)
        if (record !== undefined) this.#keys.set(record, logged.position)
        copies.push(logged)
        places.push({ group, epoch: logged.position.epoch, offset: logged.position.offset })
        logLengths.push(this.#logs.get(group)?.messages.length ?? 0)
      }
      positions.set(group, known ?? copies.at(-1)?.position ?? logStart)
    }
    this.#evict()
    return { positions, duplicate: logLengths.length === 0, copies, logLengths }
  }

  read (group: string, since: LogPosition | undefined, limit: number): LogPage {
    const log = this.#find(group)
    if (log === undefined) {
      const gap = since === undefined || since.epoch === '' ? undefined : 'epoch'
      return { gap, messages: [], before: logStart, end: logStart, more: false }
    }
    const end = endOf(log)
    const gap = since === undefined ? undefined : gapBetween(log, since)
    if (gap === 'rewound') return { gap, messages: [], before: end, end, more: false }
    const start = startOf(log, since, gap, limit)
    const messages = pageOf(log.messages, start, limit)
    const before = log.messages[start - 1]?.position ?? log.before
    return { gap, messages, before, end, more: start + messages.length < log.messages.length }
  }

  /** Where the log ends. */
  end (group: string): LogPosition {
    const log = this.#find(group)
    return log === undefined ? logStart : endOf(log)
  }

  #append (group: string, envelope: Envelope, limits: LogLimits): LoggedEnvelope {
    const log = this.#find(group) ?? this.#newLog(limits)
    const position = { epoch: log.epoch, offset: endOf(log).offset + 1, nonce: randomInt(1, 2 ** 32) }
    const logged = { ...envelope, position }
    log.limits = larger(log.limits, limits)
    this.#add(log, logged)
    const { maxMessages, maxBytes, ttlMs } = log.limits
    while (log.messages.length > 1 && (log.messages.length > maxMessages || log.bytes > maxBytes)) this.#drop(log)
    log.expiresAt = this.#now() + ttlMs
    this.#logs.delete(group)
    this.#logs.set(group, log)
    return logged
  }

  #newLog (limits: LogLimits): Log {
    this.#memory += overheadBytes
    const epoch = randomBytes(8).toString('latin1')
    return { epoch, before: logStart, messages: [], bytes: 0, memory: overheadBytes, limits, expiresAt: Infinity }
  }

  #add (log: Log, message: LoggedEnvelope): void {
    log.messages.push(message)
    this.#count(log, message, 1)
  }

  /** Drops the oldest message. */
  #drop (log: Log): void {
    const dropped = log.messages.shift()
    if (dropped === undefined) return
    log.before = dropped.position
    this.#count(log, dropped, -1)
  }

  #count (log: Log, message: LoggedEnvelope, sign: 1 | -1): void {
    const memory = sign * memoryOf(message)
    log.bytes += sign * (messageBytes + message.payload.length)
    log.memory += memory
    this.#memory += memory
  }

  #find (group: string): Log | undefined {
    const log = this.#logs.get(group)
    if (log === undefined || log.expiresAt > this.#now()) return log
    this.#forget(group, log)
    return undefined
  }

  #forget (group: string, log: Log): void {
    this.#memory -= log.memory
    this.#logs.delete(group)
  }

  /**
   * Forgets expired logs. As TTLs differ, an expired log may stand behind one that is not: such a log goes when it is asked for, or makes
   * room.
   */
  #expire (): void {
    const now = this.#now()
    for (const [group, log] of this.#logs) {
      if (log.expiresAt > now) return
      this.#forget(group, log)
    }
  }

  #evict (): void {
    for (const [group, log] of this.#logs) {
      if (this.#memory <= this.#maxBytes || this.#logs.size === 1) return
      this.#forget(group, log)
    }
  }
}

function larger (a: LogLimits, b: LogLimits): LogLimits {
  return {
    maxMessages: Math.max(a.maxMessages, b.maxMessages),
    maxBytes: Math.max(a.maxBytes, b.maxBytes),
    ttlMs: Math.max(a.ttlMs, b.ttlMs)
  }
}

function endOf ({ messages, before }: Log): LogPosition {
  return messages.at(-1)?.position ?? before
}

/** Index of the first message that a reader gets. */
function startOf ({ messages, before }: Log, since: LogPosition | undefined, gap: GapReason | undefined, limit: number): number {
  if (since === undefined) return Math.max(0, messages.length - limit)
  return gap === undefined && since.epoch !== '' ? since.offset - before.offset : 0
}

function gapBetween (log: Log, since: LogPosition): GapReason | undefined {
  if (since.epoch === '') return log.before.offset > 0 ? 'trimmed' : undefined
  if (since.epoch !== log.epoch) return 'epoch'
  if (since.offset < log.before.offset) return 'trimmed'
  const there = since.offset === log.before.offset ? log.before : log.messages[since.offset - log.before.offset - 1]?.position
  return there?.nonce === since.nonce ? undefined : 'rewound'
}
