import type { Backplane, Envelope, LoggedEnvelope, LogPosition } from '../backplane/backplane.ts'
import { isLogStart, logStart, samePosition } from '../backplane/position.ts'
import type { Gap, Holdback } from '../hub/holdback.ts'
import type { Hub } from '../hub/hub.ts'
import type { LocalMember } from '../hub/local-member.ts'
import type { Backlog, BacklogPage } from './backlog.ts'
import type { GivenRanges } from './given-ranges.ts'

/** A member that first gets what it missed; until then live messages are held back. */
export interface Catching {
  readonly member: LocalMember
  readonly holdback: Holdback
}

/** How often a log is read again when it seems to end before messages that were delivered from it. */
const maxEmptyPages = 3

/** Gives one member what it missed, page by page, then what came live meanwhile, each message once and in order. */
export class CatchUp {
  readonly #hub: Hub
  readonly #backplane: Pick<Backplane, 'position'>
  readonly #backlog: Backlog
  readonly #catching: Catching
  readonly #given: GivenRanges
  /** The position of the client; `undefined` when nobody knows it. */
  #last: LogPosition | undefined
  /** The client has all messages of the log after this offset, up to `#last`. */
  #from = 0
  /** The epoch of the log that the last page came from. */
  #epoch: string | undefined
  /** Where the client says that it is, until it is given a message beyond that: `BacklogPage.claimed`. */
  #claimed: LogPosition | undefined
  /** Where the client was before its log lost data, if that happened. */
  #before: LogPosition | undefined
  /** Whether the client was told that messages are lost. */
  #told = false
  #emptyPages = 0
  /** The epoch of the log that this instance delivered when the last page was asked for: the page cannot come from an older one. */
  #delivered: string | undefined
  /** The latest of what was held back then. */
  #heldBefore: Envelope | Gap | undefined

  /** `since`: where the client says that it is. */
  constructor (
    hub: Hub, backplane: Pick<Backplane, 'position'>, backlog: Backlog, given: GivenRanges, catching: Catching, since?: LogPosition
  ) {
    this.#before = since
    this.#hub = hub
    this.#backplane = backplane
    this.#backlog = backlog
    this.#given = given
    this.#catching = catching
  }

  /** Whether the member left the group meanwhile (it may even have joined again), or its socket closed. */
  get over (): boolean {
    const { member, holdback } = this.#catching
    return !holdback.holding || member.holdback !== holdback || member.connection.closed
  }

  /** A page is about to be asked for. */
  asking (): void {
    const { member, holdback } = this.#catching
    this.#delivered = this.#backplane.position(member.group)?.epoch
    this.#heldBefore = holdback.waiting.at(-1)
  }

  /** Reads the next page and gives it. Resolves with whether that was the last one. @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT */
  async next (): Promise<boolean> {
    const { member } = this.#catching
    if (this.#last === undefined || this.over) return true
    // Messages of other groups filled the connection meanwhile: its client has to read first.
    if (member.connection.outbound.full) return false
    this.asking()
    const page = await this.#backlog.next(member.group, this.#last)
    if (this.over) return true
    const { reason, before } = page
    const isLost = reason !== undefined && reason !== 'unavailable'
    if (isLost && before !== undefined && !this.#isPast(page.epoch ?? before.epoch, before.offset)) {
      this.#claimed = undefined
      member.tell({ reason, position: before })
    }
    return this.give(page)
  }

  /** Delivers a page. Returns whether the member is in step now: from then on live messages reach it as they come. */
  give (page: BacklogPage): boolean {
    const { member, holdback } = this.#catching
    const reached = this.#backplane.position(member.group)
    if (page.recovered !== true || this.#last === undefined) {
      this.#before = this.#last ?? this.#before
      this.#last = page.before
      this.#from = page.before?.offset ?? 0
    }
    this.#epoch = page.epoch ?? (page.recovered === true ? this.#epoch : undefined)
    if (page.recovered === false) this.#told = true
    if (page.claimed !== undefined) this.#claimed = page.claimed
    this.#emptyPages = page.messages.length > 0 ? 0 : this.#emptyPages + 1
    for (const envelope of page.messages) {
      // An `onGap` that was told of a loss just now may have taken the member out of the group.
      if (this.over) return true
      // The log may be ahead of what this instance has delivered: the rest of it comes live.
      if (!isDelivered(envelope.position, reached)) return this.#release(reached)
      if (member.connection.outbound.full) return false
      this.#giveOne(envelope)
      this.#given.add(member, envelope, this.#from)
      holdback.gave(envelope.position)
      this.#last = envelope.position
    }
    const missing = holdback.since !== undefined && !isDelivered(holdback.since, this.#last) && this.#emptyPages < maxEmptyPages
    return page.more || missing ? false : this.#release(reached)
  }

  /** Gives the client a message from the log, unless the client says that it has the message. */
  #giveOne (envelope: LoggedEnvelope): void {
    const [claimed, { epoch, offset }] = [this.#claimed, envelope.position]
    if (this.#isPast(epoch, offset)) return
    this.#claimed = undefined
    if (claimed !== undefined && claimed.epoch !== epoch) this.#catching.member.tell({ reason: 'epoch', position: this.#last ?? logStart })
    if (this.over) return
    if (this.#hadElsewhere(envelope)) this.#catching.member.passOver(envelope)
    else this.#replay(envelope)
  }

  /** Whether the client got the message from a log that was lost: its publisher, which had no answer, stored the message anew. */
  #hadElsewhere ({ position }: LoggedEnvelope): boolean {
    const [before, there] = [this.#before, this.#backlog.lostPlace(this.#catching.member.group, position)]
    return before !== undefined && there !== undefined && there.epoch === before.epoch && there.offset <= before.offset
  }

  /** Whether the client says that it is at this offset of the log with that epoch, or further. */
  #isPast (epoch: string | undefined, offset: number): boolean {
    return this.#claimed !== undefined && this.#claimed.epoch === epoch && offset <= this.#claimed.offset
  }

  /** Whether the group had the log of that epoch only until this log came back: what the client was owed of the former is lost. */
  #wasBetween (epoch: string | undefined, log: string): boolean {
    return epoch !== undefined && epoch !== log && this.#backlog.returnOf(this.#catching.member.group, epoch, log) !== undefined
  }

  #replay (envelope: Envelope): void {
    const { member } = this.#catching
    if (envelope.shared && this.#given.has(member, envelope)) member.passOver(envelope)
    else this.#hub.replay(member, envelope)
  }

  #release (reached: LogPosition | undefined): true {
    const { member } = this.#catching
    const [claimed, behind] = [this.#claimed, this.#last]
    const last = claimed ?? behind
    const epoch = last?.epoch === '' ? this.#epoch ?? '' : last?.epoch ?? ''
    // An instance that did not know its place may have been in the log where the client was before it was told of the loss.
    const delivered = this.#delivered ?? (this.#told ? this.#before?.epoch : undefined)
    const gone = delivered === '' || delivered === epoch ? undefined : delivered
    const known = claimed === undefined ? { gone } : { behind }
    // There is no log now, but the client's earlier log may come back: what the client got from that log must not be given again.
    const left = this.#told && epoch === '' && this.#before !== undefined && !isLogStart(this.#before) ? this.#before : undefined
    const end = last === undefined ? undefined : { position: last, epoch, told: this.#told, left, ...known }
    const waiting = member.releaseHold(end)
    // This came before the page was read: the client was told since that the other log is gone.
    const outdated = this.#told && claimed === undefined && this.#heldBefore !== undefined ? waiting.lastIndexOf(this.#heldBefore) : -1
    // The log that the client goes on in. What came before its first news is of logs that are gone.
    const log = claimed === undefined ? epoch : behind?.epoch ?? ''
    const first = log === '' ? -1 : waiting.findIndex(news => epochOf(news) === log)
    const hasBetween = (first === -1 ? waiting : waiting.slice(0, first)).some(news => this.#wasBetween(epochOf(news), log))
    let begins = first === -1 && hasBetween ? waiting.length : first
    // A log that followed none began with the news that there is none.
    if (claimed !== undefined && epochOf(waiting[begins - 1]) === '') begins--
    if (hasBetween && !this.#told && last !== undefined) member.tell({ reason: 'epoch', position: last })
    for (const [index, news] of waiting.entries()) {
      if (this.#hub.find(member.connection, member.group) !== member) break
      if ((index <= outdated && isOfAnotherLog(news, epoch)) || (index < begins && isOfAnotherLog(news, log))) continue
      if ('reason' in news) member.gap(news)
      else if (!member.hold(news)) this.#replay(news)
    }
    // Nothing was read of a log; or the client and this instance, if it knows its place, are at the same position: no live message is left
    // to drop.
    if (last === undefined || (left === undefined && reached !== undefined && samePosition(last, reached))) member.dropHold()
    return true
  }
}

/** Whether this is a message of another log, or the news that such a log is gone, or lost messages. */
function isOfAnotherLog (news: Envelope | Gap, epoch: string): boolean {
  return ('reason' in news && news.reason === 'epoch') || (epochOf(news) ?? epoch) !== epoch
}

/** The epoch of the log that a message stands in, or that goes on after a gap; `undefined` for a message without a log. */
function epochOf (news: Envelope | Gap | undefined): string | undefined {
  return news !== undefined && 'reason' in news ? news.epoch : news?.position?.epoch
}

function isDelivered (position: LogPosition, reached: LogPosition | undefined): boolean {
  return reached === undefined || (position.epoch === reached.epoch && position.offset <= reached.offset)
}
