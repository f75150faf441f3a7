import type { WebSocket } from 'ws'
import { unpaid } from './rate.ts'
import { PauseReason, type Intake, type IntakeBudget } from './intake-budget.ts'
import { unfinishedBytes } from './receiver.ts'
import type { AnyConnection } from '../../types.ts'

/** The part of a connection that its intake needs. */
export interface IntakeOwner {
  readonly connection: AnyConnection
  /** A message is not finished, and others wait for the memory that it takes. */
  stalled (): void
  /** Whether so much waits for the client that it has to read before it may send more. */
  readonly isBehind: boolean
}

/** Counts what one connection sends, and stops reading the socket while that is too much. */
export class ConnectionIntake implements Intake {
  readonly #budget: IntakeBudget
  readonly #socket: WebSocket
  readonly #owner: IntakeOwner
  #reasons = 0
  /** Messages that wait for a callback, and those whose callback runs. */
  #queued = 0
  #unfinished = 0
  /** The instants until which the rates are paid for: see `RateLimit`. */
  #messagesPaid = unpaid
  #bytesPaid = unpaid
  #lastChunkAt = 0
  #closed = false
  /** Reads the rest of a chunk, once the connection is read again. */
  #goOn: (() => void) | undefined

  constructor (budget: IntakeBudget, socket: WebSocket, owner: IntakeOwner) {
    this.#budget = budget
    this.#socket = socket
    this.#owner = owner
  }

  get held (): number {
    return this.#queued + this.#unfinished
  }

  get unfinished (): number {
    return this.#unfinished
  }

  get lastChunkAt (): number {
    return this.#lastChunkAt
  }

  get isPaused (): boolean {
    return this.#reasons !== 0
  }

  /** Whether reading stopped for a reason of this side, and not because the client does not read what waits for it. */
  get waitsForUs (): boolean {
    return (this.#reasons & ~PauseReason.Backlog) !== 0
  }

  get isBehind (): boolean {
    return this.#owner.isBehind
  }

  /** Bytes came, and ws has handed out the messages that they complete. */
  chunkReceived (bytes: number): void {
    if (this.#closed) return
    const budget = this.#budget
    const unfinished = unfinishedBytes(this.#socket)
    if (unfinished !== this.#unfinished) this.#set(this.#queued, unfinished)
    if (budget.bytes !== undefined || unfinished > 0) {
      const now = this.#lastChunkAt = performance.now()
      if (budget.bytes !== undefined) {
        this.#bytesPaid = budget.bytes.charge(this.#bytesPaid, now, bytes)
        if (this.#bytesPaid > now) this.#throttle(this.#bytesPaid)
      }
    }
    this.#stopIfOver()
  }

  /** Whether more of a chunk may be read; if not, `goOn` is called when it may. */
  mayRead (goOn: () => void): boolean {
    this.#stopIfOver()
    if (this.#reasons === 0) return true
    this.#goOn = goOn
    return false
  }

  /** A message is complete. */
  messageReceived (): void {
    this.#budget.completed(this)
    if (this.#unfinished > 0) this.#set(this.#queued, 0)
    this.chargeMessages(1)
  }

  /** Counts this many messages for the limit of their rate. */
  chargeMessages (count: number): void {
    const { messages } = this.#budget
    if (messages === undefined) return
    const now = performance.now()
    this.#messagesPaid = messages.charge(this.#messagesPaid, now, count)
    if (this.#messagesPaid > now) this.#throttle(this.#messagesPaid)
  }

  /** A message waits, or its callback runs. */
  hold (bytes: number): void {
    this.#set(this.#queued + bytes, this.#unfinished)
  }

  release (bytes: number): void {
    this.#set(this.#queued - bytes, this.#unfinished)
  }

  pause (reason: number): void {
    if (this.#closed) return
    if (this.#reasons === 0) {
      this.#budget.paused(this.#owner.connection)
      this.#socket.pause()
    }
    this.#reasons |= reason
  }

  resume (reasons: number): void {
    if (this.#reasons === 0) return
    this.#reasons &= ~reasons
    if (this.#reasons !== 0) return
    this.#budget.resumed()
    this.#socket.resume()
    if (this.#goOn === undefined) return
    // Go on later, never within the call that took a message out of the queue.
    setImmediate(this.#goOn)
    this.#goOn = undefined
  }

  stall (): void {
    this.#budget.metrics.limitHit('stalledMessages', this.#owner.connection)
    this.#owner.stalled()
  }

  /** Stops counting, so that the closing handshake gets through whatever the client still sends. */
  close (): void {
    if (this.#closed) return
    this.#closed = true
    this.#set(this.#queued, 0)
    this.#budget.forget(this)
    this.resume(PauseReason.Queue | PauseReason.Rate | PauseReason.Memory | PauseReason.Backlog)
  }

  #stopIfOver (): void {
    if (this.#closed) return
    const budget = this.#budget
    if (this.isBehind) {
      this.pause(PauseReason.Backlog)
      budget.awaitReader(this)
    }
    if (!budget.isOver(this) || (this.#reasons & PauseReason.Memory) !== 0) return
    this.pause(PauseReason.Memory)
    budget.awaitRoom(this)
  }

  #throttle (until: number): void {
    this.pause(PauseReason.Rate)
    this.#budget.throttle(this, until)
  }

  #set (queued: number, unfinished: number): void {
    const complete = queued - this.#queued
    const incomplete = unfinished - this.#unfinished
    this.#queued = queued
    this.#unfinished = unfinished
    this.#budget.change(this, complete, incomplete)
  }
}
