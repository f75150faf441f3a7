import type { FramedMember } from '../protocol/frames.ts'
import type { Member } from '../types.ts'

/** One connection in a group, as instances tell each other. */
export interface PresentMember extends Omit<Member, 'instanceId' | 'session'> {
  /** The public name of its session; the connection's id where there is no session. */
  readonly session: string
}

export interface Change { readonly event: 'join' | 'leave' | 'update', readonly member: FramedMember }

/** An entry of the roster: a user with all of its sessions, or one session without a user. */
interface Person {
  readonly userId: string | undefined
  joinedAt: number
  /** The connections of each session, by id; none while the session is away. */
  readonly sessions: Map<string, Map<string, PresentMember>>
  latest: PresentMember
  /** The entry that clients were told last, as JSON; '' before they were told any. */
  told: string
}

/** A group with more people than this shows these: later people are neither announced nor counted. */
export const maxPeople = 20_000

export function presentMember ({ instanceId, session, ...member }: Member): PresentMember {
  return { ...member, session: session ?? member.connectionId }
}

/**
 * Who is in one group: one entry per user, and one per session where there is no user id, however many connections they have. Each method
 * that changes something returns what clients are to be told of it; `undefined` when for them nothing changed.
 */
export class Roster {
  readonly #people = new Map<string, Person>()
  readonly #maxPeople: number

  constructor (maxPeople = Infinity) {
    this.#maxPeople = maxPeople
  }

  /** Makes a roster of people who are away, and may come back. */
  static ofAway (members: Iterable<PresentMember>, maxPeople: number): Roster {
    const roster = new Roster(maxPeople)
    for (const member of members) roster.remove(member, true)
    return roster
  }

  get size (): number {
    return this.#people.size
  }

  /** The connection joined, or shows other information. */
  add (member: PresentMember): Change | undefined {
    const key = keyOf(member)
    let person = this.#people.get(key)
    if (person === undefined) {
      // People who are not remembered are not announced: nobody could tell when they left.
      if (this.#people.size >= this.#maxPeople) return undefined
      this.#people.set(key, person = newPerson(member))
    }
    const connections = connectionsOf(person, member.session)
    const known = connections.get(member.connectionId)
    // A list may be older than the events since it was read.
    if (known === undefined || comparedByShown(known, member) <= 0) connections.set(member.connectionId, member)
    return told(person)
  }

  /** As `add`, but only for a known connection. */
  update (member: PresentMember): Change | undefined {
    const known = this.#people.get(keyOf(member))?.sessions.get(member.session)?.has(member.connectionId)
    return known === true ? this.add(member) : undefined
  }

  /** The connection left. With `away` its session stays without a connection, as the client may come back. */
  remove (member: PresentMember, away: boolean): Change | undefined {
    const key = keyOf(member)
    let person = this.#people.get(key)
    if (person === undefined) {
      if (!away || this.#people.size >= this.#maxPeople) return undefined
      // Its join was missed: show the person for as long as the other instances do.
      this.#people.set(key, person = newPerson(member))
    }
    const connections = connectionsOf(person, member.session)
    connections.delete(member.connectionId)
    if (connections.size === 0 && !away) person.sessions.delete(member.session)
    return this.#gone(key, person) ?? told(person)
  }

  /** Whether the session has no connection now, and may come back. */
  isAway (member: PresentMember): boolean {
    return this.#people.get(keyOf(member))?.sessions.get(member.session)?.size === 0
  }

  /** Removes a member whose session did not come back. */
  expire (member: PresentMember): Change | undefined {
    return this.isAway(member) ? this.remove(member, false) : undefined
  }

  /** Forgets all connections except these, and the people who have no other connection; sessions that are away stay. */
  keepOnly (connectionIds: ReadonlySet<string>): void {
    for (const [key, person] of this.#people) {
      for (const [session, connections] of person.sessions) {
        if (connections.size === 0) continue
        for (const id of connections.keys()) if (!connectionIds.has(id)) connections.delete(id)
        if (connections.size === 0) person.sessions.delete(session)
      }
      if (person.sessions.size === 0) this.#people.delete(key)
    }
  }

  * entries (): Iterable<FramedMember> {
    for (const person of this.#people.values()) yield entryOf(person)
  }

  #gone (key: string, person: Person): Change | undefined {
    if (person.sessions.size > 0) return undefined
    this.#people.delete(key)
    return { event: 'leave', member: { ...entryOf(person), connections: 0 } }
  }
}

/** User ids and session names cannot be confused. */
export function keyOf ({ userId, session }: Pick<FramedMember, 'userId' | 'session'>): string {
  return userId === undefined ? `s${session}` : `u${userId}`
}

function newPerson (member: PresentMember): Person {
  return { userId: member.userId, joinedAt: member.joinedAt, sessions: new Map(), latest: member, told: '' }
}

function connectionsOf ({ sessions }: Person, session: string): Map<string, PresentMember> {
  let connections = sessions.get(session)
  if (connections === undefined) sessions.set(session, connections = new Map())
  return connections
}

function told (person: Person): Change | undefined {
  const member = entryOf(person)
  const text = JSON.stringify(member)
  if (text === person.told) return undefined
  const event = person.told === '' ? 'join' : 'update'
  person.told = text
  return { event, member }
}

/** Shows what the person's latest connection shows, or the connection whose information was set last. */
function entryOf (person: Person): FramedMember {
  let latest: PresentMember | undefined
  for (const connections of person.sessions.values()) {
    for (const member of connections.values()) {
      if (member.joinedAt < person.joinedAt) person.joinedAt = member.joinedAt
      if (latest === undefined || comparedByShown(member, latest) >= 0) latest = member
    }
  }
  // While all sessions are away, the person is shown as before.
  person.latest = latest ?? person.latest
  const { userId, joinedAt, sessions, latest: { info, session } } = person
  return {
    ...(userId === undefined ? { session } : { userId }),
    joinedAt,
    ...(info === undefined ? {} : { info }),
    connections: sessions.size
  }
}

/** Positive when the first is newer. In the same millisecond, information that was set counts as newer than information shown at a join. */
function comparedByShown (first: PresentMember, second: PresentMember): number {
  const byTime = (first.infoAt ?? first.joinedAt) - (second.infoAt ?? second.joinedAt)
  return byTime === 0 ? Number(first.infoAt !== undefined) - Number(second.infoAt !== undefined) : byTime
}
