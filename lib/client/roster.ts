import type { Member, PresenceChange } from './types.ts'

/** The members of each group, as the server tells them: one for each session. */
export class Roster {
  readonly #groups = new Map<string, Map<string, Member>>()

  members (group: string): Member[] {
    return [...this.#groups.get(group)?.values() ?? []]
  }

  replace (group: string, members: readonly Member[]): void {
    // A session that just came back may be listed with its old connection, too: the later one counts.
    const oldestFirst = [...members].sort((a, b) => a.joinedAt - b.joinedAt)
    this.#groups.set(group, new Map(oldestFirst.map(member => [member.session, member])))
  }

  /**
   * Returns whether the change is news. The leave of a connection whose session is back on another one is not, nor the join of a session
   * that is here already.
   */
  change ({ group, event, member }: PresenceChange): boolean {
    const bySession = this.#groups.get(group) ?? new Map<string, Member>()
    this.#groups.set(group, bySession)
    const known = bySession.get(member.session)
    if (event === 'join') {
      bySession.set(member.session, member)
      return !known
    }
    if (known && known.connectionId !== member.connectionId) return false
    bySession.delete(member.session)
    return true
  }

  delete (group: string): void {
    this.#groups.delete(group)
  }
}
