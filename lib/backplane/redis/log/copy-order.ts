import type { StoredEnvelope } from '../envelope.ts'
import type { LogFollower } from './follower.ts'

/** How long a log waits for another one that makes no progress (milliseconds); half as long again at most, after the last progress. */
const maxHoldMs = 10_000

/** A holder may have to wait: a log's follower, or the messages of a group that keeps no log. */
export interface Holder { readonly group: string }

interface Hold {
  /** The follower that others wait for. */
  readonly other: LogFollower
  /** The offset up to which the log of `other` has to be delivered; `Infinity`: until it is in another epoch, or was read. */
  readonly offset: number
  /** The epoch that the log of `other` was in. */
  readonly epoch: string
  timer: NodeJS.Timeout | undefined
}

/**
 * Keeps messages that went to several groups in one order. Such a message stands in the log of each of its groups; an instance that follows
 * several of them delivers a copy only after everything that comes before the other copies. Otherwise the repair of one log would bring a
 * message to members of both groups who have yet to get older ones.
 *
 * A log that is held waits for a message that is older in the order of all logs. If one of the logs was lost, such waits could form a
 * cycle: the log that would close it is not held.
 *
 * The other log may be in another epoch here than in the message. Either it was lost, which is not known here yet, or the message is older
 * than that log: only a read that begins after the message came can tell.
 */
export class CopyOrder {
  readonly #find: (group: string) => LogFollower | undefined
  readonly #wake: (holder: Holder) => void
  readonly #readAnew: (follower: LogFollower) => void
  readonly #maxHoldMs: number
  readonly #holds = new Map<Holder, Hold>()
  /** By the follower of a log, who waits for that log. */
  readonly #waiting = new Map<Holder, Set<Holder>>()
  /** Logs that made no progress in time. Others do not wait for them until they do. */
  readonly #late = new Set<Holder>()
  /** When the next message of a holder came (`performance.now()`), if it was held. */
  readonly #cameAt = new Map<Holder, number>()
  /** When the latest read of each log began that found it in the epoch in which it is followed (`performance.now()`). */
  readonly #readAt = new WeakMap<LogFollower, number>()

  /**
   * `wake` is called with a holder whose message may be delivered now; `readAnew` with a follower whose log has to be read, by a read that
   * begins now.
   */
  constructor (
    find: (group: string) => LogFollower | undefined, wake: (holder: Holder) => void, readAnew: (follower: LogFollower) => void,
    holdMs = maxHoldMs
  ) {
    this.#find = find
    this.#wake = wake
    this.#readAnew = readAnew
    this.#maxHoldMs = holdMs
  }

  /** How many groups, those without a log included, wait for the logs of others. */
  get held (): number {
    return this.#holds.size
  }

  /** Whether the next message of this holder, which came at that time, may be delivered. If not, the holder is woken later. */
  mayDeliver (holder: Holder, { places }: StoredEnvelope, cameAt = this.#cameAt.get(holder) ?? performance.now()): boolean {
    if (places === undefined) return true
    for (const { group, epoch, offset } of places) {
      const other = group === holder.group || offset === 0 ? undefined : this.#find(group)
      const position = other?.position
      // If the other log is not followed here, or its end is not known yet, no member here waits for its earlier messages.
      if (other === undefined || position === undefined || this.#late.has(other)) continue
      const comparable = position.epoch === epoch || position.epoch === ''
      const there = comparable ? position.offset >= offset - 1 : (this.#readAt.get(other) ?? -Infinity) >= cameAt
      if (there || this.#waitsFor(other, holder)) continue
      this.#hold(holder, other, comparable ? offset - 1 : Infinity, position.epoch)
      this.#cameAt.set(holder, cameAt)
      if (!comparable) this.#readAnew(other)
      return false
    }
    this.#cameAt.delete(holder)
    return true
  }

  /** The follower's position changed. */
  moved (follower: LogFollower): void {
    if (this.#late.size > 0) this.#late.delete(follower)
    if (this.#cameAt.size > 0) this.#cameAt.delete(follower)
    const { epoch = '', offset = 0 } = follower.position ?? {}
    for (const held of this.#waiting.get(follower) ?? []) {
      const hold = this.#holds.get(held)
      if (hold === undefined || epoch !== hold.epoch || offset >= hold.offset) this.#release(held)
    }
  }

  /** A read that began at this time (`performance.now()`) found the follower's log in the epoch in which it is followed. */
  read (follower: LogFollower, beganAt: number): void {
    this.#readAt.set(follower, beganAt)
    for (const held of this.#waiting.get(follower) ?? []) if (this.#holds.get(held)?.offset === Infinity) this.#release(held)
  }

  /** The group is no longer followed. */
  gone (holder: Holder): void {
    this.#late.delete(holder)
    this.#cameAt.delete(holder)
    this.#drop(holder)
    for (const held of this.#waiting.get(holder) ?? []) this.#release(held)
  }

  close (): void {
    for (const { timer } of this.#holds.values()) clearTimeout(timer)
    this.#holds.clear()
    this.#waiting.clear()
    this.#late.clear()
    this.#cameAt.clear()
  }

  /** Whether the follower is held, directly or not, until the other one makes progress. */
  #waitsFor (follower: LogFollower, other: Holder): boolean {
    for (let next = this.#holds.get(follower)?.other; next !== undefined; next = this.#holds.get(next)?.other) {
      if (next === other) return true
    }
    return false
  }

  #hold (holder: Holder, other: LogFollower, offset: number, epoch: string): void {
    const known = this.#holds.get(holder)
    if (known?.other === other && known.offset === offset && known.epoch === epoch) return
    this.#drop(holder)
    const hold: Hold = { other, offset, epoch, timer: undefined }
    this.#watch(holder, hold)
    this.#holds.set(holder, hold)
    const waiting = this.#waiting.get(other)
    if (waiting === undefined) this.#waiting.set(other, new Set([holder]))
    else waiting.add(holder)
  }

  /** Gives the other log up when it made no progress at two looks in a row: one may follow a stall of this process. */
  #watch (holder: Holder, hold: Hold, seenBefore = false): void {
    const { other } = hold
    const { position } = other
    hold.timer = setTimeout(() => {
      if (other.position !== position) return this.#watch(holder, hold)
      if (!seenBefore) return this.#watch(holder, hold, true)
      this.#late.add(other)
      this.#release(holder)
    }, this.#maxHoldMs / 2).unref()
  }

  #release (holder: Holder): void {
    this.#drop(holder)
    this.#wake(holder)
  }

  #drop (holder: Holder): void {
    const hold = this.#holds.get(holder)
    if (hold === undefined) return
    clearTimeout(hold.timer)
    this.#holds.delete(holder)
    const waiting = this.#waiting.get(hold.other)
    waiting?.delete(holder)
    if (waiting?.size === 0) this.#waiting.delete(hold.other)
  }
}
