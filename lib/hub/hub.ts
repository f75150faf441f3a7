import type { Envelope, Target } from '../backplane/backplane.ts'
import type { LocalConnection } from '../connection/connection.ts'
import { OutboundMessage } from '../connection/outbound/message.ts'
import type { Gap } from './holdback.ts'
import { isExcepted } from './local-member.ts'
import { MultiGroupDedupe } from './dedupe.ts'
import type { Member } from '../types.ts'

type Members = Set<LocalConnection>

/** The tables of this instance: its connections, by id, by group and by user. Knows nothing of other instances. */
export class Hub {
  readonly connections = new Map<string, LocalConnection>()
  readonly #groups = new Map<string, Members>()
  readonly #users = new Map<string, Members>()
  readonly #dedupe = new MultiGroupDedupe()
  #stamp = 0
  #stampOrigin = ''
  #stampSequence = -1

  add (connection: LocalConnection): void {
    this.connections.set(connection.id, connection)
    if (connection.userId !== undefined) enter(this.#users, connection.userId, connection)
  }

  /** Returns whether this was the user's last connection here. */
  remove (connection: LocalConnection): boolean {
    this.connections.delete(connection.id)
    return connection.userId !== undefined && exit(this.#users, connection.userId, connection)
  }

  join (connection: LocalConnection, group: string, member: Member): void {
    connection.joined.set(group, member)
    enter(this.#groups, group, connection)
  }

  /** Returns whether this was the group's last member here; `undefined` when it was no member. */
  leave (connection: LocalConnection, group: string): boolean | undefined {
    if (!connection.joined.delete(group)) return undefined
    return exit(this.#groups, group, connection)
  }

  groups (): Iterable<string> {
    return this.#groups.keys()
  }

  groupTotal (): number {
    return this.#groups.size
  }

  * memberIds (group: string): Iterable<string> {
    for (const connection of this.#groups.get(group) ?? []) yield connection.id
  }

  members (group: string): Member[] {
    const members: Member[] = []
    for (const connection of this.#groups.get(group) ?? []) {
      const member = connection.joined.get(group)
      if (member !== undefined) members.push(member)
    }
    return members
  }

  member (group: string, connectionId: string): Member | undefined {
    return this.connections.get(connectionId)?.joined.get(group)
  }

  connectionsOf (userId: string): LocalConnection[] {
    return [...this.#users.get(userId) ?? []]
  }

  /** Whether the group has members here. */
  has (group: string): boolean {
    return this.#groups.has(group)
  }

  /** How many connections here a message to these targets is for. */
  countRecipients (targets: readonly Target[], except: readonly string[]): number {
    const [only] = targets
    if (targets.length === 1 && only !== undefined && except.length === 0) return this.#size(only)
    return this.#count(targets, except, () => true)
  }

  /** How many of them are slow. */
  countSlow (targets: readonly Target[], except: readonly string[]): number {
    return this.#count(targets, except, ({ outbound }) => outbound.slow)
  }

  /** Writes a message to everyone here it is for. Returns how many took it. */
  deliver (envelope: Envelope): number {
    const recipients = this.#recipients(envelope.target)
    if (recipients === undefined) return 0
    if (!envelope.shared) return fanOut(recipients, envelope, 0)
    if (envelope.position === undefined) return fanOut(recipients, envelope, this.#stampOf(envelope))
    return fanOut(this.#dedupe.selectNew(recipients, envelope), envelope, 0)
  }

  /** A message that one connection missed, or that was kept back for it: from the log of one of the groups that it went to. */
  replay (connection: LocalConnection, envelope: Envelope): void {
    if (envelope.shared && envelope.position !== undefined && !this.#dedupe.markNew(connection, envelope)) connection.passOver(envelope)
    else connection.deliver(envelope)
  }

  announceGap (group: string, gap: Gap): void {
    for (const connection of this.#groups.get(group) ?? []) connection.announceGap(group, gap)
  }

  /** Writes a message, once, to everyone here behind any of the targets but behind none of `served`. Returns how many took it. */
  deliverExcept (envelope: Envelope, targets: readonly Target[], served: readonly Target[]): number {
    const recipients = this.#union(targets)
    for (const connection of this.#union(served)) recipients.delete(connection)
    return fanOut(recipients, envelope, 0)
  }

  /** Copies of one shared envelope arrive one after another, so remembering the last one is enough to give each connection a single copy. */
  #stampOf ({ origin, sequence }: Envelope): number {
    if (sequence !== this.#stampSequence || origin !== this.#stampOrigin) {
      this.#stampSequence = sequence
      this.#stampOrigin = origin
      this.#stamp++
    }
    return this.#stamp
  }

  #count (targets: readonly Target[], except: readonly string[], counts: (connection: LocalConnection) => boolean): number {
    const [only] = targets
    const excepted = new Set(except)
    let count = 0
    for (const connection of targets.length === 1 && only !== undefined ? this.#recipients(only) ?? [] : this.#union(targets)) {
      if (!isExcepted(connection, excepted) && counts(connection)) count++
    }
    return count
  }

  #union (targets: readonly Target[]): Set<LocalConnection> {
    const union = new Set<LocalConnection>()
    for (const target of targets) {
      for (const connection of this.#recipients(target) ?? []) union.add(connection)
    }
    return union
  }

  #recipients ({ kind, name }: Target): Iterable<LocalConnection> | undefined {
    switch (kind) {
      case 'group': return this.#groups.get(name)
      case 'user': return this.#users.get(name)
      case 'all': return this.connections.size > 0 ? this.connections.values() : undefined
      case 'instance': return undefined
    }
  }

  #size ({ kind, name }: Target): number {
    if (kind === 'all') return this.connections.size
    return (kind === 'group' ? this.#groups : this.#users).get(name)?.size ?? 0
  }
}

function enter (table: Map<string, Members>, name: string, connection: LocalConnection): void {
  const members = table.get(name)
  if (members === undefined) table.set(name, new Set([connection]))
  else members.add(connection)
}

function exit (table: Map<string, Members>, name: string, connection: LocalConnection): boolean {
  const members = table.get(name)
  if (members === undefined || !members.delete(connection) || members.size > 0) return false
  return table.delete(name)
}

/**
 * Gives one message to many connections; returns how many took it. It is written with all else that comes for them in this turn of the event loop.
 * `stamp` is the same for all copies of a message that went to several targets, 0 for a message that went to one.
 */
function fanOut (recipients: Iterable<LocalConnection>, envelope: Envelope, stamp: number): number {
  const except = envelope.except.length > 0 ? new Set(envelope.except) : undefined
  const outgoing = OutboundMessage.ofEnvelope(envelope)
  let taken = 0
  for (const connection of recipients) {
    const excepted = except !== undefined && isExcepted(connection, except)
    if (stamp > 0 && !excepted) {
      if (connection.multiStamp === stamp) continue
      connection.multiStamp = stamp
    }
    // What it missed comes first. An excepted one waits too: how far the log is must not be said before what came earlier.
    if (connection.held !== undefined && connection.hold(envelope)) continue
    if (excepted) connection.passOver(envelope)
    else if (connection.outbound.enqueueShared(outgoing)) taken++
  }
  return taken
}
