import { AwayMembers } from './away.ts'
import type { Backplane, Envelope, Target } from '../backplane/backplane.ts'
import { CloseCode } from '../protocol/close-codes.ts'
import type { LocalConnection } from '../connection/connection.ts'
import type { FramedMember } from '../protocol/frames.ts'
import type { LocalMember } from '../hub/local-member.ts'
import { OutboundMessage } from '../connection/outbound/message.ts'
import type { Metrics } from '../metrics.ts'
import { MemberLists, type Change, type ListLimits } from './member-lists.ts'
import type { EnvelopeFactory } from '../delivery/envelopes.ts'

/*
 * How presence is wired: `Membership` calls `joined` once a join is announced and `left` once a leave is stored; the instance hands
 * envelopes of the kind `presence` to `receive`, and calls `announceResync` when the backplane is back, or when it removed the members of a
 * dead instance.
 */

/** What a close without a code counts as: RFC 6455 7.1.5. */
const noStatus = 1005
/** After these a client does not come back: one of the two is done, or the client is wrong, or somebody else's. */
const finalCodes: ReadonlySet<number> = new Set([CloseCode.Normal, noStatus, CloseCode.BadFrame, CloseCode.OtherUser])
/** How many groups are read at the same time after an outage. */
const resyncBatch = 8
const maxResyncDelayMs = 1_000

/** What instances tell each other. `away`: its socket broke, it may come back. `resync`: events may have been missed. */
type Event =
  | { readonly event: 'join' | 'leave' | 'away', readonly member: FramedMember, readonly count: number }
  | { readonly event: 'resync' }

interface Here {
  readonly member: FramedMember
  /** Resolves when the join is published: later events must not overtake it. */
  readonly announced: Promise<void>
  /** The client is in the group with a newer connection. */
  superseded: boolean
}

/**
 * Tells clients of the framed protocol who is in their groups, who comes and who goes. A client whose socket breaks is `away` first. Each
 * instance that has somebody to tell waits for the client by itself: nothing depends on the instance that held the socket, which may be
 * shutting down.
 */
export class Presence {
  readonly #backplane: Pick<Backplane, 'publish' | 'count' | 'members'>
  readonly #envelopes: EnvelopeFactory
  readonly #here = new Map<string, Map<LocalConnection, Here>>()
  /** Leaves that are being announced, by connection and group: a join that follows must not overtake them. */
  readonly #leaving = new Map<string, Promise<void>>()
  readonly #away: AwayMembers
  readonly #lists: MemberLists
  #resyncTimer: NodeJS.Timeout | undefined
  #closed = false

  constructor (
    backplane: Pick<Backplane, 'publish' | 'count' | 'members'>, envelopes: EnvelopeFactory, graceMs: number, limits: ListLimits,
    metrics: Metrics
  ) {
    this.#backplane = backplane
    this.#lists = new MemberLists(async group => await this.#members(group), limits, metrics)
    this.#envelopes = envelopes
    this.#away = new AwayMembers(graceMs, gone => {
      for (const [group, members] of gone) void this.#giveUp(group, members)
    })
  }

  /** The connection is in the group, and its client knows. */
  joined ({ connection, group, member: { instanceId, ...member } }: LocalMember): void {
    if (!connection.presence || connection.closed) return
    const shown: FramedMember = { ...member, session: member.session ?? connection.id }
    let here = this.#here.get(group)
    if (here === undefined) this.#here.set(group, here = new Map())
    const leaving = this.#leaving.get(`${connection.id} ${group}`) ?? Promise.resolve()
    const announced = leaving.then(async () => await this.#announce(group, 'join', shown))
    here.set(connection, { member: shown, announced, superseded: false })
    if (connection.framed) void this.#lists.send(group, [connection])
  }

  /** The connection left the group, or its socket closed. Resolves when others were told; never rejects. */
  async left (connection: LocalConnection, group: string): Promise<void> {
    const here = this.#here.get(group)
    const gone = here?.get(connection)
    if (here === undefined || gone === undefined) return
    here.delete(connection)
    this.#lists.cancel(group, connection)
    if (here.size === 0) {
      this.#here.delete(group)
      this.#away.drop(group)
    }
    const { closeCode, dismissed, sessionName } = connection
    const mayComeBack = !dismissed && closeCode !== undefined && !finalCodes.has(closeCode) && sessionName !== undefined
    const key = `${connection.id} ${group}`
    const leaving = gone.announced.then(async () => {
      if (!gone.superseded) await this.#announce(group, mayComeBack ? 'away' : 'leave', gone.member)
      if (this.#leaving.get(key) === leaving) this.#leaving.delete(key)
    })
    this.#leaving.set(key, leaving)
    await leaving
  }

  /** Takes an event from an instance, this one included. Never throws. */
  receive ({ command, target }: Envelope): void {
    const event = parse(command)
    if (event?.event === 'resync') this.#resync()
    else if (event !== undefined) this.#apply(target.name, event)
  }

  /** Memberships changed without events: tells every instance to read the lists of its groups again. */
  announceResync (): void {
    const target: Target = { kind: 'all', name: '' }
    void this.#publish(target, { event: 'resync' }).catch(() => this.#resync())
  }

  /** Events may have been missed: sends the lists again, soon. */
  #resync (): void {
    if (this.#closed || this.#here.size === 0) return
    // Not on all instances at the same moment, and once for all reasons that come together.
    this.#resyncTimer ??= setTimeout(() => {
      this.#resyncTimer = undefined
      void this.#resyncAll()
    }, Math.random() * maxResyncDelayMs).unref()
  }

  stats (): Record<string, number> {
    return { presenceGroups: this.#here.size, presenceAway: this.#away.size }
  }

  close (): void {
    this.#closed = true
    clearTimeout(this.#resyncTimer)
    this.#away.close()
  }

  async #resyncAll (): Promise<void> {
    const groups = [...this.#here.keys()]
    for (let start = 0; start < groups.length; start += resyncBatch) {
      const batch = groups.slice(start, start + resyncBatch)
      await Promise.all(batch.map(async group => await this.#lists.send(group, this.#watchers(group))))
    }
  }

  /** Publishes the event. Never rejects: without the backplane the clients here are told. */
  async #announce (group: string, event: 'join' | 'leave' | 'away', member: FramedMember): Promise<void> {
    const told = { event, member, count: event === 'away' ? -1 : await this.#count(group) }
    await this.#publish({ kind: 'group', name: group }, told).catch(() => this.#apply(group, told))
  }

  async #publish (target: Target, event: Event): Promise<void> {
    await this.#backplane.publish([target], this.#envelopes.command('presence', target, JSON.stringify(event)))
  }

  #apply (group: string, { event, member, count }: Exclude<Event, { event: 'resync' }>): void {
    if (!this.#here.has(group)) return
    if (event === 'away') return this.#away.add(group, member)
    const back = this.#away.remove(group, member.session)
    if (event === 'join') this.#supersede(group, member)
    this.#tell(group, { event, member }, count, back)
  }

  /** A client may be back before this instance noticed that its old socket is dead. */
  #supersede (group: string, { session, connectionId }: FramedMember): void {
    for (const here of this.#here.get(group)?.values() ?? []) {
      if (here.member.session === session && here.member.connectionId !== connectionId) here.superseded = true
    }
  }

  #tell (group: string, change: Change, count: number, back: boolean): void {
    this.#lists.record(group, change)
    const { event, member } = change
    // A client that is away still counts: to the others it never left.
    const shown = count < 0 ? -1 : count + this.#away.count(group)
    const isBack = back && event === 'join'
    const outgoing = OutboundMessage.ofFrame({ type: 'presence', group, event, member, count: shown, ...(isBack ? { back } : {}) })
    for (const connection of this.#watchers(group)) {
      if (connection.id !== member.connectionId && !this.#lists.isPending(group, connection)) connection.outbound.enqueueShared(outgoing)
    }
  }

  async #giveUp (group: string, members: readonly FramedMember[]): Promise<void> {
    const count = await this.#count(group)
    for (const member of members) this.#tell(group, { event: 'leave', member }, count, false)
  }

  * #watchers (group: string): Iterable<LocalConnection> {
    for (const connection of this.#here.get(group)?.keys() ?? []) if (connection.framed) yield connection
  }

  async #count (group: string): Promise<number> {
    return await this.#backplane.count(group).catch(() => -1)
  }

  /** The stored members; those here that are not stored, or not stored again; and those who are away, whom everyone else still shows. */
  async #members (group: string): Promise<FramedMember[]> {
    const stored = await this.#backplane.members(group).then(
      members => members.map(({ instanceId, session, ...member }) => ({ ...member, session: session ?? member.connectionId })),
      () => []
    )
    const ids = new Set(stored.map(({ connectionId }) => connectionId))
    const allHere = Array.from(this.#here.get(group)?.values() ?? [], ({ member }) => member)
    const here = allHere.filter(({ connectionId }) => !ids.has(connectionId))
    const sessions = new Set([...stored, ...here].map(({ session }) => session))
    return [...stored, ...here, ...this.#away.of(group).filter(({ session }) => !sessions.has(session))]
  }
}

/** The event was written by this package, maybe by a newer version of it. */
function parse (command: string): Event | undefined {
  try {
    const event = JSON.parse(command) as Partial<Record<'event' | 'member' | 'count', unknown>> | null
    if (event?.event === 'resync') return { event: 'resync' }
    const known = event?.event === 'join' || event?.event === 'leave' || event?.event === 'away'
    const member = event?.member as Partial<FramedMember> | undefined
    return known && typeof member?.connectionId === 'string' && typeof member.session === 'string' ? event as Event : undefined
  } catch {
    return undefined
  }
}
