import { AwayMembers } from './away.ts'
import type { Backplane, Envelope, Target } from '../backplane/backplane.ts'
import { CloseCode } from '../protocol/close-codes.ts'
import type { LocalConnection } from '../connection/connection.ts'
import type { FramedMember } from '../protocol/frames.ts'
import type { LocalMember } from '../hub/local-member.ts'
import { OutboundMessage } from '../connection/outbound/message.ts'
import type { Metrics } from '../metrics.ts'
import { PresenceCounts, Spaced } from './counts.ts'
import { MemberLists, type ListLimits, type ListRead } from './member-lists.ts'
import { maxPeople, presentMember, Roster, type Change, type PresentMember } from './roster.ts'
import type { EnvelopeFactory } from '../delivery/envelopes.ts'

/*
 * How presence is wired: `Membership` calls `joined` once a join is announced and `left` once a leave is stored; the instance hands
 * envelopes of the kind `presence` to `receive`, and calls `announceResync` when the backplane is back, or when it removed the members of a
 * dead instance.
 */

/** RFC 6455 7.1.5: the code of a close without one. */
const noStatus = 1005
/** Clients do not come back after these: one side is done, or the client is at fault or belongs to another user. */
const finalCodes: ReadonlySet<number> = new Set([CloseCode.Normal, noStatus, CloseCode.BadFrame, CloseCode.OtherUser])
/** How many groups are read at the same time after an outage. */
const resyncBatch = 8
const maxResyncDelayMs = 1_000

/** What instances tell each other. `away`: the socket broke, the client may come back. `resync`: events may have been missed. */
type Event = MemberEvent | { readonly event: 'resync' } | { readonly event: 'changed' }
interface MemberEvent { readonly event: 'join' | 'leave' | 'away' | 'update', readonly member: PresentMember }

/** What this instance keeps about a group while its clients here are told who is in it. */
interface Here {
  readonly roster: Roster
  /** By connection: resolves when its join is published. Later events must not overtake the join. */
  readonly announced: Map<LocalConnection, Promise<void>>
  readonly members: Map<LocalConnection, PresentMember>
}

/**
 * Tells clients of the framed protocol who is in their groups, who comes and who goes: people, however many connections each has. A client
 * whose socket breaks is `away` first. Each instance that has somebody to tell keeps a roster of the group and waits for the client by
 * itself: nothing depends on the instance that held the socket, which may be shutting down.
 */
export class Presence {
  readonly #backplane: Pick<Backplane, 'publish' | 'count' | 'members'>
  readonly #envelopes: EnvelopeFactory
  readonly #here = new Map<string, Here>()
  /** Leaves that are being announced, by connection and group. A join that follows must not overtake them. */
  readonly #leaving = new Map<string, Promise<void>>()
  readonly #away: AwayMembers
  readonly #lists: MemberLists
  readonly #counts: PresenceCounts
  /** Tells the other instances that the count of a group changed. */
  readonly #countNews = new Spaced(group => {
    void this.#publish({ kind: 'group', name: group }, { event: 'changed' }).catch(() => this.#counts.changed(group))
  })

  #resyncTimer: NodeJS.Timeout | undefined
  #closed = false

  constructor (
    backplane: Pick<Backplane, 'publish' | 'count' | 'members'>, envelopes: EnvelopeFactory, graceMs: number, limits: ListLimits,
    metrics: Metrics
  ) {
    this.#backplane = backplane
    this.#lists = new MemberLists({
      read: async group => await backplane.members(group).then(members => members.map(presentMember), () => undefined),
      loaded: (group, read) => this.#loaded(group, read)
    }, limits, metrics)
    this.#envelopes = envelopes
    this.#away = new AwayMembers(graceMs, gone => {
      for (const [group, members] of gone) for (const member of members) this.#expire(group, member)
    })
    this.#counts = new PresenceCounts(async group => await backplane.count(group).catch(() => -1))
  }

  /** The connection is in the group, and its client knows. */
  joined ({ connection, group, member }: LocalMember): void {
    if (connection.presence === false || connection.closed) return
    if (connection.presence === 'count') return this.#counted(connection, group)
    const shown = presentMember(member)
    let here = this.#here.get(group)
    if (here === undefined) this.#here.set(group, here = { roster: new Roster(maxPeople), announced: new Map(), members: new Map() })
    const leaving = this.#leaving.get(`${connection.id} ${group}`) ?? Promise.resolve()
    here.announced.set(connection, leaving.then(async () => await this.#announce(group, { event: 'join', member: shown })))
    here.members.set(connection, shown)
    if (connection.framed) void this.#lists.send(group, [connection])
  }

  /** The connection shows other information. */
  updated ({ connection, group, member }: LocalMember): void {
    const here = this.#here.get(group)
    const announced = here?.announced.get(connection)
    if (here === undefined || announced === undefined) return
    const shown = presentMember(member)
    here.members.set(connection, shown)
    here.announced.set(connection, announced.then(async () => await this.#announce(group, { event: 'update', member: shown })))
  }

  /** The connection left the group, or its socket closed. Resolves when others were told; never rejects. */
  async left (connection: LocalConnection, group: string): Promise<void> {
    if (connection.presence === 'count') return this.#uncounted(connection, group)
    const here = this.#here.get(group)
    const [announced, member] = [here?.announced.get(connection), here?.members.get(connection)]
    if (here === undefined || announced === undefined || member === undefined) return
    here.announced.delete(connection)
    here.members.delete(connection)
    this.#lists.cancel(group, connection)
    if (here.members.size === 0) {
      this.#here.delete(group)
      this.#away.drop(group)
    }
    const { closeCode, dismissed, sessionName } = connection
    const mayComeBack = !dismissed && closeCode !== undefined && !finalCodes.has(closeCode) && sessionName !== undefined
    const key = `${connection.id} ${group}`
    const leaving = announced.then(async () => {
      await this.#announce(group, { event: mayComeBack ? 'away' : 'leave', member })
      if (this.#leaving.get(key) === leaving) this.#leaving.delete(key)
    })
    this.#leaving.set(key, leaving)
    await leaving
  }

  /** Takes an event from an instance, this one included. Never throws. */
  receive ({ command, target }: Envelope): void {
    const event = parse(command)
    if (event === undefined) return
    if (event.event === 'resync') return this.#resync()
    this.#counts.changed(target.name)
    if (event.event !== 'changed') this.#apply(target.name, event)
  }

  /** Memberships changed without events: asks every instance to read the lists of its groups again. */
  announceResync (): void {
    const target: Target = { kind: 'all', name: '' }
    void this.#publish(target, { event: 'resync' }).catch(() => this.#resync())
  }

  stats (): Record<string, number> {
    return { presenceGroups: this.#here.size + this.#counts.size, presenceAway: this.#away.size }
  }

  close (): void {
    this.#closed = true
    clearTimeout(this.#resyncTimer)
    this.#away.close()
    this.#counts.close()
    this.#countNews.close()
  }

  #counted (connection: LocalConnection, group: string): void {
    if (connection.framed) this.#counts.add(group, connection)
    if (!this.#closed) this.#countNews.want(group)
  }

  #uncounted (connection: LocalConnection, group: string): void {
    this.#counts.remove(group, connection)
    if (!this.#closed) this.#countNews.want(group)
  }

  /** Events may have been missed: sends the lists anew, soon. */
  #resync (): void {
    if (this.#closed || (this.#here.size === 0 && this.#counts.size === 0)) return
    // Spread over time, so that not all instances read at the same moment; once for all reasons that come together.
    this.#resyncTimer ??= setTimeout(() => {
      this.#resyncTimer = undefined
      this.#counts.changedAll()
      void this.#resyncAll()
    }, Math.random() * maxResyncDelayMs).unref()
  }

  async #resyncAll (): Promise<void> {
    const groups = [...this.#here.keys()]
    for (let start = 0; start < groups.length; start += resyncBatch) {
      const batch = groups.slice(start, start + resyncBatch)
      await Promise.all(batch.map(async group => await this.#lists.send(group, this.#watchers(group), true)))
    }
  }

  /** Publishes the event. Never rejects: without the backplane only the clients here are told. */
  async #announce (group: string, event: MemberEvent): Promise<void> {
    await this.#publish({ kind: 'group', name: group }, event).catch(() => this.#apply(group, event))
  }

  async #publish (target: Target, event: Event): Promise<void> {
    await this.#backplane.publish([target], this.#envelopes.command('presence', target, JSON.stringify(event)))
  }

  #apply (group: string, event: MemberEvent): void {
    const roster = this.#here.get(group)?.roster
    if (roster === undefined) return
    this.#lists.record(group, event)
    const { member } = event
    switch (event.event) {
      case 'join':
        this.#away.remove(group, member.session)
        return this.#tell(group, roster, roster.add(member))
      case 'update':
        return this.#tell(group, roster, roster.update(member))
      case 'leave':
        this.#away.remove(group, member.session)
        return this.#tell(group, roster, roster.remove(member, false))
      case 'away': {
        const change = roster.remove(member, true)
        if (roster.isAway(member)) this.#away.add(group, member)
        this.#tell(group, roster, change)
      }
    }
  }

  /** The client did not come back. */
  #expire (group: string, member: PresentMember): void {
    const roster = this.#here.get(group)?.roster
    if (roster !== undefined) this.#tell(group, roster, roster.expire(member))
  }

  #tell (group: string, roster: Roster, change: Change | undefined): void {
    if (change === undefined) return
    const outgoing = OutboundMessage.ofFrame({ type: 'presence', group, ...change, count: roster.size })
    for (const connection of this.#watchers(group)) {
      if (!this.#lists.isPending(group, connection)) connection.outbound.enqueueShared(outgoing)
    }
  }

  /**
   * The stored members were read: builds the roster from them, from the members here that are not (or not yet again) stored, and from the
   * events during the read. A connection missing from the list stays until its leave, which says whether its client may come back.
   */
  #loaded (group: string, { anew, stored, events }: ListRead): Iterable<FramedMember> {
    const here = this.#here.get(group)
    if (here === undefined) return []
    const { roster, members } = here
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

  * #watchers (group: string): Iterable<LocalConnection> {
    for (const connection of this.#here.get(group)?.members.keys() ?? []) if (connection.framed) yield connection
  }
}

/** This package wrote the event, possibly a newer version of it. */
function parse (command: string): Event | undefined {
  try {
    const { event, member } = JSON.parse(command) as Partial<Record<'event' | 'member', unknown>>
    if (event === 'resync' || event === 'changed') return { event }
    const known = event === 'join' || event === 'leave' || event === 'away' || event === 'update'
    const { connectionId, session } = (member ?? {}) as Partial<PresentMember>
    return known && typeof connectionId === 'string' && typeof session === 'string' ? { event, member: member as PresentMember } : undefined
  } catch {
    return undefined
  }
}
