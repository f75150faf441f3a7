import { hasCode } from '../../../errors.ts'
import { logStart, samePosition } from '../../position.ts'
import type { GapReason, LocalInstance, LoggedEnvelope, LogPosition } from '../../backplane.ts'
import { chunks, WorkQueue } from '../batching.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/link.ts'
import { LogEnds } from './ends.ts'
import { LogFollower } from './follower.ts'
import { readAfterFork } from './page.ts'

const retryMs = 200
const concurrentRepairs = 64
/** A repair that is not done by then lets the others go first. */
const roundsPerRepair = 5
const probesAtOnce = 200

/**
 * Keeps this instance in step with the logs of its groups: it delivers a message that follows the last one, by offset and nonce, and reads what is missing
 * before any other. Clients notice nothing, except when the log itself lost messages: then they are told once.
 */
export class LogFollowers {
  readonly #link: Link
  readonly #keys: Keys
  readonly #local: LocalInstance
  readonly #changed: () => void
  readonly #ends: LogEnds
  /** Of the groups with a log that are subscribed, from the acknowledgement on. */
  readonly #followers = new Map<string, LogFollower>()
  readonly #repairs = new Set<LogFollower>()
  readonly #work = new WorkQueue<LogFollower>(concurrentRepairs, async reader => await this.#repair(reader))
  #retryTimer: NodeJS.Timeout | undefined
  #sweeping = false
  #closed = false
  #repaired = 0
  #repairedMessages = 0
  #duplicates = 0

  constructor (link: Link, keys: Keys, local: LocalInstance, changed: () => void) {
    this.#link = link
    this.#keys = keys
    this.#local = local
    this.#changed = changed
    this.#ends = new LogEnds(link, keys)
  }

  /** Messages are missing that will be delivered, or of some logs nothing is known yet. */
  get problem (): string | undefined {
    return this.#repairs.size === 0 ? undefined : `the logs of ${this.#repairs.size} groups are being caught up with`
  }

  stats (): Record<string, number> {
    return { repairs: this.#repaired, repairedMessages: this.#repairedMessages, duplicatesDropped: this.#duplicates, repairsPending: this.#repairs.size }
  }

  /** The group is subscribed: resolves when this instance knows where its log ends. @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT */
  async open (group: string): Promise<void> {
    const reader = this.#followers.get(group) ?? this.#add(group)
    if (reader.position === undefined) await this.#open(reader)
  }

  position (group: string): LogPosition | undefined {
    return this.#followers.get(group)?.position
  }

  /** The group is not subscribed yet, and members here have its log up to this position already: it is followed from there, not from its end at that time. */
  follow (group: string, position: LogPosition): void {
    const reader = this.#followers.get(group) ?? this.#add(group)
    if (reader.position !== undefined || this.#closed) return
    reader.seek(position)
    this.#startRepair(reader)
  }

  /** No longer subscribed: what comes later is not ours to follow. */
  forget (group: string): void {
    const reader = this.#followers.get(group)
    if (reader === undefined) return
    this.#followers.delete(group)
    this.#work.delete(reader)
    this.#settled(reader)
  }

  receive (envelope: LoggedEnvelope, previousNonce: number): void {
    const reader = this.#followers.get(envelope.target.name)
    if (reader === undefined) {
      // Not subscribed yet, or not any more: nobody here is owed what comes now, and following it would go on from here when the group is subscribed again.
      // Only a group that has no log by our settings is served without keeping up with it.
      if (!this.#closed && !this.#local.logged(envelope.target.name)) this.#local.deliver(envelope)
    } else if (reader.buffering) {
      reader.buffer({ envelope, previousNonce })
    } else if (!this.#accept(reader, envelope, previousNonce)) {
      this.#startRepair(reader)
      reader.buffer({ envelope, previousNonce })
    }
  }

  /** These groups are subscribed, for the first time or after a break: reads what they missed, if a probe says that they did. Never rejects. */
  async subscribed (groups: readonly string[]): Promise<void> {
    const readers: LogFollower[] = []
    for (const group of groups) {
      const reader = this.#followers.get(group) ?? (this.#local.logged(group) ? this.#add(group) : undefined)
      if (reader === undefined) continue
      if (reader.position === undefined && reader.opening === undefined) {
        this.#open(reader).catch((error: unknown) => {
          if (this.#gone(reader)) return
          this.#unsettled(reader)
          this.#retryLater(error)
        })
      } else {
        // It may be in repair, too: the log may have been read before the break was over.
        reader.suspend()
        this.#unsettled(reader)
        readers.push(reader)
      }
    }
    for (const some of chunks(readers, probesAtOnce)) await this.#probe(some)
  }

  /** The command link is back: repairs go on. */
  resume (): void {
    for (const reader of this.#repairs) this.#work.add(reader)
  }

  /** Compares the ends of quiet logs with what was delivered, against losses that no link noticed. */
  async sweep (): Promise<void> {
    if (!this.#link.up || this.#sweeping) return
    this.#sweeping = true
    try {
      const quiet = [...this.#followers.values()].filter(({ position: last, buffering: suspended }) => last !== undefined && !suspended)
      for (const some of chunks(quiet, probesAtOnce)) {
        const before = some.map(({ position: last }) => last)
        const tops = await this.#ends.readAll(some.map(({ group }) => group))
        for (const [index, reader] of some.entries()) {
          if (this.#gone(reader) || reader.position !== before[index] || reader.buffering) continue
          // The message may be on its way on the other link: then the repair finds it first, and drops it when it comes.
          if (!samePosition(tops[index] ?? logStart, reader.position ?? logStart)) this.#startRepair(reader)
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
  }

  #add (group: string): LogFollower {
    const reader = new LogFollower(group)
    if (!this.#closed) this.#followers.set(group, reader)
    return reader
  }

  /** Its group was given up since, or all were. */
  #gone (reader: LogFollower): boolean {
    return this.#followers.get(reader.group) !== reader
  }

  async #open (reader: LogFollower): Promise<void> {
    reader.opening ??= this.#ends.read(reader.group).then(top => {
      // A message that came first is nearer to the truth. One that is on its way was published before the join was done, and is not owed to it.
      if (reader.position === undefined) reader.seek(top)
    }).finally(() => { reader.opening = undefined })
    await reader.opening
  }

  /** Delivers a message that follows the last one, drops one that was delivered before. Returns `false` for anything else. */
  #accept (reader: LogFollower, envelope: LoggedEnvelope, previousNonce: number): boolean {
    if (reader.follows(envelope.position, previousNonce)) {
      reader.advance(envelope.position)
      this.#local.deliver(envelope)
      return true
    }
    if (!reader.knows(envelope.position)) return false
    this.#duplicates++
    return true
  }

  #startRepair (reader: LogFollower): void {
    reader.suspend()
    this.#unsettled(reader)
    this.#work.add(reader)
  }

  async #probe (readers: readonly LogFollower[]): Promise<void> {
    try {
      const tops = await this.#ends.readAll(readers.map(({ group }) => group))
      for (const [index, reader] of readers.entries()) {
        // A repair that is under way began after the suspension, or was told to read again.
        if (!reader.buffering || this.#work.runs(reader) || this.#gone(reader)) continue
        const inStep = reader.position !== undefined && samePosition(tops[index] ?? logStart, reader.position)
        if (!inStep || !this.#deliverBuffered(reader)) this.#work.add(reader)
      }
    } catch (error) {
      this.#retryLater(error)
    }
  }

  /** Resolves `false` when it wants another turn; else it is done or put off. Never rejects. */
  async #repair (reader: LogFollower): Promise<boolean> {
    try {
      for (let round = 0; round < roundsPerRepair; round++) {
        if (reader.position === undefined) await this.#open(reader)
        if (reader.buffering) await this.#catchUp(reader)
        if (!this.#deliverBuffered(reader)) continue
        this.#repaired++
        return true
      }
      return false
    } catch (error) {
      this.#retryLater(error)
      return true
    }
  }

  /** Reads and delivers what follows the last message, to the end of the log. */
  async #catchUp (reader: LogFollower): Promise<void> {
    while (!this.#gone(reader)) {
      reader.cover()
      const page = await readAfterFork(this.#link, this.#keys, reader, reader.position ?? logStart)
      if (this.#gone(reader)) return
      if (page === undefined) continue
      if (page.gap !== undefined) this.#signal(reader, page.gap, page.before, page.end.epoch)
      for (const message of page.messages) {
        reader.advance(message.position)
        this.#repairedMessages++
        this.#local.deliver(message)
      }
      // What cannot be decoded has its place, too.
      if (!samePosition(page.last, reader.position ?? logStart)) reader.advance(page.last)
      if (!page.more) return
    }
  }

  #signal (reader: LogFollower, reason: GapReason, position: LogPosition, epoch: string): void {
    reader.seek(position)
    this.#local.gap(reader.group, reason, position, epoch)
  }

  /** Delivers what came during the repair. Returns `false` when something between is missing again. */
  #deliverBuffered (reader: LogFollower): boolean {
    if (this.#gone(reader)) return true
    if (reader.rereadNeeded) return false
    for (const [index, { envelope, previousNonce }] of reader.waiting.entries()) {
      // What came before the log was read, and is not in it, belongs to a part of the log that is lost.
      if (this.#accept(reader, envelope, previousNonce) || reader.covers(index)) continue
      reader.shift(index)
      return false
    }
    reader.release()
    this.#settled(reader)
    return true
  }

  #unsettled (reader: LogFollower): void {
    this.#repairs.add(reader)
    if (this.#repairs.size === 1) this.#changed()
  }

  #settled (reader: LogFollower): void {
    if (this.#repairs.delete(reader) && this.#repairs.size === 0) this.#changed()
  }

  #retryLater (error: unknown): void {
    if (!hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT')) this.#local.log.error({ err: error }, 'a log could not be read')
    if (this.#closed) return
    this.#retryTimer ??= setTimeout(() => {
      this.#retryTimer = undefined
      if (this.#link.up) this.resume()
    }, retryMs).unref()
  }
}
