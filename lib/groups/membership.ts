import type { Backplane } from '../backplane/backplane.ts'
import type { LocalConnection } from '../connection/connection.ts'
import { hasCode, WebsocketGroupsError } from '../errors.ts'
import { assertGroupName } from '../group-name.ts'
import type { Hub } from '../hub/hub.ts'
import { ownerOf } from '../ids.ts'
import type { Metrics } from '../metrics.ts'
import type { Presence } from '../presence/presence.ts'
import type { PendingReplay, Replay } from '../delivery/replay.ts'
import { userTarget } from '../delivery/envelopes.ts'
import type { OutagePolicy } from '../options/types.ts'
import type { Connection, JoinOptions, JoinResult, Json, Member } from '../types.ts'

const maxInfoBytes = 1024

export interface MembershipOptions {
  readonly policy: OutagePolicy['join']
  readonly maxGroupsPerConnection: number
  readonly memberInfo: ((connection: Connection) => Json | undefined) | undefined
}

/** Puts this instance's connections into groups and takes them out, here and in the backplane. */
export class Membership {
  readonly #hub: Hub
  readonly #backplane: Backplane
  readonly #options: MembershipOptions
  readonly #metrics: Metrics
  readonly #replay: Replay
  readonly #presence: Presence
  /** Joins that wait for the backplane. */
  readonly #joining = new Map<Member, Promise<JoinResult>>()

  constructor (hub: Hub, backplane: Backplane, replays: Replay, presence: Presence, options: MembershipOptions, metrics: Metrics) {
    this.#hub = hub
    this.#backplane = backplane
    this.#options = options
    this.#metrics = metrics
    this.#replay = replays
    this.#presence = presence
  }

  async join (connection: LocalConnection, group: string, options: JoinOptions = {}): Promise<JoinResult> {
    assertGroupName(group)
    this.#assertOpen(connection)
    const known = connection.joined.get(group)
    const held = known === undefined ? this.#replay.hold(connection, group, options) : undefined
    const member = known ?? this.#add(connection, group)
    // Calls at the same time share one outcome: otherwise one could undo what the other reports as done.
    let joining = this.#joining.get(member)
    if (joining === undefined) {
      joining = this.#register(connection, group, member, known === undefined, held).finally(() => this.#joining.delete(member))
      this.#joining.set(member, joining)
    }
    return await joining
  }

  async leave (connection: LocalConnection, group: string): Promise<boolean> {
    if (!this.#takeOut(connection, group)) return false
    connection.announceLeft(group)
    await this.#sync(group, connection.id)
    await this.#presence.left(connection, group)
    return true
  }

  async leaveAll (connection: LocalConnection): Promise<number> {
    const left = await Promise.all(connection.groups.map(group => this.leave(connection, group)))
    return left.filter(Boolean).length
  }

  /** Makes the connection known. Subscribes its user's own target: each time, as that of the user's first connection may still be on its way. */
  connectionOpened (connection: LocalConnection): Promise<void> | undefined {
    this.#hub.add(connection)
    return connection.userId === undefined ? undefined : this.#backplane.subscribe(userTarget(connection.userId)).catch(ignoreUnavailable)
  }

  /** Forgets a connection whose socket closed. Never rejects. */
  async connectionClosed (connection: LocalConnection): Promise<void> {
    if (this.#hub.remove(connection)) this.#backplane.unsubscribe(userTarget(connection.userId ?? ''))
    await this.leaveAll(connection)
  }

  async #register (connection: LocalConnection, group: string, member: Member, added: boolean, held: PendingReplay | undefined): Promise<JoinResult> {
    let scope: JoinResult['scope'] = 'cluster'
    try {
      // Subscribed before registered: whoever is seen as a member also gets what is sent to the group.
      await this.#backplane.subscribe({ kind: 'group', name: group })
      await this.#backplane.syncMember(group, connection.id)
    } catch (error) {
      if (this.#options.policy === 'reject' || !hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT')) {
        if (added) this.#undo(connection, group, member)
        if (held !== undefined) this.#replay.drop(held)
        throw error
      }
      // It is a member all the same: without this, nobody would store what failed at its subscription.
      void this.#backplane.syncMember(group, connection.id).catch(() => {})
      this.#metrics.joinsLocal++
      scope = 'local'
    }
    // The socket may have closed meanwhile; its memberships are undone then, as they are read from the hub whenever they are stored.
    this.#assertOpen(connection)
    const result = held === undefined ? { scope } : await this.#replay.play(held, scope)
    if (added && connection.joined.get(group) === member) this.#presence.joined(connection, group, member)
    return result
  }

  /** Takes back what a failed join added, unless the connection left, or left and joined anew, meanwhile. */
  #undo (connection: LocalConnection, group: string, member: Member): void {
    if (connection.joined.get(group) !== member) return
    this.#takeOut(connection, group)
    // Nobody waits for it, as the caller is told of the failure that came first; the backplane goes on trying by itself.
    void this.#backplane.syncMember(group, connection.id).catch(() => {})
  }

  #takeOut (connection: LocalConnection, group: string): boolean {
    const last = this.#hub.leave(connection, group)
    connection.held?.delete(group)
    if (last === true) this.#backplane.unsubscribe({ kind: 'group', name: group })
    return last !== undefined
  }

  #add (connection: LocalConnection, group: string): Member {
    if (connection.joined.size >= this.#options.maxGroupsPerConnection) {
      throw new WebsocketGroupsError('WSG_TOO_MANY_GROUPS', `${connection.id} is in ${connection.joined.size}`)
    }
    const info = this.#infoOf(connection)
    const member: Member = {
      connectionId: connection.id,
      instanceId: ownerOf(connection.id) ?? '',
      ...(connection.userId === undefined ? {} : { userId: connection.userId }),
      joinedAt: Date.now(),
      ...(info === undefined ? {} : { info }),
      ...(connection.sessionName === undefined ? {} : { session: connection.sessionName })
    }
    this.#hub.join(connection, group, member)
    return member
  }

  /** As JSON keeps it, so that members here and elsewhere look alike. */
  #infoOf (connection: LocalConnection): Json | undefined {
    const text = JSON.stringify(this.#options.memberInfo?.(connection)) as string | undefined
    if (text === undefined) return undefined
    if (Buffer.byteLength(text) > maxInfoBytes) throw new WebsocketGroupsError('WSG_MEMBER_INFO_TOO_LARGE')
    return JSON.parse(text) as Json
  }

  #assertOpen (connection: LocalConnection): void {
    if (connection.closed) throw new WebsocketGroupsError('WSG_CONNECTION_GONE', connection.id)
  }

  /** A leave counts at once; the backplane stores it as soon as it can. */
  #sync (group: string, connectionId: string): Promise<void> {
    return this.#backplane.syncMember(group, connectionId).catch(ignoreUnavailable)
  }
}

/** "Not yet" is no failure where the backplane goes on trying by itself. */
function ignoreUnavailable (error: unknown): void {
  if (!hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT')) throw error
}
