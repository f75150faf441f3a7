import type { Member, PresenceChange } from './types.ts'

/** The members of each group, as the server tells them: one for each user, or for each session that belongs to none. */
export class Roster {
  readonly #groups = new Map<string, Map<string, Member>>()
  /** The lists that were given out, until they change. */
  readonly #lists = new Map<string, readonly Member[]>()

  members (group: string): readonly Member[] {
    const list = this.#lists.get(group) ?? [...this.#groups.get(group)?.values() ?? []]
    this.#lists.set(group, list)
    return list
  }

  replace (group: string, members: readonly Member[]): void {
    this.#lists.delete(group)
    this.#groups.set(group, new Map(members.map(member => [keyOf(member), member])))
  }

  /** Returns the event as this client sees it: a join of a member who is known here is an update. */
  change ({ group, event, member }: PresenceChange): PresenceChange['event'] {
    this.#lists.delete(group)
    const members = this.#groups.get(group) ?? new Map<string, Member>()
    this.#groups.set(group, members)
    const key = keyOf(member)
    const isKnown = members.has(key)
    if (event === 'leave') members.delete(key)
    else members.set(key, member)
    return event === 'join' && isKnown ? 'update' : event
  }

  delete (group: string): void {
    this.#lists.delete(group)
    this.#groups.delete(group)
  }
}

/** The two kinds of names must not meet. */
function keyOf ({ userId, session }: Member): string {
  return userId === undefined ? `s${session}` : `u${userId}`
}
