import type { LocalConnection } from '../connection/connection.ts'
import type { FramedMember } from '../protocol/frames.ts'
import { OutboundMessage } from '../connection/outbound/message.ts'

/** What a `members` frame lists at most; `count` of later events tells the true number. */
const maxListed = 1_000

export interface Change { readonly event: 'join' | 'leave', readonly member: FramedMember }

interface Reading { readonly waiting: Set<LocalConnection>, readonly changes: Change[] }
interface Reads { readonly running: Reading, next: Set<LocalConnection> | undefined, readonly done: Promise<void> }

/**
 * Tells connections who is in a group. One read at a time per group serves all who asked before it began; those who ask meanwhile share the next one. What
 * changes during a read is applied to what it brings, so that a list is never older than the events that a connection got before it.
 */
export class MemberLists {
  /** Never rejects. */
  readonly #read: (group: string) => Promise<readonly FramedMember[]>
  readonly #groups = new Map<string, Reads>()

  constructor (read: (group: string) => Promise<readonly FramedMember[]>) {
    this.#read = read
  }

  /** Resolves when they were told; never rejects. */
  async send (group: string, connections: Iterable<LocalConnection>): Promise<void> {
    const rolls = this.#groups.get(group)
    if (rolls === undefined) return await this.#begin(group, new Set(connections))
    rolls.next ??= new Set()
    for (const connection of connections) rolls.next.add(connection)
    await rolls.done
    await this.#groups.get(group)?.done
  }

  /** Whether the connection waits for a list, which will hold the changes until then. */
  isPending (group: string, connection: LocalConnection): boolean {
    const rolls = this.#groups.get(group)
    return rolls !== undefined && (rolls.running.waiting.has(connection) || rolls.next?.has(connection) === true)
  }

  record (group: string, change: Change): void {
    this.#groups.get(group)?.running.changes.push(change)
  }

  cancel (group: string, connection: LocalConnection): void {
    const rolls = this.#groups.get(group)
    rolls?.running.waiting.delete(connection)
    rolls?.next?.delete(connection)
  }

  #begin (group: string, waiting: Set<LocalConnection>): Promise<void> {
    const running: Reading = { waiting, changes: [] }
    const done = this.#read(group).then(members => {
      const next = this.#groups.get(group)?.next
      this.#groups.delete(group)
      sendTo(group, members, running)
      if (next !== undefined && next.size > 0) void this.#begin(group, next)
    })
    this.#groups.set(group, { running, next: undefined, done })
    return done
  }
}

function sendTo (group: string, members: readonly FramedMember[], { waiting, changes }: Reading): void {
  const bySession = new Map<string, FramedMember>()
  for (const member of members) {
    const other = bySession.get(member.session)
    // A session that just came back may still be listed with its old connection too.
    if (other === undefined || member.joinedAt >= other.joinedAt) bySession.set(member.session, member)
  }
  for (const { event, member } of changes) {
    if (event === 'join') bySession.set(member.session, member)
    else if (bySession.get(member.session)?.connectionId === member.connectionId) bySession.delete(member.session)
  }
  const listed = [...bySession.values()].slice(0, maxListed)
  const outgoing = OutboundMessage.ofFrame({ type: 'members', group, members: listed })
  for (const connection of waiting) connection.outbound.enqueueShared(outgoing)
}
