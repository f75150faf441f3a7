import type { Envelope, LogPosition } from '../backplane/backplane.ts'
import { CloseCode } from '../protocol/close-codes.ts'
import type { FramedSession } from '../connection/framed-session.ts'
import type { Gap, Holdback } from './holdback.ts'
import type { SocketWriter } from '../connection/outbound/writer.ts'
import { OutboundMessage } from '../connection/outbound/message.ts'
import { formatPosition } from '../backplane/position.ts'
import type { JoinResult } from '../types.ts'

/** Of envelopes that are replayed: after the crash of an instance thousands of clients are given the same ones. */
const replayed = new WeakMap<Envelope, OutboundMessage>()

/** How a connection is given messages of groups, and news of them: raw clients get the bytes that were sent, framed ones all the rest too. */
export abstract class ConnectionInGroups {
  abstract readonly id: string
  abstract readonly closed: boolean
  /** By group, what is not given to the connection as it comes. */
  held: Map<string, Holdback> | undefined
  abstract readonly outbound: SocketWriter
  /** Set when the client speaks the framed protocol. */
  protected abstract readonly session: FramedSession | undefined

  /** What others know the client's session by. */
  abstract readonly sessionName: string | undefined

  /** Its client speaks the framed protocol. */
  get framed (): boolean {
    return this.session !== undefined
  }

  /** Its client waits for an answer. */
  get pending (): boolean {
    return this.session?.pending === true
  }

  abstract closeForFault (code: number, reason?: string): void

  /** One message to this connection alone. Returns whether it was taken. */
  deliver (envelope: Envelope): boolean {
    const { except } = envelope
    if (except.includes(this.id) || (this.sessionName !== undefined && except.includes(this.sessionName))) {
      this.passOver(envelope)
      return false
    }
    let outgoing = replayed.get(envelope)
    if (outgoing === undefined) replayed.set(envelope, outgoing = OutboundMessage.ofEnvelope(envelope))
    return this.outbound.enqueueOne(outgoing)
  }

  /** A message of a group's log that is not for this connection: its client learns how far the log is, or it would be given the message when it resumes. */
  passOver ({ target, position }: Envelope): void {
    if (target.kind === 'group' && position !== undefined) this.announcePosition(target.name, position)
  }

  /** Live messages of the group wait until older ones are sent. */
  holds (group: string): boolean {
    return this.held?.get(group)?.holding === true
  }

  /** Keeps a live message back while older ones of its group are still to be sent, and one that the client has already. Returns whether it did. */
  hold (envelope: Envelope): boolean {
    const { target: { kind, name }, position } = envelope
    const holdback = kind === 'group' ? this.held?.get(name) : undefined
    if (holdback === undefined) return false
    if (holdback.holding) {
      this.#keep(holdback, envelope)
      return true
    }
    if (position === undefined) return false
    if (holdback.has(position)) return true
    // This instance has come to where the client is.
    this.held?.delete(name)
    return false
  }

  announceJoined (group: string, { recovered, reason, position }: JoinResult): void {
    this.session?.send({ type: 'joined', group, recovered, reason, position })
  }

  announceLeft (group: string): void {
    this.session?.send({ type: 'left', group })
  }

  /** Once: a loss that the join told already, or that is before what the client has, is no news. */
  announceGap (group: string, gap: Gap): void {
    const holdback = this.held?.get(group)
    if (holdback?.holding === true) return this.#keep(holdback, gap)
    if (holdback?.covers(gap) === true) return
    this.held?.delete(group)
    this.session?.send({ type: 'gap', group, reason: gap.reason, position: formatPosition(gap.position) })
  }

  announcePosition (group: string, position: LogPosition): void {
    this.session?.send({ type: 'position', group, position: formatPosition(position) })
  }

  announceReconnect (afterMs: number): void {
    this.session?.send({ type: 'reconnect', afterMs })
  }

  #keep (holdback: Holdback, news: Envelope | Gap): void {
    if (!holdback.push(news) && !this.closed) this.closeForFault(CloseCode.TryAgainLater, 'too many messages while it resumed')
  }
}

/**
 * Whether a message with these exceptions is not for the connection. A connection id has a dot in it and the name of a session has none, so one list
 * holds both.
 */
export function isExcepted ({ id, sessionName }: { readonly id: string, readonly sessionName?: string | undefined }, except: ReadonlySet<string>): boolean {
  return except.has(id) || (sessionName !== undefined && except.has(sessionName))
}
