import type { LocalConnection } from '../connection/connection.ts'
import type { FramedMember } from '../protocol/frames.ts'
import type { Metrics } from '../metrics.ts'
import type { ResolvedLimits } from '../options/limits.ts'
import { OutboundMessage } from '../connection/outbound/message.ts'
import type { MemberEvent } from './events.ts'
import type { PresentMember } from './roster.ts'

/** How many members a `members` frame lists at most. The `count` of later events tells the true number. */
const maxListed = 1_000

export type ListLimits = Pick<ResolvedLimits, 'presenceBytes'>

/** The stored members of a group, read for the connections that asked before the read began. */
export interface ListRead {
  /** Whether all stored members were read again: who is not in the list has left. */
  readonly anew: boolean
  /** `undefined`: the backplane could not tell. */
  readonly stored: readonly PresentMember[] | undefined
  /** Events during the read; the list may show their effects or not. */
  readonly events: readonly MemberEvent[]
}

interface Running { readonly waiting: Set<LocalConnection>, readonly events: MemberEvent[] }
interface GroupReads { readonly running: Running, next: Set<LocalConnection> | undefined, nextAnew: boolean, readonly done: Promise<void> }

interface ListHost {
  /** Never rejects. */
  read (group: string): Promise<readonly PresentMember[] | undefined>
  /** The list was read: returns all entries to send. */
  loaded (group: string, read: ListRead): Iterable<FramedMember>
}

/**
 * Sends member lists. Requests for one group share a read. Events during the read are applied before the list is sent, so a list is never
 * older than the events that a connection got before it. Requests during a read wait for the next one.
 */
export class MemberLists {
  readonly #host: ListHost
  readonly #limits: ListLimits
  readonly #metrics: Pick<Metrics, 'memberEntriesLeftOut'>
  readonly #groups = new Map<string, GroupReads>()

  constructor (host: ListHost, limits: ListLimits, metrics: Pick<Metrics, 'memberEntriesLeftOut'>) {
    this.#host = host
    this.#limits = limits
    this.#metrics = metrics
  }

  /** Resolves when the list was sent to the connections; never rejects. */
  async send (group: string, connections: Iterable<LocalConnection>, anew = false): Promise<void> {
    const reads = this.#groups.get(group)
    if (reads === undefined) return await this.#begin(group, new Set(connections), anew)
    reads.next ??= new Set()
    reads.nextAnew ||= anew
    for (const connection of connections) reads.next.add(connection)
    await reads.done
    await this.#groups.get(group)?.done
  }

  /** Whether the connection waits for a list, which will contain what happened up to then. */
  isPending (group: string, connection: LocalConnection): boolean {
    const reads = this.#groups.get(group)
    return reads !== undefined && (reads.running.waiting.has(connection) || reads.next?.has(connection) === true)
  }

  /** Notes an event for the lists that are being read. */
  record (group: string, event: MemberEvent): void {
    this.#groups.get(group)?.running.events.push(event)
  }

  /** The connection left the group: it is sent no list. */
  cancel (group: string, connection: LocalConnection): void {
    const reads = this.#groups.get(group)
    reads?.running.waiting.delete(connection)
    reads?.next?.delete(connection)
  }

  #begin (group: string, waiting: Set<LocalConnection>, anew: boolean): Promise<void> {
    const events: MemberEvent[] = []
    const done = this.#host.read(group).then(stored => {
      // Waiting connections count as waiting until the list is made, because it tells them everything up to then.
      const listed = selectMembers(this.#host.loaded(group, { anew, stored, events }), this.#limits)
      this.#metrics.memberEntriesLeftOut += listed.leftOut
      const { next, nextAnew } = this.#groups.get(group) ?? {}
      this.#groups.delete(group)
      const outgoing = OutboundMessage.ofFrame({ type: 'members', group, members: listed.members })
      for (const connection of waiting) connection.outbound.enqueueShared(outgoing)
      if (next !== undefined && next.size > 0) void this.#begin(group, next, nextAnew === true)
    })
    this.#groups.set(group, { running: { waiting, events }, next: undefined, nextAnew: false, done })
    return done
  }
}

/** The members that a list shows: no more than fit. */
function selectMembers (
  all: Iterable<FramedMember>, { presenceBytes = Infinity }: ListLimits
): { readonly members: FramedMember[], readonly leftOut: number } {
  const members: FramedMember[] = []
  let [bytes, leftOut] = [0, 0]
  for (const member of all) {
    if (members.length < maxListed && bytes <= presenceBytes) bytes += Buffer.byteLength(JSON.stringify(member)) + 1
    if (members.length < maxListed && bytes <= presenceBytes) members.push(member)
    else leftOut++
  }
  return { members, leftOut }
}
