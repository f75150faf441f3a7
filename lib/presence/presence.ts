import { AwayMembers, mayComeBack } from './away.ts'
import type { Backplane, Envelope } from '../backplane/backplane.ts'
import type { LocalConnection } from '../connection/connection.ts'
import type { FramedMember } from '../protocol/frames.ts'
import type { LocalMember } from '../hub/local-member.ts'
import { OutboundMessage } from '../connection/outbound/message.ts'
import type { Metrics } from '../metrics.ts'
import { PresenceCounts } from './counts.ts'
import { parseEvent, type MemberEvent } from './events.ts'
import { Leaves } from './leaves.ts'
import { MemberLists, type ListLimits, type ListRead } from './member-lists.ts'
import { PresenceNews } from './news.ts'
import { maxPeople, presentMember, Roster, type Change, type PresentMember } from './roster.ts'
import { StaleLists } from './stale-lists.ts'
import type { EnvelopeFactory } from '../delivery/envelopes.ts'

/*
 * How presence is wired: `Membership` calls `joined` once a join is announced and `left` when a leave begins; the instance hands
 * envelopes of the kind `presence` to `receive`, and calls `announceResync` when the backplane is back, or when it removed the members of a
 * dead instance.
 */

type PresenceBackplane = Pick<Backplane, 'publish' | 'count' | 'members' | 'state'>

/** What this instance keeps about a group while it has connections there whose coming and going it announces. */
interface Here {
  /** Who is in the group, while clients here are told. */
  roster: Roster | undefined
  /** By connection: resolves when its join is published. Later events must not overtake the join. */
  readonly announced: Map<LocalConnection, Promise<void>>
  readonly members: Map<LocalConnection, PresentMember>
  /** The connections whose clients are told. */
  readonly watchers: Set<LocalConnection>
}

/**
 * Tells clients of the framed protocol who is in their groups, who comes and who goes: people, however many connections each has. A client
 * whose socket breaks is `away` first. Each instance that has somebody to tell keeps a roster of the group and waits for the client by
 * itself: nothing depends on the instance that held the socket, which may be shutting down.
 */
export class Presence {
  readonly #backplane: PresenceBackplane
  readonly #news: PresenceNews
  readonly #here = new Map<string, Here>()
  readonly #leaves = new Leaves()
  readonly #away: AwayMembers
  readonly #lists: MemberLists
  readonly #counts: PresenceCounts
  readonly #stale = new StaleLists(async group => {
    this.#counts.changed(group)
    const watchers = this.#here.get(group)?.watchers ?? new Set()
    if (watchers.size > 0) await this.#lists.send(group, watchers, true)
  })

  /** Whether any route of the service tells its clients of members, or of their number. */
  readonly #routes = { lists: false, counts: false }
  #lettingGo = false

  constructor (backplane: PresenceBackplane, envelopes: EnvelopeFactory, graceMs: number, limits: ListLimits, metrics: Metrics) {
    this.#backplane = backplane
    this.#news = new PresenceNews(backplane, envelopes, {
      apply: (group, event) => this.#apply(group, event),
      changed: group => this.#changed(group),
      resync: () => this.#resync()
    })
    this.#lists = new MemberLists({
      read: async group => await backplane.members(group).then(members => members.map(presentMember), () => {
        this.#unread(group)
        return undefined
      }),
      loaded: (group, read) => this.#loaded(group, read)
    }, limits, metrics)
    this.#away = new AwayMembers(graceMs, gone => {
      for (const [group, members] of gone) for (const member of members) this.#expire(group, member)
    })
    this.#counts = new PresenceCounts(async group => await backplane.count(group).catch(() => {
      this.#unread(group)
      return -1
    }))
  }

  /** The service has a route with this option `presence`. */
  addRoute (presence: boolean | 'count'): void {
    if (presence === 'count') this.#routes.counts = true
    else this.#routes.lists ||= presence
  }

  /** The connection is in the group, and its client knows. */
  joined (joined: LocalMember): void {
    this.#leaves.after(joined.connection, joined.group, () => this.#joined(joined))
  }

  #joined ({ connection, group, member }: LocalMember): void {
    if (connection.closed) return
    if (!this.#announces(connection)) return this.#counted(connection, group)
    const shown = presentMember(member)
    const here: Here = this.#here.get(group) ?? { roster: undefined, announced: new Map(), members: new Map(), watchers: new Set() }
    this.#here.set(group, here)
    here.announced.set(connection, this.#news.announce(group, { event: 'join', member: shown }))
    here.members.set(connection, shown)
    if (connection.presence !== true || !connection.framed) return
    here.watchers.add(connection)
    here.roster ??= Roster.ofAway(this.#away.of(group), maxPeople)
    void this.#lists.send(group, [connection])
  }

  /** The connection shows other information. */
  updated ({ connection, group, member }: LocalMember): void {
    const here = this.#here.get(group)
    const announced = here?.announced.get(connection)
    if (here === undefined || announced === undefined) return this.#routes.lists ? this.#changedSilently(group) : undefined
    const shown = presentMember(member)
    here.members.set(connection, shown)
    here.announced.set(connection, announced.then(async () => await this.#news.announce(group, { event: 'update', member: shown })))
  }

  /** The connection left the group, or its socket closed. Resolves when that is `stored` and others were told; rejects as `stored` does. */
  async left (left: LocalMember, stored: Promise<void>): Promise<void> {
    const tells = this.#announces(left.connection) || this.#routes.counts
    await (tells ? this.#leaves.add(left.connection, left.group, stored, async () => await this.#left(left)) : stored)
  }

  /** Never rejects. */
  async #left ({ connection, group, member: local }: LocalMember): Promise<void> {
    if (!this.#announces(connection)) {
      this.#counts.remove(group, connection)
      return this.#changedSilently(group)
    }
    const here = this.#here.get(group)
    const [announced, member] = [here?.announced.get(connection), here?.members.get(connection)]
    if (here === undefined || announced === undefined || member === undefined) {
      // Its join was not told. Others may know its session nevertheless, as one that is away, and wait for it.
      if (connection.sessionName === undefined || mayComeBack(connection)) return undefined
      return await this.#news.announce(group, { event: 'leave', member: presentMember(local) })
    }
    here.announced.delete(connection)
    here.members.delete(connection)
    if (here.members.size === 0) this.#here.delete(group)
    if (here.watchers.delete(connection)) {
      this.#lists.cancel(group, connection)
      // Who is away is remembered: the next watcher may come before they do.
      if (here.watchers.size === 0) here.roster = undefined
    }
    const isAway = mayComeBack(connection)
    // The subscription by which this instance would hear of it may end with its last member.
    if (isAway && here.roster === undefined) this.#away.add(group, member)
    await announced
    const handedOver = isAway && this.#lettingGo ? this.#news.handOver(group, member) : undefined
    await this.#news.announce(group, { event: isAway ? 'away' : 'leave', member })
    await handedOver
  }

  /** Takes an event from an instance, this one included. Never throws. */
  receive ({ command, target }: Envelope): void {
    const event = parseEvent(command)
    if (event === undefined) return
    if (event.event === 'resync') return this.#resync()
    if (event.event === 'changed') return this.#changed(target.name)
    if (event.event === 'handover') {
      // Where clients here are told of the group, the `away` event did this already.
      for (const [group, member] of event.away) if (this.#here.get(group)?.roster === undefined) this.#away.add(group, member)
      return
    }
    this.#counts.changed(target.name)
    this.#apply(target.name, event)
  }

  /** Memberships changed without events: asks every instance to read the lists of its groups again. */
  announceResync (): void {
    this.#news.resync()
  }

  /** This instance shuts down: whoever leaves from now on may come back to an instance that has nobody else in the group. */
  letGo (): void {
    this.#lettingGo = true
  }

  stats (): Record<string, number> {
    let lists = 0
    for (const { roster } of this.#here.values()) if (roster !== undefined) lists++
    return { presenceGroups: lists + this.#counts.size, presenceAway: this.#away.size }
  }

  close (): void {
    this.#stale.close()
    this.#away.close()
    this.#counts.close()
    this.#news.close()
  }

  /**
   * Lists show the connections of all routes. So if any route has lists, all connections are announced, except those that are only counted.
   */
  #announces ({ presence }: LocalConnection): boolean {
    return presence === true || (presence === false && this.#routes.lists)
  }

  #counted (connection: LocalConnection, group: string): void {
    if (connection.presence === 'count' && connection.framed) this.#counts.add(group, connection)
    this.#changedSilently(group)
  }

  #changedSilently (group: string): void {
    if (this.#routes.counts) this.#news.changed(group)
  }

  /** Members came or went without events. */
  #changed (group: string): void {
    this.#counts.changed(group)
    if (this.#here.get(group)?.roster !== undefined) this.#stale.add([group])
  }

  /** Events may have been missed: sends lists and counts anew, soon. */
  #resync (): void {
    this.#stale.add(this.#counts.groups())
    for (const [group, { roster }] of this.#here) if (roster !== undefined) this.#stale.add([group])
  }

  /** The group could not be read: tries again, unless the backplane is down. When it is back, all groups are read. */
  #unread (group: string): void {
    if (this.#backplane.state !== 'down') this.#stale.retry(group)
  }

  #apply (group: string, event: MemberEvent): void {
    const roster = this.#here.get(group)?.roster
    const { member } = event
    if (event.event !== 'away') this.#away.remove(group, member.session)
    else if (roster === undefined) this.#away.add(group, member)
    // A list that is being read for clients that left meanwhile is also the first one of those that came since.
    this.#lists.record(group, event)
    if (roster === undefined) return
    switch (event.event) {
      case 'join':
        return this.#tell(group, roster, roster.add(member))
      case 'update':
        return this.#tell(group, roster, roster.update(member))
      case 'leave':
        return this.#tell(group, roster, roster.remove(member, false))
      case 'away': {
        const change = roster.remove(member, true)
        if (roster.isAway(member)) this.#away.add(group, member)
        this.#tell(group, roster, change)
      }
    }
  }

  /** Announces that a member left, because its client did not come back. */
  #expire (group: string, member: PresentMember): void {
    const roster = this.#here.get(group)?.roster
    if (roster !== undefined) this.#tell(group, roster, roster.expire(member))
  }

  #tell (group: string, roster: Roster, change: Change | undefined): void {
    if (change === undefined) return
    const outgoing = OutboundMessage.ofFrame({ type: 'presence', group, ...change, count: roster.size })
    for (const connection of this.#here.get(group)?.watchers ?? []) {
      if (!this.#lists.isPending(group, connection)) connection.outbound.enqueueShared(outgoing)
    }
  }

  /**
   * The stored members were read: builds the roster from them, from the members here that are not (or not yet again) stored, and from the
   * events during the read. A connection missing from the list stays until its leave, which says whether its client may come back.
   */
  #loaded (group: string, { anew, stored, events }: ListRead): Iterable<FramedMember> {
    const { roster, members } = this.#here.get(group) ?? {}
    if (roster === undefined || members === undefined) return []
    const gone = new Set(events.filter(({ event }) => event === 'leave' || event === 'away').map(({ member }) => member.connectionId))
    const present = [...(stored ?? []).filter(({ connectionId }) => !gone.has(connectionId)), ...members.values()]
    if (anew && stored !== undefined) {
      const came = events.filter(({ event }) => event === 'join').map(({ member }) => member.connectionId)
      roster.keepOnly(new Set([...present.map(({ connectionId }) => connectionId), ...came]))
    }
    for (const member of present) {
      this.#away.remove(group, member.session)
      this.#tell(group, roster, roster.add(member))
    }
    return roster.entries()
  }
}
