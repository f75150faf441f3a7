import { oncePerMinute } from '../../../logging.ts'
import { withDeadline } from '../../../deadline.ts'
import { isLogStart, logStart, samePosition } from '../../position.ts'
import type { GapReason, LocalInstance, LoggedEnvelope, LogPosition } from '../../backplane.ts'
import type { StoredEnvelope } from '../envelope.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import type { CopyOrder } from './copy-order.ts'
import type { LogFollower } from './follower.ts'
import { readAfterFork, type RedisLogPage } from './page.ts'

/** How often to look whether the connection that was given up brought something (milliseconds). */
const lookMs = 50

/** `inStep`: everything is delivered. `behind`: messages are missing. `held`: the next message waits for another log (see `CopyOrder`). */
export type Progress = 'inStep' | 'behind' | 'held'

/**
 * Delivers the messages of logs to this instance from where the follower stands, each once and in order: live messages, and missing ones
 * read from the log.
 */
export class CatchUp {
  readonly #link: Link
  readonly #subscribe: Pick<Link, 'previousDrained'>
  readonly #keys: Keys
  readonly #local: LocalInstance
  readonly #order: CopyOrder
  readonly #isGone: (follower: LogFollower) => boolean
  readonly #warnUnknown: (fields: object) => void
  #repairedMessages = 0
  #duplicates = 0
  #unknown = 0

  /** Logs are read by `link`, live messages come by `subscribe`. `isGone` tells whether a follower's group is no longer followed. */
  constructor (
    link: Link, subscribe: Pick<Link, 'previousDrained'>, keys: Keys, local: LocalInstance, order: CopyOrder,
    isGone: (follower: LogFollower) => boolean
  ) {
    this.#link = link
    this.#subscribe = subscribe
    this.#keys = keys
    this.#local = local
    this.#order = order
    this.#isGone = isGone
    this.#warnUnknown = oncePerMinute(local.log, 'envelope_unknown')
  }

  stats (): Record<string, number> {
    return { repairedMessages: this.#repairedMessages, duplicatesDropped: this.#duplicates, envelopesUnknown: this.#unknown }
  }

  /** Delivers a live message that follows the last one, or drops one that was delivered before. */
  accept (follower: LogFollower, envelope: LoggedEnvelope & StoredEnvelope, previousNonce: number): Progress {
    if (follower.follows(envelope.position, previousNonce)) {
      if (!this.#order.mayDeliver(follower, envelope)) return 'held'
      this.#deliver(follower, envelope)
      return 'inStep'
    }
    if (!follower.knows(envelope.position)) return 'behind'
    this.#duplicates++
    return 'inStep'
  }

  /** Reads and delivers what follows the last message, to the end of the log. Rejects as `readPage` does. */
  async read (follower: LogFollower): Promise<Progress> {
    /** Once a log came back that the follower had left: where the follower was in the log that replaced it. */
    let between: LogPosition | undefined
    let epochsBetween: readonly string[] = []
    let lateMayCome = true
    while (!this.#isGone(follower)) {
      follower.cover()
      const beganAt = performance.now()
      const page = await readAfterFork(this.#link, this.#keys, follower, follower.position ?? logStart)
      if (this.#isGone(follower)) break
      if (page === undefined) continue
      if (page.gap === 'trimmed') {
        const late = this.#deliverLate(follower, page)
        if (late === 'held') return 'held'
        const drained = late === 'behind' && lateMayCome ? this.#subscribe.previousDrained(true) : undefined
        if (drained !== undefined) lateMayCome = await this.#comesLate(follower, drained)
        // Read again, because the log may be gone by now.
        if (drained !== undefined || late === 'inStep') continue
      }
      const left = follower.left(page.end.epoch)
      if (left !== undefined) {
        // A failover led to a server without the log, and another one back: members must not get again what they have of the log.
        between ??= follower.position
        epochsBetween = follower.comeBack(left)
        continue
      }
      if (page.gap !== undefined) this.#signal(follower, page.gap, page.before, page.end.epoch, epochsBetween)
      else if (between !== undefined) this.#signalReturn(follower, between, epochsBetween)
      else this.#order.read(follower, beganAt)
      between = undefined
      epochsBetween = []
      for (const message of page.messages) {
        if (!this.#order.mayDeliver(follower, message)) return 'held'
        this.#repairedMessages++
        this.#countUnknown(follower, message.position.offset - 1)
        this.#deliver(follower, message)
      }
      // A message at the end that this version cannot decode counts as read, too.
      this.#countUnknown(follower, page.last.offset)
      if (!samePosition(page.last, follower.position ?? logStart)) follower.advance(page.last)
      this.#order.moved(follower)
      if (!page.more) break
    }
    return 'inStep'
  }

  /** Delivers the live messages that came while missing ones were read. `inStep`: from now on live messages are delivered as they come. */
  deliverBuffered (follower: LogFollower): Progress {
    if (this.#isGone(follower)) return 'inStep'
    if (follower.rereadNeeded) {
      follower.shift()
      return 'behind'
    }
    for (const [index, { envelope, previousNonce }] of follower.waiting.entries()) {
      const progress = this.accept(follower, envelope, previousNonce)
      // A message that came before the read and is not in the log belongs to a part of the log that is lost.
      if (progress === 'inStep' || (progress === 'behind' && follower.covers(index))) continue
      follower.shift(index)
      return progress
    }
    follower.release()
    return 'inStep'
  }

  /**
   * Delivers those live messages that come next and that the log has dropped. Only after a read that found this log in its place: clients
   * may have gone on in the one that replaced it.
   */
  #deliverLate (follower: LogFollower, { before, end }: RedisLogPage): Progress {
    const { position } = follower
    for (const { envelope, previousNonce } of follower.waiting) {
      if (envelope.position.epoch === end.epoch && this.accept(follower, envelope, previousNonce) === 'held') return 'held'
    }
    follower.keepDropped(before.offset)
    return follower.position === position ? 'behind' : 'inStep'
  }

  /** Waits until a live message comes, and no longer than for what the previous connection still has. Returns whether one came. */
  async #comesLate (follower: LogFollower, drained: Promise<void>): Promise<boolean> {
    const { length } = follower.waiting
    const over = drained.then(() => true)
    while (follower.waiting.length === length && !follower.rereadNeeded) {
      if (await withDeadline(over, lookMs, () => false)) return false
    }
    return true
  }

  /** Counts what lies between the follower and this offset: it was read, and cannot be decoded by this version. */
  #countUnknown ({ group, position = logStart }: LogFollower, offset: number): void {
    const messages = offset - position.offset
    if (messages <= 0) return
    this.#unknown += messages
    this.#warnUnknown({ group, messages })
  }

  #deliver (follower: LogFollower, envelope: LoggedEnvelope & StoredEnvelope): void {
    const { nonce } = envelope.position
    // Stored twice in one log: its publisher was forgotten with the hash of the log, and the log is too short to show the first one.
    const there = envelope.retried === true ? follower.placeOf(nonce) : undefined
    follower.advance(envelope.position)
    const lost = there ?? follower.lostPlace(nonce)
    // A message that was stored again may stand anywhere. A message that a failover only seemed to lose stands where it stood: for a moment
    // nodes disagree on which of them is the master.
    const repeated = lost !== undefined && (envelope.retried === true || samePosition(lost, envelope.position)) ? lost : undefined
    if (repeated !== undefined) this.#duplicates++
    this.#local.deliver(repeated === undefined ? envelope : { ...envelope, repeated })
    this.#order.moved(follower)
  }

  /** Tells that the old log is back: as a gap if anything was delivered of the log that replaced it, for that is lost. */
  #signalReturn ({ group, position = logStart }: LogFollower, between: LogPosition, epochs: readonly string[]): void {
    if (isLogStart(between)) this.#local.returned?.(group, position)
    else this.#local.gap(group, 'epoch', position, position.epoch, epochs)
  }

  #signal (follower: LogFollower, reason: GapReason, position: LogPosition, epoch: string, between: readonly string[]): void {
    if (reason !== 'trimmed') follower.lose()
    follower.seek(position)
    this.#local.gap(follower.group, reason, position, epoch, between)
    this.#order.moved(follower)
  }
}
