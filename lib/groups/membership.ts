import type { Backplane, Target } from '../backplane/backplane.ts'
import type { LocalConnection } from '../connection/connection.ts'
import { isOutage, WebsocketGroupsError } from '../errors.ts'
import { assertGroupName } from '../group-name.ts'
import type { Hub } from '../hub/hub.ts'
import type { LocalMember } from '../hub/local-member.ts'
import type { Metrics } from '../metrics.ts'
import { RateTable } from '../connection/inbound/rate.ts'
import { Tags } from '../connection/tags.ts'
import { shownBy, toInfo, type MemberInfoOption } from './member-info.ts'
import type { Occupancy } from './occupancy.ts'
import type { Presence } from '../presence/presence.ts'
import { assertTags } from '../delivery/audience.ts'
import { assertPosition } from '../delivery/backlog.ts'
import type { PendingReplay, Replay } from '../delivery/replay.ts'
import type { Revocations, Scope } from '../delivery/revocations.ts'
import { userLogTarget, userTarget } from '../delivery/envelopes.ts'
import { CloseCode } from '../protocol/close-codes.ts'
import type { ResolvedLimits } from '../options/limits.ts'
import type { OutagePolicy, WebsocketGroupsOptions } from '../options/types.ts'
import type { JoinOptions, JoinResult, Member } from '../types.ts'

/** How many users have their new groups counted; beyond that, the users who were quiet the longest are forgotten. */
const maxUsers = 20_000

type Writable<Of> = { -readonly [Name in keyof Of]: Of[Name] }

interface MembershipOptions extends Pick<WebsocketGroupsOptions, 'userLog'> {
  /** The id of this instance, which is part of each member. */
  readonly instanceId: string
  readonly policy: OutagePolicy['join']
  readonly maxGroupsPerConnection: number
  readonly limits: Pick<ResolvedLimits, 'newGroupsPerMinute'>
  readonly memberInfo: MemberInfoOption
}

/** Puts this instance's connections into groups and takes them out, here and in the backplane. */
export class Membership {
  readonly #hub: Hub
  readonly #backplane: Backplane
  readonly #options: MembershipOptions
  readonly #metrics: Metrics
  readonly #replay: Replay
  readonly #revocations: Revocations
  readonly #presence: Presence
  readonly #occupancy: Occupancy
  /** Counts the new groups of each user: those that nobody on this instance had joined before. */
  readonly #newGroups: RateTable | undefined
  /** The latest argument of `setInfo`, by connection. */
  readonly #shown = new WeakMap<LocalConnection, Pick<Member, 'info' | 'infoAt'>>()
  /** Joins that wait for the backplane. */
  readonly #joining = new Map<LocalMember, Promise<JoinResult>>()

  constructor (
    hub: Hub, backplane: Backplane, replay: Replay, revocations: Revocations, presence: Presence, occupancy: Occupancy,
    options: MembershipOptions, metrics: Metrics
  ) {
    this.#hub = hub
    this.#backplane = backplane
    this.#options = options
    this.#metrics = metrics
    this.#replay = replay
    this.#revocations = revocations
    this.#presence = presence
    this.#occupancy = occupancy
    const { newGroupsPerMinute } = options.limits
    if (newGroupsPerMinute === undefined) return
    this.#newGroups = new RateTable({ perSecond: newGroupsPerMinute / 60, burst: newGroupsPerMinute }, maxUsers)
  }

  /** @throws what `Registry.join` throws */
  async join (connection: LocalConnection, group: string, options: JoinOptions = {}): Promise<JoinResult> {
    assertGroupName(group)
    if (options.tags !== undefined) assertTags(options.tags, 'tags')
    this.#assertOpen(connection)
    const startedAt = performance.now()
    const known = this.#hub.find(connection, group)
    const member = known ?? this.#add(connection, group, options)
    // Set the tags before anything is delivered, because filters read them.
    if (options.tags !== undefined) (connection.tags ??= new Tags()).set(group, options.tags)
    // Concurrent calls share one outcome: otherwise one could undo what another reports as done.
    let joining = this.#joining.get(member)
    if (joining === undefined) {
      const replay = known === undefined ? this.#replay.hold(member, options) : undefined
      joining = this.#register(member, known === undefined, replay)
      this.#joining.set(member, joining)
    }
    try {
      const result = await joining
      this.#metrics.timings.join.observeSince(startedAt)
      return result
    } catch (error) {
      // A connection that closes is taken out of all its groups at once.
      if (known === undefined && !connection.closed) this.#undo(member)
      throw error
    } finally {
      if (this.#joining.get(member) === joining) this.#joining.delete(member)
    }
  }

  /** The client leaves, and may resume when it comes back. */
  async leave (connection: LocalConnection, group: string, reason?: string): Promise<boolean> {
    const left = this.#takeOut(connection, group)
    if (left === undefined) return false
    connection.announce({ type: 'left', group, reason })
    const stored = this.#sync(group, connection.id).then(() => {
      if (!this.#hub.has(group)) this.#occupancy.changed('group', group)
    })
    // The leave begins now: a join that follows may be stored together with it, or sooner.
    await this.#presence.left(left, stored)
    return true
  }

  /** The application, or a token that allows less, takes the client out: its proofs of membership no longer open later messages to it. */
  async putOut (connection: LocalConnection, group: string, scope: Scope = 'connection', reason?: string): Promise<boolean> {
    if (this.#hub.find(connection, group) === undefined) return false
    const remembered = this.#revocations.add(connection, group, scope)
    const left = await this.leave(connection, group, reason)
    await remembered
    return left
  }

  async putOutOfAll (connection: LocalConnection): Promise<number> {
    const left = await Promise.all(connection.groups.map(group => this.putOut(connection, group)))
    return left.filter(Boolean).length
  }

  /** Keeps connections of the user that are away from resuming in the group. */
  async putOutUser (userId: string, group: string): Promise<void> { await this.#revocations.addUser(userId, group) }

  /** Does the same in all groups, for a user who was blocked. The blocklist closes the connections that are open. */
  async userBlocked (userId: string, forMs: number): Promise<void> { await this.#revocations.addBlocked(userId, forMs) }

  /** Changes what others see of the connection, in all of its groups. @throws what `Connection.setInfo` throws */
  async setInfo (connection: LocalConnection, given: unknown): Promise<void> {
    this.#assertOpen(connection)
    const info = toInfo(given)
    if (info === undefined) throw new WebsocketGroupsError('WSG_DATA_INVALID', `JSON has no ${typeof given}`)
    const shown = { info, infoAt: Math.max(Date.now(), (this.#shown.get(connection)?.infoAt ?? 0) + 1) }
    this.#shown.set(connection, shown)
    await Promise.all(connection.groups.map(async group => {
      const member = this.#hub.find(connection, group)
      member?.show(info, shown.infoAt)
      await this.#sync(group, connection.id)
      if (member !== undefined && this.#hub.find(connection, group) === member) this.#presence.updated(member)
    }))
  }

  /**
   * Makes the connection known. Resolves when its user's own target is subscribed. Each connection asks for the subscription, as that of
   * the user's first connection may still be on its way.
   */
  connectionOpened (connection: LocalConnection): Promise<void> | undefined {
    this.#hub.add(connection)
    const { userId } = connection
    if (userId === undefined) return undefined
    const subscribed = this.#backplane.subscribe(userTarget(userId)).catch(ignoreUnavailable)
    const log = this.#userLogOf(userId)
    if (log === undefined) return subscribed
    return Promise.all([subscribed, this.#backplane.subscribe(log).catch(ignoreUnavailable)]).then(() => undefined)
  }

  /** A framed client said hello: replays the log of its user. Resolves when the client has all of it, or has to read some of it first. */
  async clientGreeted (connection: LocalConnection): Promise<void> {
    const { userId, closed } = connection
    const log = userId === undefined || closed ? undefined : this.#userLogOf(userId)
    if (log === undefined) return
    const replay = this.#replay.hold(this.#hub.joinUserLog(connection, log.name), {})
    if (replay !== undefined) await this.#replay.play(replay, 'cluster')
  }

  /** Forgets a connection that closes, and takes it out of its groups. An outage of the backplane does not make it reject. */
  async connectionClosed (connection: LocalConnection): Promise<void> {
    const { userId = '' } = connection
    if (this.#hub.remove(connection)) {
      const log = this.#userLogOf(userId)
      for (const target of [userTarget(userId), ...log === undefined ? [] : [log]]) this.#backplane.unsubscribe(target)
    }
    const { dismissed, closeCode } = connection
    const isBlocked = closeCode === CloseCode.OtherUser
    await Promise.all(connection.groups.map(async group => {
      if (!dismissed && !isBlocked) await this.leave(connection, group)
      else await this.putOut(connection, group, isBlocked ? 'user' : 'connection')
    }))
  }

  #userLogOf (userId: string): Target | undefined {
    const { userLog = false } = this.#options
    return userLog === false ? undefined : userLogTarget(userId)
  }

  async #register (member: LocalMember, added: boolean, replay: PendingReplay | undefined): Promise<JoinResult> {
    const { connection, group } = member
    let scope: JoinResult['scope'] = 'cluster'
    try {
      // Subscribe before registering: a connection that others see as a member must get what is sent to the group.
      await this.#backplane.subscribe({ kind: 'group', name: group })
      await this.#backplane.syncMember(group, connection.id)
    } catch (error) {
      if (this.#options.policy === 'reject' || !isOutage(error)) throw error
      // The policy lets the connection join here. If the subscription failed, the membership is not stored yet.
      this.#syncLater(group, connection.id)
      this.#metrics.joinsLocal++
      scope = 'local'
    }
    if (added) this.#occupancy.changed('group', group)
    // The socket may have closed meanwhile. Its membership needs no clean-up here: the backplane reads memberships from the hub when it
    // stores them.
    this.#assertOpen(connection)
    const result = replay === undefined ? { scope } : await this.#replay.play(replay, scope)
    if (added && this.#hub.find(connection, group) === member) {
      this.#presence.joined(member)
      member.joined()
    }
    return result
  }

  /** Undoes a failed join, unless the connection left meanwhile, and maybe joined again. */
  #undo (member: LocalMember): void {
    const { connection, group } = member
    if (this.#hub.find(connection, group) !== member) return
    this.#takeOut(connection, group)
    // The caller gets the error of the join, and does not wait for this.
    this.#backplane.syncMember(group, connection.id).catch(() => {}).finally(() => this.#occupancy.changed('group', group))
  }

  #takeOut (connection: LocalConnection, group: string): LocalMember | undefined {
    const left = this.#hub.leave(connection, group)
    if (left !== undefined && !this.#hub.has(group)) this.#backplane.unsubscribe({ kind: 'group', name: group })
    return left
  }

  /** Users who make up group names would fill Redis. For clients without a user id only the limits of connections and upgrades apply. */
  #countNewGroup (connection: LocalConnection, group: string): void {
    const { userId } = connection
    if (userId === undefined || this.#newGroups === undefined || this.#hub.has(group) || this.#newGroups.take(userId) === 0) return
    this.#metrics.limitHit('newGroupsRefused', connection)
    throw new WebsocketGroupsError('WSG_RATE_LIMITED', 'this user joined too many new groups')
  }

  #add (connection: LocalConnection, group: string, { since }: JoinOptions): LocalMember {
    if (since !== undefined) assertPosition(since)
    const { groupCount } = connection
    if (groupCount >= this.#options.maxGroupsPerConnection) {
      this.#metrics.limitHit('groupsRefused', connection)
      throw new WebsocketGroupsError('WSG_TOO_MANY_GROUPS', `${connection.id} is in ${groupCount} already`)
    }
    this.#countNewGroup(connection, group)
    return this.#hub.join(connection, group, this.#memberOf(connection))
  }

  #memberOf (connection: LocalConnection): Member {
    const { id, userId, sessionName } = connection
    const member: Writable<Member> = { connectionId: id, instanceId: this.#options.instanceId, joinedAt: Date.now() }
    if (userId !== undefined) member.userId = userId
    if (sessionName !== undefined) member.session = sessionName
    const shown = this.#shown.get(connection) ?? shownBy(this.#options.memberInfo, connection)
    return shown === undefined ? member : Object.assign(member, shown)
  }

  #assertOpen (connection: LocalConnection): void {
    if (connection.closed) throw new WebsocketGroupsError('WSG_CONNECTION_GONE', connection.id)
  }

  /** Stores a leave. The leave counts at once; the backplane stores it as soon as it can. */
  #sync (group: string, connectionId: string): Promise<void> {
    return this.#backplane.syncMember(group, connectionId).catch(ignoreUnavailable)
  }

  /** As `#sync`, where nobody waits for the result: the backplane keeps trying by itself, and says so in its `problems`. */
  #syncLater (group: string, connectionId: string): void {
    this.#backplane.syncMember(group, connectionId).catch(() => {})
  }
}

/** Ignores that the backplane is out: the backplane retries by itself. Rethrows everything else. */
function ignoreUnavailable (error: unknown): void {
  if (!isOutage(error)) throw error
}
