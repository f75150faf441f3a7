import { isOutage } from '../../../errors.ts'
import { logStart, samePosition } from '../../position.ts'
import { oncePerMinute } from '../../../logging.ts'
import type { LocalInstance, LoggedEnvelope, LogPosition } from '../../backplane.ts'
import { chunks, WorkQueue } from '../batching.ts'
import type { StoredEnvelope } from '../envelope.ts'
import type { Keys } from '../keys.ts'
import type { Link, Links } from '../link/port.ts'
import { isWrongType } from '../link/reply-errors.ts'
import { CatchUp, type Progress } from './catch-up.ts'
import { CopyOrder, type Holder } from './copy-order.ts'
import { LogEnds } from './ends.ts'
import { LogFollower } from './follower.ts'
import { SettingsDifferences } from './settings.ts'
import { VolatileMessages } from './volatile-messages.ts'

const retryMs = 200
const concurrentRepairs = 64
/** How often a repair reads its log in one go; one that needs more lets the others go first. */
const roundsPerRepair = 5
/** How many log ends are asked for together. */
const probesAtOnce = 200

/**
 * Keeps this instance in step with the logs of its groups: it delivers a message that follows the last one, by offset and nonce, and reads
 * what is missing before any other. Clients notice nothing, except when the log itself lost messages: then they are told once.
 */
export class LogFollowers {
  /** The messages that stand in no log. */
  readonly volatile: VolatileMessages
  readonly #link: Link
  readonly #local: LocalInstance
  readonly #warnUnreadable: (fields: object) => void
  readonly #changed: () => void
  readonly #ends: LogEnds
  readonly #order: CopyOrder
  readonly #catchUp: CatchUp
  /** The followers of subscribed groups with a log, from the acknowledgement of the subscription on. */
  readonly #followers = new Map<string, LogFollower>()
  readonly #repairs = new Set<LogFollower>()
  readonly #work = new WorkQueue<LogFollower>(concurrentRepairs, async follower => await this.#repair(follower))
  #retryTimer: NodeJS.Timeout | undefined
  #sweeping = false
  #resuming = false
  #resumeDue = false
  #closed = false
  #repaired = 0

  constructor (
    { command: link, subscribe }: Links, keys: Keys, local: LocalInstance, changed: () => void, differences = new SettingsDifferences()
  ) {
    this.#link = link
    this.#local = local
    this.#warnUnreadable = oncePerMinute(local.log, 'log_unreadable')
    this.#changed = changed
    this.#ends = new LogEnds(link, keys, differences)
    this.#order = new CopyOrder(group => this.#followers.get(group), one => { this.#wakeLater(one) }, one => { this.#readAnew(one) })
    this.volatile = new VolatileMessages(this.#order, local)
    this.#catchUp = new CatchUp(link, subscribe, keys, local, this.#order, follower => this.#gone(follower))
  }

  /** Set while messages are still to be read and delivered, or the end of a log is unknown. */
  get problem (): string | undefined {
    return this.#repairs.size === 0 ? undefined : `the logs of ${this.#repairs.size} groups are being caught up with`
  }

  stats (): Record<string, number> {
    return { repairs: this.#repaired, repairsPending: this.#repairs.size, logsHeld: this.#order.held, ...this.#catchUp.stats() }
  }

  /** Resolves when it is known where the log ends: at `end`, or where Redis says. @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT */
  async open (group: string, end?: LogPosition): Promise<void> {
    const follower = this.#followers.get(group) ?? this.#add(group)
    if (follower.position === undefined) await (end === undefined ? this.#open(follower) : follower.seek(end))
  }

  position (group: string): LogPosition | undefined { return this.#followers.get(group)?.position }

  /** The group is no longer subscribed: stop following its log. */
  forget (group: string): void {
    this.volatile.forget(group)
    const follower = this.#followers.get(group)
    if (follower === undefined) return
    this.#followers.delete(group)
    this.#work.delete(follower)
    this.#settled(follower)
    this.#order.gone(follower)
  }

  receive (envelope: LoggedEnvelope & StoredEnvelope, previousNonce: number): void {
    const follower = this.#followers.get(envelope.target.name)
    if (follower === undefined) {
      // Not subscribed yet, or no longer: nobody here is owed this message, and a follower made now would start from it when the group is
      // subscribed again. Messages of a group that has no log by our settings are delivered as they come.
      if (!this.#closed && !this.#local.logged(envelope.target.name)) this.#local.deliver(envelope)
    } else if (follower.buffering) {
      follower.buffer({ envelope, previousNonce })
    } else {
      const progress = this.#catchUp.accept(follower, envelope, previousNonce)
      if (progress === 'inStep') return
      follower.suspend()
      this.#unsettled(follower)
      follower.buffer({ envelope, previousNonce })
      if (progress === 'behind') this.#work.add(follower)
    }
  }

  /**
   * These groups are subscribed, for the first time or after a break: reads what they missed, if a probe says that they did. Never rejects.
   */
  async subscribed (groups: readonly string[]): Promise<void> {
    const followers: LogFollower[] = []
    for (const group of groups) {
      const follower = this.#followers.get(group) ?? (this.#local.logged(group) ? this.#add(group) : undefined)
      if (follower === undefined) continue
      if (follower.position === undefined && follower.opening === undefined) {
        this.#open(follower).catch((error: unknown) => {
          if (this.#gone(follower)) return
          this.#unsettled(follower)
          this.#retryLater(error)
        })
      } else {
        // Also if the follower is in repair: its log may have been read before the break was over.
        follower.suspend()
        this.#unsettled(follower)
        followers.push(follower)
      }
    }
    for (const some of chunks(followers, probesAtOnce)) await this.#probe(some)
  }

  /** The command link is back: repairs those logs that a probe finds ahead of what was delivered. */
  resume (): void {
    this.#resumeDue = true
    if (!this.#resuming) void this.#resume()
  }

  /** Compares the ends of quiet logs with what was delivered, against losses that no link noticed, and keeps their metas alive. */
  async sweep (): Promise<void> {
    if (!this.#link.up || this.#sweeping) return
    this.#sweeping = true
    try {
      for (const follower of this.#followers.values()) follower.tidy()
      const quiet = [...this.#followers.values()].filter(({ position, buffering }) => position !== undefined && !buffering)
      for (const some of chunks(quiet, probesAtOnce)) {
        const before = some.map(({ position }) => position)
        const ends = await this.#ends.keepAll(some)
        for (const [index, follower] of some.entries()) {
          if (this.#gone(follower) || follower.position !== before[index] || follower.buffering || this.#work.runs(follower)) continue
          // A message may be on its way on the other link: then the repair finds it first, and it is dropped when it comes.
          if (!samePosition(ends[index] ?? logStart, follower.position ?? logStart)) this.#readAnew(follower)
        }
      }
    } finally {
      this.#sweeping = false
    }
  }

  close (): void {
    this.#closed = true
    clearTimeout(this.#retryTimer)
    this.#followers.clear()
    this.#repairs.clear()
    this.#work.clear()
    this.#order.close()
  }

  #add (group: string): LogFollower {
    const follower = new LogFollower(group)
    if (!this.#closed) this.#followers.set(group, follower)
    return follower
  }

  /** In a later turn of the event loop, so that a repair that ends in this one is over before it runs again. */
  #wakeLater (holder: Holder): void {
    setImmediate(() => {
      const follower = this.#followers.get(holder.group)
      if (follower !== holder) this.volatile.wake(holder)
      else if (follower.buffering) this.#work.add(follower)
    })
  }

  /** Whether this group, or every group, was unsubscribed meanwhile. */
  #gone (follower: LogFollower): boolean { return this.#followers.get(follower.group) !== follower }

  #open (follower: LogFollower): Promise<void> { return (follower.opening ??= this.#readEnd(follower)) }

  async #readEnd (follower: LogFollower): Promise<void> {
    try {
      const end = await this.#ends.read(follower.group)
      // A message that came meanwhile set a better position. Nobody is owed one on its way: it was published before the join.
      if (follower.position === undefined) follower.seek(end)
    } finally {
      follower.opening = undefined
    }
  }

  /** A read that is under way may have begun too early. */
  #readAnew (follower: LogFollower): void {
    follower.suspend()
    follower.rereadNeeded = true
    this.#unsettled(follower)
    this.#wakeLater(follower)
  }

  /**
   * Never rejects. After an outage all groups are in repair, although few of them missed anything. Probes come first, because reading
   * thousands of logs that are in step would hold up those that are not.
   */
  async #resume (): Promise<void> {
    this.#resuming = true
    while (this.#resumeDue) {
      this.#resumeDue = false
      for (const some of chunks([...this.#repairs], probesAtOnce)) {
        if (this.#closed || !this.#link.up) break
        for (const follower of some) if (follower.position === undefined) this.#work.add(follower)
        await this.#probe(some)
      }
    }
    this.#resuming = false
  }

  async #probe (followers: readonly LogFollower[]): Promise<void> {
    try {
      const ends = await this.#ends.readAll(followers.map(({ group }) => group))
      for (const [index, follower] of followers.entries()) {
        // The follower is in step by now; or the end of its log, which could not be read, became known by a join or a message.
        if (!follower.buffering && follower.position !== undefined) this.#settled(follower)
        // A repair that is under way began after the suspension, or was told to read again.
        if (!follower.buffering || this.#work.runs(follower) || this.#gone(follower)) continue
        const inStep = follower.position !== undefined && samePosition(ends[index] ?? logStart, follower.position)
        if (!inStep || this.#deliverBuffered(follower) === 'behind') this.#work.add(follower)
      }
    } catch (error) {
      this.#retryLater(error)
    }
  }

  /** Resolves with `false` to get another turn; else the repair is done or put off. Never rejects. */
  async #repair (follower: LogFollower): Promise<boolean> {
    const read = async (): Promise<Progress> => await this.#catchUp.read(follower)
    try {
      for (let round = 0; round < roundsPerRepair; round++) {
        if (follower.position === undefined) await this.#open(follower)
        if (follower.buffering && await (this.#local.repairing?.(follower.group, read) ?? read()) === 'held') return true
        const progress = this.#deliverBuffered(follower)
        if (progress === 'behind') continue
        if (progress === 'inStep') this.#repaired++
        return true
      }
      return false
    } catch (error) {
      this.#retryLater(error)
      return true
    }
  }

  #deliverBuffered (follower: LogFollower): Progress {
    const progress = this.#catchUp.deliverBuffered(follower)
    if (progress === 'inStep') this.#settled(follower)
    return progress
  }

  #unsettled (follower: LogFollower): void { if (this.#repairs.add(follower).size === 1) this.#changed() }

  #settled (follower: LogFollower): void {
    if (this.#repairs.delete(follower) && this.#repairs.size === 0) this.#changed()
  }

  #retryLater (error: unknown): void {
    if (!isOutage(error) || isWrongType(error)) this.#warnUnreadable({ err: error })
    if (this.#closed) return
    this.#retryTimer ??= setTimeout(() => {
      this.#retryTimer = undefined
      if (this.#link.up) this.resume()
    }, retryMs).unref()
  }
}
