import type { LocalConnection } from '../connection/connection.ts'
import type { FramedMember } from '../protocol/frames.ts'
import type { Metrics } from '../metrics.ts'
import type { ResolvedLimits } from '../options/limits.ts'
import { OutboundMessage } from '../connection/outbound/message.ts'

/** How many members a `members` frame lists at most. The `count` of later events tells the true number. */
const maxListed = 1_000

export type ListLimits = Pick<ResolvedLimits, 'presenceEntriesPerUser' | 'presenceBytes'>

export interface Change { readonly event: 'join' | 'leave', readonly member: FramedMember }

/** One read of a group, for the connections that asked before the read began. */
interface Read { readonly waiting: Set<LocalConnection>, readonly changes: Change[] }
interface GroupReads { readonly running: Read, next: Set<LocalConnection> | undefined, readonly done: Promise<void> }

/**
 * Sends member lists. Requests for one group share a read; changes that arrive during the read are applied to it before it is sent, so that
 * a list is never older than the events that a connection got before it. Who asks during a read waits for the next one.
 */
export class MemberLists {
  /** Never rejects. */
  readonly #read: (group: string) => Promise<readonly FramedMember[]>
  readonly #limits: ListLimits
  readonly #metrics: Pick<Metrics, 'memberEntriesLeftOut'>
  readonly #groups = new Map<string, GroupReads>()

  constructor (
    read: (group: string) => Promise<readonly FramedMember[]>, limits: ListLimits, metrics: Pick<Metrics, 'memberEntriesLeftOut'>
  ) {
    this.#read = read
    this.#limits = limits
    this.#metrics = metrics
  }

  /** Resolves when the connections were sent the list; never rejects. */
  async send (group: string, connections: Iterable<LocalConnection>): Promise<void> {
    const reads = this.#groups.get(group)
    if (reads === undefined) return await this.#begin(group, new Set(connections))
    reads.next ??= new Set()
    for (const connection of connections) reads.next.add(connection)
    await reads.done
    await this.#groups.get(group)?.done
  }

  /** Whether the connection waits for a list, which will contain the changes up to then. */
  isPending (group: string, connection: LocalConnection): boolean {
    const reads = this.#groups.get(group)
    return reads !== undefined && (reads.running.waiting.has(connection) || reads.next?.has(connection) === true)
  }

  /** Applies a change to the list that is being read. */
  record (group: string, change: Change): void {
    this.#groups.get(group)?.running.changes.push(change)
  }

  /** The connection left the group: it is sent no list. */
  cancel (group: string, connection: LocalConnection): void {
    const reads = this.#groups.get(group)
    reads?.running.waiting.delete(connection)
    reads?.next?.delete(connection)
  }

  #begin (group: string, waiting: Set<LocalConnection>): Promise<void> {
    const running: Read = { waiting, changes: [] }
    const done = this.#read(group).then(members => {
      const next = this.#groups.get(group)?.next
      this.#groups.delete(group)
      this.#sendTo(group, members, running)
      if (next !== undefined && next.size > 0) void this.#begin(group, next)
    })
    this.#groups.set(group, { running, next: undefined, done })
    return done
  }

  #sendTo (group: string, members: readonly FramedMember[], read: Read): void {
    const all = withChanges(members, read.changes)
    const listed = selectMembers(all, this.#limits)
    this.#metrics.memberEntriesLeftOut += all.length - listed.length
    const outgoing = OutboundMessage.ofFrame({ type: 'members', group, members: listed })
    for (const connection of read.waiting) connection.outbound.enqueueShared(outgoing)
  }
}

/** One entry for each session, as it is after the changes. */
function withChanges (members: readonly FramedMember[], changes: readonly Change[]): FramedMember[] {
  const bySession = new Map<string, FramedMember>()
  for (const member of members) {
    const other = bySession.get(member.session)
    // A session that just came back may still be stored with its old connection too.
    if (other === undefined || member.joinedAt >= other.joinedAt) bySession.set(member.session, member)
  }
  for (const { event, member } of changes) {
    if (event === 'join') bySession.set(member.session, member)
    else if (bySession.get(member.session)?.connectionId === member.connectionId) bySession.delete(member.session)
  }
  return [...bySession.values()]
}

/** The members that a list shows: of each user some, so that nobody crowds the others out, and no more than fit. */
function selectMembers (members: readonly FramedMember[], limits: ListLimits): FramedMember[] {
  const { presenceEntriesPerUser = Infinity, presenceBytes = Infinity } = limits
  const listed: FramedMember[] = []
  const byUser = new Map<string, number>()
  let bytes = 0
  for (const member of members) {
    if (listed.length >= maxListed) break
    if (member.userId !== undefined) {
      const entries = (byUser.get(member.userId) ?? 0) + 1
      if (entries > presenceEntriesPerUser) continue
      byUser.set(member.userId, entries)
    }
    bytes += Buffer.byteLength(JSON.stringify(member)) + 1
    if (bytes > presenceBytes) break
    listed.push(member)
  }
  return listed
}
