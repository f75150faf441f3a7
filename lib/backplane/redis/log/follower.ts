import { logStart, samePosition } from '../../position.ts'
import type { LoggedEnvelope, LogPosition } from '../../backplane.ts'

/** How many nonces are kept: they tell a repeated message from another one with the same offset. */
export const remembered = 256
/** For how long a publisher may store a message again that a log lost: no retry takes longer (milliseconds). */
export const repeatMs = 60_000
/** How many losses are remembered, each with the nonces that were delivered before it. */
const maxLost = 2
/**
 * How many logs that are gone are remembered: live messages of a log may come after its end was read, and a failover back to the server
 * that has the log brings it back.
 */
const maxGone = 4
const maxWaiting = { messages: 1_000, bytes: 1_048_576 } as const

/** A live message, with the nonce of the message before it in the log. */
interface LiveMessage {
  readonly envelope: LoggedEnvelope
  readonly previousNonce: number
}

/** Live messages that wait for those before them. */
interface Waiting {
  readonly messages: LiveMessage[]
  bytes: number
  /** How many of the messages had arrived when the log was last read. */
  covered: number
}

/** What was delivered of a log before it lost data: up to `last`, the nonces by offset modulo their number. */
interface LostLog {
  readonly last: LogPosition
  readonly nonces: Uint32Array
  readonly at: number
}

/** One group's log, as far as this instance has delivered it. */
export class LogFollower {
  readonly group: string
  opening: Promise<void> | undefined
  /** A message may be missing that neither the latest read of the log saw nor `waiting` holds: the log has to be read once more. */
  rereadNeeded = false
  #position: LogPosition | undefined
  /**
   * Nonces of the messages up to the position, by offset modulo the length; 0: not known. `undefined` until there is more to know than the
   * position: most groups are quiet.
   */
  #nonces: Uint32Array | undefined
  /** The messages that wait: an object that is made when needed, because most followers never need one. */
  #waiting: Waiting | undefined
  /** What was delivered of the log before it lost data, latest loss first. */
  #lost: readonly LostLog[] | undefined
  /** Where the follower left the logs that the group had before this one, latest last. */
  #gone: readonly LogPosition[] | undefined

  constructor (group: string) {
    this.group = group
  }

  /** `undefined` until the end of the log was read or a first message came. */
  get position (): LogPosition | undefined {
    return this.#position
  }

  /** Whether there is a log: the group had one when its end was read, or a message of one came. */
  get hasLog (): boolean {
    return this.#position !== undefined && this.#position.epoch !== logStart.epoch
  }

  /** Live messages wait, because messages before them are missing. */
  get buffering (): boolean {
    return this.#waiting !== undefined
  }

  /** Live messages that came while missing ones are read, oldest first. */
  get waiting (): readonly LiveMessage[] {
    return this.#waiting?.messages ?? []
  }

  /** Moves the position on to a message that was delivered. What lies between was not for this follower. */
  advance (position: LogPosition): void {
    if (this.#position === undefined) return this.seek(position)
    const nonces = this.#nonces ??= noncesOf(this.#position)
    const firstSkipped = Math.max(this.#position.offset + 1, position.offset - remembered)
    for (let skipped = firstSkipped; skipped < position.offset; skipped++) nonces[skipped % remembered] = 0
    this.#position = position
    nonces[position.offset % remembered] = position.nonce
  }

  /** Goes on from a position that does not follow the last one: the first, or one beyond a gap, or one further back. */
  seek (position: LogPosition): void {
    const [last, nonces] = [this.#position, this.#nonces]
    if (last !== undefined && last.epoch !== '' && last.epoch !== position.epoch) {
      this.#gone = [...this.#gone ?? [], last].slice(-maxGone)
    }
    const back = last?.epoch === position.epoch ? last.offset - position.offset : -1
    if (last === undefined || nonces === undefined || back < 0 || back >= remembered) {
      this.#nonces = undefined
    } else {
      // Older messages stay known; those after the position are no longer part of the log.
      for (let offset = position.offset + 1; offset <= last.offset; offset++) nonces[offset % remembered] = 0
      nonces[position.offset % remembered] = position.nonce
    }
    this.#position = position
  }

  /**
   * Notes that the log lost data: the latest messages delivered may be missing in it, and publishers that got no answer may store them
   * again.
   */
  lose (): void {
    const last = this.#position
    if (last === undefined || last.offset === 0) return
    this.tidy()
    const lost = { last, nonces: this.#nonces === undefined ? noncesOf(last) : Uint32Array.from(this.#nonces), at: performance.now() }
    this.#lost = [lost, ...this.#lost ?? []].slice(0, maxLost)
  }

  /** Where the follower left the log of this epoch, if it followed that log before the present one. */
  left (epoch: string): LogPosition | undefined {
    return epoch === this.#position?.epoch ? undefined : this.#gone?.find(gone => gone.epoch === epoch)
  }

  /** The group has the log again that the follower left at this position: goes on from there. Returns the epochs of the logs between. */
  comeBack (left: LogPosition): readonly string[] {
    const known = this.#lost?.find(({ last }) => samePosition(last, left))
    this.lose()
    this.seek(left)
    const gone = this.#gone?.map(({ epoch }) => epoch) ?? []
    this.#gone = this.#gone?.filter(({ epoch }) => epoch !== left.epoch)
    if (known !== undefined) this.#nonces = Uint32Array.from(known.nonces)
    return gone.slice(gone.lastIndexOf(left.epoch) + 1)
  }

  /** Where the message with this nonce stood that was delivered before the log lost data; `undefined` where none is known. */
  lostPlace (nonce: number): LogPosition | undefined {
    if (this.#lost === undefined) return undefined
    this.tidy()
    for (const { last: { epoch, offset }, nonces } of this.#lost ?? []) {
      const index = nonces.indexOf(nonce)
      if (index !== -1) return { epoch, offset: offset - (offset - index) % remembered, nonce }
    }
    return undefined
  }

  /** Where the message with this nonce stands that was delivered from the present log; `undefined` where none is known. */
  placeOf (nonce: number): LogPosition | undefined {
    const last = this.#position
    if (last === undefined || this.#nonces === undefined) return last?.nonce === nonce ? last : undefined
    const index = this.#nonces.indexOf(nonce)
    return index === -1 ? undefined : { epoch: last.epoch, offset: last.offset - (last.offset - index) % remembered, nonce }
  }

  /** Frees memory that is no longer needed. */
  tidy (): void {
    const [latest] = this.#lost ?? []
    if (latest !== undefined && performance.now() - latest.at >= repeatMs) this.#lost = undefined
  }

  follows ({ epoch, offset }: LogPosition, previousNonce: number): boolean {
    const last = this.#position
    if (last === undefined) return true
    if (offset !== last.offset + 1 || previousNonce !== last.nonce) return false
    // Any log may follow an empty one, except one that the follower left: what that log has was delivered, or told as lost.
    return last.epoch === epoch || (last.epoch === '' && last.offset === 0 && this.left(epoch) === undefined)
  }

  /** Whether this message was delivered already. `false` also for those too long ago to tell. */
  knows ({ epoch, offset, nonce }: LogPosition): boolean {
    const last = this.#position
    if (last === undefined || epoch !== last.epoch || offset > last.offset || last.offset - offset >= remembered) return false
    return this.#nonceOf(offset) === nonce
  }

  /**
   * For a log that lost its latest messages and went on from an older one. `positions`: the latest positions of that log. Returns the index
   * of the first one that was surely never delivered here and comes after all that were.
   */
  firstUnknown (positions: readonly LogPosition[]): number {
    const common = positions.findLastIndex(position => this.knows(position))
    if (common !== -1) return common + 1
    // Other messages have the offsets after this one now: forget their nonces.
    let known = this.#position?.offset ?? 0
    for (let n = 0; n < remembered && this.#nonceOf(known) !== 0; n++) known--
    const first = positions.findIndex(({ offset }) => offset > known)
    return first === -1 ? positions.length : first
  }

  /** Makes live messages wait from now on. If they do already, the repair under way may have read the log too early: it reads once more. */
  suspend (): void {
    this.rereadNeeded = this.#waiting !== undefined
    this.#waiting ??= nothing()
  }

  buffer (message: LiveMessage): void {
    const bytes = message.envelope.payload.length
    const waiting = this.#waiting ??= nothing()
    if (waiting.messages.length >= maxWaiting.messages || waiting.bytes + bytes > maxWaiting.bytes) {
      // Drop the message: the log has it, and is read again. The messages that wait stay, because the oldest of them may be in no log any
      // more.
      this.rereadNeeded = true
    } else {
      waiting.messages.push(message)
      waiting.bytes += bytes
    }
  }

  /** The log is about to be read: messages that came before this call are in it, or in no log. */
  cover (): void {
    this.rereadNeeded = false
    if (this.#waiting !== undefined) this.#waiting.covered = this.#waiting.messages.length
  }

  /** Whether the nth of `waiting` came before the log was read. */
  covers (index: number): boolean {
    return index < (this.#waiting?.covered ?? 0)
  }

  /** Removes the first `count` messages of `waiting`, which are delivered or dropped; by default those that came before the read. */
  shift (count = this.#waiting?.covered ?? 0): void {
    this.#setWaiting(this.waiting.slice(count), Math.max(0, (this.#waiting?.covered ?? 0) - count))
  }

  /** The log was read and has dropped what comes up to this offset: keeps, of the messages that came before, only those that it lacks. */
  keepDropped (upTo: number): void {
    const [from, covered] = [this.#position?.offset ?? 0, this.#waiting?.covered ?? 0]
    const lacking = this.waiting.slice(0, covered).filter(({ envelope: { position: { offset } } }) => offset > from && offset <= upTo)
    this.#setWaiting([...lacking, ...this.waiting.slice(covered)], lacking.length)
  }

  /** The follower is in step: live messages are delivered as they come. */
  release (): void {
    this.#waiting = undefined
  }

  /** The nonce at an offset that is not beyond the position and less than `remembered` before it; 0: not known. */
  #nonceOf (offset: number): number {
    if (this.#nonces !== undefined) return this.#nonces[offset % remembered] ?? 0
    return this.#position?.offset === offset ? this.#position.nonce : 0
  }

  #setWaiting (messages: LiveMessage[], covered: number): void {
    this.#waiting = { messages, bytes: messages.reduce((sum, { envelope: { payload } }) => sum + payload.length, 0), covered }
  }
}

function nothing (): Waiting {
  return { messages: [], bytes: 0, covered: 0 }
}

function noncesOf ({ offset, nonce }: LogPosition): Uint32Array {
  const nonces = new Uint32Array(remembered)
  nonces[offset % remembered] = nonce
  return nonces
}
