import type { Envelope } from '../backplane/backplane.ts'
import { formatPosition } from '../backplane/position.ts'
import type { LocalConnection } from '../connection/connection.ts'
import { OutboundMessage } from '../connection/outbound/message.ts'
import { announce } from '../metrics/channels.ts'
import type { Member } from '../types.ts'
import { labelOf } from '../backplane/user-log.ts'
import { exclusionOf } from './exclusion.ts'
import { Holdback, type Gap, type ReplayEnd } from './holdback.ts'

/** Outbound messages by envelope, for replays: after the crash of an instance thousands of clients are given the same ones. */
const replayed = new WeakMap<Envelope, OutboundMessage>()

/**
 * One connection of this instance in one group, or in the log of its user: what the connection is given, what is held back and what it is
 * told there. Raw clients get the bytes that were sent; clients of the framed protocol are also told of gaps and positions.
 */
export class LocalMember {
  readonly connection: LocalConnection
  readonly group: string
  #member: Member
  #holdback: Holdback | undefined
  #ended = false
  /** The join was told on the diagnostics channel, and so will be the leave. */
  #told = false

  constructor (connection: LocalConnection, group: string, member: Member) {
    this.connection = connection
    this.group = group
    this.#member = member
  }

  /** The name under which the client knows the group. */
  get label (): string {
    return labelOf(this.group)
  }

  /** The membership as everyone in the cluster sees it. */
  get member (): Member {
    return this.#member
  }

  /** Replaces what members see of the connection. */
  show (info: Member['info'], infoAt: number): void {
    this.#member = { ...this.#member, info, infoAt }
  }

  /** Set while a replay runs, and after it until this instance has caught up with a client that was ahead. */
  get holdback (): Holdback | undefined {
    return this.#holdback
  }

  /** A replay runs: live messages of the group wait for its end. */
  get holding (): boolean {
    return this.#holdback?.holding === true
  }

  /** Gives one message to this member alone. Returns whether the connection took it. */
  deliver (envelope: Envelope): boolean {
    if (exclusionOf(envelope)?.(this.connection) === true) {
      this.passOver(envelope)
      return false
    }
    let outgoing = replayed.get(envelope)
    if (outgoing === undefined) replayed.set(envelope, outgoing = OutboundMessage.ofEnvelope(envelope))
    return this.connection.outbound.enqueueOne(outgoing)
  }

  /** Skips a message that is not for this member. Its client is told the position, or it would be given the message when it resumes. */
  passOver ({ position }: Pick<Envelope, 'position'>): void {
    if (position === undefined || !this.connection.framed) return
    this.connection.announce({ type: 'position', group: this.label, position: formatPosition(position) })
  }

  /** Holds a live message back while a replay runs, and drops one that the client already has. Returns whether it did either. */
  hold (envelope: Envelope): boolean {
    const holdback = this.#holdback
    if (holdback === undefined) return false
    if (holdback.holding) {
      keep(this.connection, holdback, envelope)
      return true
    }
    if (envelope.position === undefined) return false
    if (holdback.isGone(envelope.position) || holdback.isBehind(envelope.position)) return true
    if (holdback.hadBefore(envelope.position)) {
      this.passOver(envelope)
      return true
    }
    if (holdback.has(envelope.position)) {
      // Its client was told to go on from before this message.
      if (holdback.forked) this.passOver(envelope)
      return true
    }
    // This instance has caught up with the client, or the client was in a log that is no more.
    this.#holdback = undefined
    const position = holdback.otherLog(envelope.position)
    if (position === undefined) return false
    this.tell({ reason: 'epoch', position })
    // `onGap` may have left the group: what follows is not for this member, but for the one of a new join.
    return this.#ended
  }

  /** Tells the client, and the route, that messages are lost, unless its join told so already or the client is past them. */
  gap (gap: Gap): void {
    const holdback = this.#holdback
    if (holdback?.holding === true) return keep(this.connection, holdback, gap)
    if (holdback?.covers(gap) === true) return holdback.leave(gap)
    if (holdback?.isIn(gap.epoch) === true && gap.reason === 'rewound') holdback.fork()
    else this.#holdback = undefined
    this.tell(gap)
  }

  /** Tells the client, and the route, that messages before the position are lost; also while others are held back. */
  tell (gap: Pick<Gap, 'reason' | 'position'>): void {
    this.connection.gapped(this.label, gap.reason)
    if (this.connection.framed) {
      this.connection.announce({ type: 'gap', group: this.label, reason: gap.reason, position: formatPosition(gap.position) })
    }
  }

  /** Holds live messages back from now on. */
  startHold (): Holdback {
    return (this.#holdback = new Holdback())
  }

  /** Ends the hold: what the client has up to `end` is dropped when it comes again. Returns what waited. */
  releaseHold (end: ReplayEnd | undefined): ReadonlyArray<Envelope | Gap> {
    return this.#holdback?.release(end) ?? []
  }

  /** The connection is in the group, and its join did not fail. */
  joined (): void {
    this.#told = true
    announce('group.join', () => ({ connection: this.connection, group: this.group }))
  }

  /** The connection left the group. A join that follows makes another member. */
  end (): void {
    this.#ended = true
    this.dropHold()
    if (this.#told) announce('group.leave', () => ({ connection: this.connection, group: this.group }))
  }

  /** Forgets the hold and what waits in it. */
  dropHold (): void {
    this.#holdback = undefined
  }
}

function keep ({ outbound }: LocalConnection, holdback: Holdback, news: Envelope | Gap): void {
  if (!holdback.push(news)) outbound.missed()
}
