import type { Metrics } from '../../metrics.ts'
import type { ResolvedLimits } from '../../options/limits.ts'
import { RateLimit } from './rate.ts'
import type { AnyConnection } from '../../types.ts'

/** Why a connection is not read: bits, as several reasons may hold at the same time. */
export const PauseReason = { Queue: 1, Rate: 2, Memory: 4, Backlog: 8 } as const

/** How often paused connections are checked, while there are any. */
const tickMs = 25
/** How much a connection may deliver at once when it is read again: two chunks of the network (bytes). */
const chunkBytes = 131_072
/** How much every connection may hold, so that small messages get through however much others hold (bytes). */
const minShareBytes = 16_384
/**
 * All connections together may hold this many times the limit: fair shares shrink as connections come, and the first connections hold more.
 */
const maxOverdraft = 1.5
/** Connections are read again when this part of the limit is used, so that they do not stop again at once. */
const roomShare = 0.75
/**
 * How many unfinished messages are rescued at the same time: read on without room, while complete ones take no more than this part of the
 * limit. Otherwise all connections might wait for each other: what was read before they stopped may exceed the limit.
 */
const maxRescued = 2
const rescueShare = 0.5
/** A rescued message without progress for this long makes room for another one; and how many may stand still at the same time. */
const rescueMs = 100
const maxStandstill = 8
/** How many waiting connections are looked at, to find unfinished messages to rescue. */
const maxSearched = 64
/** Only unfinished messages with more bytes have to make progress. */
const largeBytes = 16_384
/** How long an unfinished message may make no progress while others wait: a rescued one, and any other (milliseconds). */
const rescueStallMs = 2_000
const maxStallMs = 10_000
const stallCheckMs = 500

/** How much of this instance's memory one connection takes. */
export interface Intake {
  /** Bytes, of complete messages and of one that is not. */
  readonly held: number
  /** Bytes of a message that is not complete yet. */
  readonly unfinished: number
  /** When the latest chunk came; known while a message is unfinished. */
  readonly lastChunkAt: number
  readonly isPaused: boolean
  /** Whether so much waits for the client that it has to read before it may send again. */
  readonly isBehind: boolean
  /** These reasons to pause no longer hold. */
  resume (reasons: number): void
  /** Called when the connection holds an unfinished message without progress while others wait for the memory. */
  stall (): void
}

type IntakeLimits = Pick<ResolvedLimits, 'messages' | 'bytes' | 'queuedBytes'>

/**
 * The memory that this instance has for what clients send, and the clock of their rates. Connections that hold more than a fair share are
 * not read while the whole is over its limit; TCP makes their clients wait, and nobody is closed for it.
 */
export class IntakeBudget {
  readonly messages: RateLimit | undefined
  readonly bytes: RateLimit | undefined
  readonly metrics: Metrics
  readonly #limitBytes: number
  /** Bytes of complete messages, and of unfinished ones. */
  #completeBytes = 0
  #unfinishedBytes = 0
  #holders = 0
  #paused = 0
  /** Connections that are not read until there is room, in the order in which they stopped. */
  readonly #waiting = new Set<Intake>()
  /** Connections that are not read until their rate allows it. */
  readonly #throttled = new Map<Intake, number>()
  /** Connections that are not read until their clients read what waits for them. */
  readonly #behind = new Set<Intake>()
  /** Connections with a large unfinished message. */
  readonly #large = new Set<Intake>()
  /** Connections that are read although there is no room, and since when. */
  readonly #rescued = new Map<Intake, number>()
  #checkedAt = 0
  #timer: NodeJS.Timeout | undefined

  constructor ({ messages, bytes, queuedBytes = Infinity }: IntakeLimits, metrics: Metrics) {
    this.messages = messages === undefined ? undefined : new RateLimit(messages)
    this.bytes = bytes === undefined ? undefined : new RateLimit(bytes)
    this.metrics = metrics
    this.#limitBytes = queuedBytes
  }

  stats (): Record<string, number> {
    return { intakeBytes: this.#heldBytes, socketsPaused: this.#paused }
  }

  get #heldBytes (): number {
    return this.#completeBytes + this.#unfinishedBytes
  }

  /** A connection holds this many bytes more (or less) of complete messages and of an unfinished one. */
  change (intake: Intake, complete: number, unfinished: number): void {
    this.#completeBytes += complete
    this.#unfinishedBytes += unfinished
    const { held } = intake
    const before = held - complete - unfinished
    if (before === 0 && held > 0) this.#holders++
    else if (before > 0 && held === 0) this.#holders--
    if (intake.unfinished > largeBytes) this.#large.add(intake)
    else this.#large.delete(intake)
    if (held >= before || this.#waiting.size === 0) return
    this.#admit()
    this.#rescue()
  }

  /** Whether the connection has to stop until there is room. */
  isOver (intake: Intake): boolean {
    const held = this.#heldBytes
    if (held <= this.#limitBytes || intake.held <= minShareBytes || this.#rescued.has(intake)) return false
    return held > this.#limitBytes * maxOverdraft || intake.held > this.#limitBytes / Math.max(this.#holders, 1)
  }

  awaitRoom (intake: Intake): void {
    this.#waiting.add(intake)
    this.#arm()
  }

  throttle (intake: Intake, until: number): void {
    this.#throttled.set(intake, until)
    this.#arm()
  }

  awaitReader (intake: Intake): void {
    this.#behind.add(intake)
    this.#arm()
  }

  /** A message is complete: a connection that went on without room for this message stops now. */
  completed (intake: Intake): void {
    if (this.#rescued.delete(intake)) this.#rescue()
  }

  paused (connection: AnyConnection): void {
    this.#paused++
    this.metrics.limitHit('pauses', connection)
  }

  resumed (): void {
    this.#paused--
  }

  forget (intake: Intake): void {
    this.#waiting.delete(intake)
    this.#throttled.delete(intake)
    this.#behind.delete(intake)
    this.#large.delete(intake)
    this.completed(intake)
  }

  #admit (): void {
    let room = this.#limitBytes * roomShare - this.#heldBytes
    for (const intake of this.#waiting) {
      if (room <= 0) return
      room -= chunkBytes
      this.#waiting.delete(intake)
      intake.resume(PauseReason.Memory)
    }
  }

  #arm (): void {
    this.#timer ??= setInterval(() => this.#tick(), tickMs).unref()
  }

  #tick (): void {
    const now = performance.now()
    for (const [intake, until] of this.#throttled) {
      if (until > now) continue
      this.#throttled.delete(intake)
      intake.resume(PauseReason.Rate)
    }
    for (const intake of this.#behind) {
      if (intake.isBehind) continue
      this.#behind.delete(intake)
      intake.resume(PauseReason.Backlog)
    }
    this.#admit()
    if (this.#waiting.size > 0) this.#relieve(now)
    if (this.#waiting.size > 0 || this.#throttled.size > 0 || this.#behind.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #relieve (now: number): void {
    if (now - this.#checkedAt >= stallCheckMs) {
      this.#checkedAt = now
      for (const intake of this.#large) {
        const since = this.#rescued.get(intake)
        const standsStillMs = now - Math.max(since ?? 0, intake.lastChunkAt)
        if (!intake.isPaused && standsStillMs > (since === undefined ? maxStallMs : rescueStallMs)) intake.stall()
      }
    }
    this.#rescue()
  }

  /** Lets unfinished messages go on, one after another: when they alone fill the memory, their rest would never be read otherwise. */
  #rescue (): void {
    if (this.#completeBytes > this.#limitBytes * rescueShare || this.#rescued.size >= maxRescued + maxStandstill) return
    const now = performance.now()
    let free = maxRescued
    for (const [intake, since] of this.#rescued) if (now - Math.max(since, intake.lastChunkAt) <= rescueMs) free--
    let searched = 0
    for (const intake of this.#waiting) {
      if (free <= 0 || ++searched > maxSearched) return
      this.#waiting.delete(intake)
      if (intake.held > intake.unfinished) {
        // A connection with complete messages has to wait until these are handled.
        this.#waiting.add(intake)
        continue
      }
      free--
      this.#rescued.set(intake, now)
      intake.resume(PauseReason.Memory)
    }
  }
}
