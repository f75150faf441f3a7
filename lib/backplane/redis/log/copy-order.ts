import type { StoredEnvelope } from '../envelope.ts'
import type { LogFollower } from './follower.ts'

/** How long a log is held for another one that does not come on (milliseconds). */
const maxHoldMs = 10_000

interface Hold {
  /** The follower that is waited for. */
  readonly other: LogFollower
  /** Where the log of `other` has to be delivered up to. */
  readonly offset: number
  /** The life of its log that `other` was in. */
  readonly epoch: string
  readonly timer: NodeJS.Timeout
}

/**
 * Keeps the one order of messages that went to several groups. Such a message stands in the log of each of its groups; an instance that
 * follows several of them delivers no copy before it delivered all that comes before the other copies. Without that a repair of one log
 * would bring a message that members of both groups are still to be given older ones before.
 *
 * Who is held waits for a message that is older in the order of all logs. Where one of the logs was lost that may be a circle: then the
 * last one goes on.
 */
export class CopyOrder {
  readonly #find: (group: string) => LogFollower | undefined
  readonly #wake: (follower: LogFollower) => void
  readonly #maxHoldMs: number
  readonly #holds = new Map<LogFollower, Hold>()
  /** Who waits for a log. */
  readonly #waiting = new Map<LogFollower, Set<LogFollower>>()
  /** Logs that did not come on in time: nobody waits for them until they do. */
  readonly #late = new Set<LogFollower>()

  /** `wake` is called with a follower whose message may be delivered now. */
  constructor (find: (group: string) => LogFollower | undefined, wake: (follower: LogFollower) => void, holdMs = maxHoldMs) {
    this.#find = find
    this.#wake = wake
    this.#maxHoldMs = holdMs
  }

  /** How many logs are held. */
  get held (): number {
    return this.#holds.size
  }

  /** Whether the message may be delivered, the next one of this follower. If not, the follower is woken when it may. */
  mayDeliver (follower: LogFollower, { places }: StoredEnvelope): boolean {
    if (places === undefined) return true
    for (const { group, epoch, offset } of places) {
      const other = group === follower.group || offset === 0 ? undefined : this.#find(group)
      const position = other?.position
      // Of a log that is not followed here, or of which nothing is known yet, nobody here is owed what comes before.
      if (other === undefined || position === undefined || this.#late.has(other)) continue
      // A position in another life of the log says nothing about this one; a repair that runs will find out which of the two is over.
      const there = position.epoch === epoch || position.epoch === '' ? position.offset >= offset - 1 : !other.buffering
      if (there || this.#waitsFor(other, follower)) continue
      this.#hold(follower, other, offset - 1, position.epoch)
      return false
    }
    return true
  }

  /** The follower's position changed. */
  moved (follower: LogFollower): void {
    if (this.#late.size > 0) this.#late.delete(follower)
    const { epoch = '', offset = 0 } = follower.position ?? {}
    for (const held of this.#waiting.get(follower) ?? []) {
      const hold = this.#holds.get(held)
      if (hold === undefined || epoch !== hold.epoch || offset >= hold.offset) this.#release(held)
    }
  }

  /** The follower is in step: nothing more is to be found out about its log. */
  settled (follower: LogFollower): void {
    for (const held of this.#waiting.get(follower) ?? []) this.#release(held)
  }

  /** The follower's group is no longer followed. */
  gone (follower: LogFollower): void {
    this.#late.delete(follower)
    this.#drop(follower)
    for (const held of this.#waiting.get(follower) ?? []) this.#release(held)
  }

  close (): void {
    for (const { timer } of this.#holds.values()) clearTimeout(timer)
    this.#holds.clear()
    this.#waiting.clear()
    this.#late.clear()
  }

  /** Whether the follower is held, by whatever chain, until the other one comes on. */
  #waitsFor (follower: LogFollower, other: LogFollower): boolean {
    for (let next = this.#holds.get(follower)?.other; next !== undefined; next = this.#holds.get(next)?.other) {
      if (next === other) return true
    }
    return false
  }

  #hold (follower: LogFollower, other: LogFollower, offset: number, epoch: string): void {
    const known = this.#holds.get(follower)
    if (known?.other === other && known.offset === offset && known.epoch === epoch) return
    this.#drop(follower)
    const timer = setTimeout(() => {
      this.#late.add(other)
      this.#release(follower)
    }, this.#maxHoldMs).unref()
    this.#holds.set(follower, { other, offset, epoch, timer })
    const waiting = this.#waiting.get(other)
    if (waiting === undefined) this.#waiting.set(other, new Set([follower]))
    else waiting.add(follower)
  }

  #release (follower: LogFollower): void {
    this.#drop(follower)
    this.#wake(follower)
  }

  #drop (follower: LogFollower): void {
    const hold = this.#holds.get(follower)
    if (hold === undefined) return
    clearTimeout(hold.timer)
    this.#holds.delete(follower)
    const waiting = this.#waiting.get(hold.other)
    waiting?.delete(follower)
    if (waiting?.size === 0) this.#waiting.delete(hold.other)
  }
}
