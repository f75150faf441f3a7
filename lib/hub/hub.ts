import type { Envelope, LogPosition, Target } from '../backplane/backplane.ts'
import type { LocalConnection } from '../connection/connection.ts'
import type { Member } from '../types.ts'
import { userLogOf, userOfLog } from '../backplane/user-log.ts'
import { MultiGroupDedupe } from './dedupe.ts'
import { exclusionOf, type Exclusion, type Exclusive } from './exclusion.ts'
import { giveToConnections, giveToMembers } from './fan-out.ts'
import type { Gap } from './holdback.ts'
import { LateJoiners } from './late-joiners.ts'
import { LocalMember } from './local-member.ts'

/** The tables of this instance: its connections, by id, by group and by user. Knows nothing of other instances. */
export class Hub {
  readonly connections = new Map<string, LocalConnection>()
  /** How many of them are pages of a dashboard, not clients of the application: what is for all is not for them. */
  #pages = 0
  /** Never an empty entry: a group or user without connections here is not in the table. */
  readonly #groups = new Map<string, Map<LocalConnection, LocalMember>>()
  readonly #users = new Map<string, Set<LocalConnection>>()
  /** Framed connections in the logs of their users, by the name of the log. Raw ones cannot resume, and are found in `#users`. */
  readonly #userLogs = new Map<string, Map<LocalConnection, LocalMember>>()
  readonly #dedupe = new MultiGroupDedupe()
  readonly #lateJoiners = new LateJoiners()

  add (connection: LocalConnection): void {
    this.connections.set(connection.id, connection)
    if (connection.forOperators) this.#pages++
    const { userId } = connection
    if (userId === undefined) return
    if (!connection.framed) this.#lateJoiners.joined(connection, userLogOf(userId) ?? '')
    const others = this.#users.get(userId)
    if (others === undefined) this.#users.set(userId, new Set([connection]))
    else others.add(connection)
  }

  /** The connections of the application. */
  clients (): Iterable<LocalConnection> {
    const all = this.connections.values()
    return this.#pages === 0 ? all : [...all].filter(({ forOperators }) => !forOperators)
  }

  get clientCount (): number {
    return this.connections.size - this.#pages
  }

  /** Returns whether this was the user's last connection here. */
  remove (connection: LocalConnection): boolean {
    if (this.connections.delete(connection.id) && connection.forOperators) this.#pages--
    const { userId } = connection
    const others = userId === undefined ? undefined : this.#users.get(userId)
    if (userId === undefined || others?.delete(connection) !== true) return false
    this.#leaveUserLog(connection, userId)
    return others.size === 0 && this.#users.delete(userId)
  }

  /** Puts the connection into the group. */
  join (connection: LocalConnection, group: string, member: Member): LocalMember {
    const added = new LocalMember(connection, group, member)
    addTo(this.#groups, added)
    this.#lateJoiners.joined(connection, group)
    connection.groupJoined(group)
    return added
  }

  /** Puts the framed connection into the log of its user: from now on the client is told its position there. */
  joinUserLog (connection: LocalConnection, name: string): LocalMember {
    const added = new LocalMember(connection, name, { connectionId: connection.id, instanceId: '', joinedAt: Date.now() })
    addTo(this.#userLogs, added)
    this.#lateJoiners.joined(connection, name)
    return added
  }

  /** Takes the connection out of the group. Returns its member; `undefined` when it was not in the group. */
  leave (connection: LocalConnection, group: string): LocalMember | undefined {
    const members = this.#groups.get(group)
    const left = members?.get(connection)
    if (members === undefined || left === undefined) return undefined
    members.delete(connection)
    if (members.size === 0) this.#groups.delete(group)
    this.#lateJoiners.left(connection, group)
    connection.groupLeft(group)
    left.end()
    return left
  }

  /** The member of the group that stands for the connection; `undefined` when the connection is not in the group. */
  find (connection: LocalConnection, group: string): LocalMember | undefined {
    return this.#membersOf(group)?.get(connection)
  }

  groups (): Iterable<string> {
    return this.#groups.keys()
  }

  groupTotal (): number {
    return this.#groups.size
  }

  * memberIds (group: string): Iterable<string> {
    for (const { id } of this.#groups.get(group)?.keys() ?? []) yield id
  }

  members (group: string): Member[] {
    return Array.from(this.#groups.get(group)?.values() ?? [], ({ member }) => member)
  }

  member (group: string, connectionId: string): Member | undefined {
    const connection = this.connections.get(connectionId)
    return connection === undefined ? undefined : this.find(connection, group)?.member
  }

  userIds (): Iterable<string> {
    return this.#users.keys()
  }

  connectionsOf (userId: string): LocalConnection[] {
    return [...this.#users.get(userId) ?? []]
  }

  /** Whether the group, or the log of a user, has members here. */
  has (group: string): boolean {
    return this.#membersOf(group) !== undefined
  }

  /** How many connections of this instance get a message to these targets. */
  countRecipients (targets: readonly Target[], envelope: Exclusive): number {
    const excludes = exclusionOf(envelope)
    const [only] = targets
    if (targets.length === 1 && only !== undefined && excludes === undefined) return this.#size(only)
    return this.#count(targets, excludes, () => true)
  }

  /** How many of these connections are slow. */
  countSlow (targets: readonly Target[], envelope: Exclusive): number {
    return this.#count(targets, exclusionOf(envelope), ({ outbound }) => outbound.slow)
  }

  /** Gives a message to every connection here that it is for. Returns how many took it. */
  deliver (envelope: Envelope): number {
    if (!envelope.shared) return this.#deliver(envelope, undefined)
    const given = this.#dedupe.recipientsOf(envelope)
    const taken = this.#deliver(envelope, given)
    this.#dedupe.record(envelope, given)
    return taken
  }

  /** Gives a message, once, to every connection here behind the targets, except to those behind `delivered`. Returns how many took it. */
  deliverExcept (envelope: Envelope, targets: readonly Target[], delivered: readonly Target[]): number {
    const given = envelope.shared ? this.#dedupe.recipientsOf(envelope) : new Set<number>()
    for (const { number } of this.#union(delivered)) given.add(number)
    const taken = targets.reduce((sum, target) => sum + this.#deliver({ ...envelope, target }, given), 0)
    if (envelope.shared) this.#dedupe.record(envelope, given)
    return taken
  }

  /**
   * Gives one member a message that it missed, or that was held back for it. The message comes from the log of one of the groups that it
   * went to.
   */
  replay (member: LocalMember, envelope: Envelope): void {
    if (this.#hasRepeated(member.connection, envelope)) member.passOver(envelope)
    else if (envelope.shared && !this.#dedupe.markNew(member.connection, envelope)) member.passOver(envelope)
    else member.deliver(envelope)
  }

  /** The client says that it has everything up to this position: of a log that was lost, messages up to there are not repeated to it. */
  resumes ({ connection, group }: LocalMember, position: LogPosition): void {
    this.#lateJoiners.resumed(connection, group, position)
  }

  /** The log of the group is again where its members were before they were told of a loss: tells them where they are. */
  announcePosition (group: string, position: LogPosition): void {
    for (const member of this.#membersOf(group)?.values() ?? []) if (!member.holding) member.passOver({ position })
  }

  announceGap (group: string, gap: Gap): void {
    if (gap.reason !== 'trimmed') this.#lateJoiners.lost(group)
    // A copy: `onGap` may leave the group and join it anew, and so be in it again without end.
    for (const member of [...this.#membersOf(group)?.values() ?? []]) {
      if (this.find(member.connection, group) === member) member.gap(gap)
    }
  }

  #deliver (envelope: Envelope, given: Set<number> | undefined): number {
    const { target } = envelope
    if (target.kind !== 'group') return giveToConnections(this.#connections(target), envelope, exclusionOf(envelope))
    const members = this.#membersOf(target.name)
    const excludes = this.#exclusionOf(envelope)
    const taken = members === undefined ? 0 : giveToMembers(members.values(), envelope, given, excludes)
    const userId = userOfLog(target.name)
    return userId === undefined ? taken : taken + giveToConnections(this.#rawOf(userId), envelope, excludes)
  }

  /** Returns which connections are not given the message. */
  #exclusionOf (envelope: Envelope): Exclusion<LocalConnection> | undefined {
    const excludes = exclusionOf(envelope)
    const { repeated, position, places } = envelope
    if (repeated === undefined && (position !== undefined || places === undefined)) return excludes
    return connection => this.#hasRepeated(connection, envelope) || this.#hasLogged(connection, envelope) || excludes?.(connection) === true
  }

  /**
   * Whether this copy is for a group without a log, and the connection has the message already from a group with a log, where it came back
   * ahead of this instance.
   */
  #hasLogged (connection: LocalConnection, { position, places = [] }: Envelope): boolean {
    return position === undefined && places.some(({ group, epoch, offset }) => {
      return this.find(connection, group)?.holdback?.has({ epoch, offset, nonce: 0 }) === true
    })
  }

  /** Whether this is a message that was stored anew, and the connection was given it before. */
  #hasRepeated (connection: LocalConnection, { target, position, repeated }: Envelope): boolean {
    return repeated !== undefined &&
      (repeated.epoch === position?.epoch || !this.#lateJoiners.misses(connection, target.name, repeated))
  }

  #membersOf (group: string): ReadonlyMap<LocalConnection, LocalMember> | undefined {
    return (userOfLog(group) === undefined ? this.#groups : this.#userLogs).get(group)
  }

  * #rawOf (userId: string): Iterable<LocalConnection> {
    for (const connection of this.#users.get(userId) ?? []) if (!connection.framed) yield connection
  }

  #leaveUserLog (connection: LocalConnection, userId: string): void {
    const name = userLogOf(userId) ?? ''
    const members = this.#userLogs.get(name)
    members?.get(connection)?.dropHold()
    members?.delete(connection)
    if (members?.size === 0) this.#userLogs.delete(name)
  }

  #count (targets: readonly Target[], excludes: Exclusion | undefined, counts: (connection: LocalConnection) => boolean): number {
    const [only] = targets
    let count = 0
    for (const connection of targets.length === 1 && only !== undefined ? this.#connections(only) : this.#union(targets)) {
      if (excludes?.(connection) !== true && counts(connection)) count++
    }
    return count
  }

  #union (targets: readonly Target[]): Set<LocalConnection> {
    const union = new Set<LocalConnection>()
    for (const target of targets) {
      for (const connection of this.#connections(target)) union.add(connection)
    }
    return union
  }

  #connections ({ kind, name }: Target): Iterable<LocalConnection> {
    switch (kind) {
      case 'group': return this.#groups.get(name)?.keys() ?? []
      case 'user': return this.#users.get(name) ?? []
      case 'all': return this.clients()
      case 'instance': return []
    }
  }

  #size ({ kind, name }: Target): number {
    if (kind === 'all') return this.clientCount
    return (kind === 'group' ? this.#groups : this.#users).get(name)?.size ?? 0
  }
}

function addTo (table: Map<string, Map<LocalConnection, LocalMember>>, member: LocalMember): void {
  const members = table.get(member.group)
  if (members === undefined) table.set(member.group, new Map([[member.connection, member]]))
  else members.set(member.connection, member)
}
