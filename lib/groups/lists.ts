import { keyOf, presentMember, Roster } from '../presence/roster.ts'
import type { Member, MembersOptions, PageOptions, PresenceEntry } from '../types.ts'
import { pageOf, type Page } from './pages.ts'

/** One page of a group's members, or of those of one user. Without `cursor` and `limit`: all of them. */
export function memberPage (all: readonly Member[], { userId, cursor, limit }: MembersOptions): Page<Member> {
  const members = userId === undefined ? all : all.filter(member => member.userId === userId)
  if (cursor === undefined && limit === undefined) return { items: members, cursor: undefined }
  return pageOf(members, ({ connectionId }) => connectionId, { cursor, limit })
}

/** One page of the people behind the members, of 1,000 unless `limit` is set: see `Registry.presence`. */
export function presencePage (members: readonly Member[], options: PageOptions): Page<PresenceEntry> {
  const roster = new Roster()
  for (const member of members) roster.add(presentMember(member))
  return pageOf(roster.entries() as Iterable<PresenceEntry>, keyOf, options)
}

/** A list as applications get it. */
export function listOf<Item, More extends object> (
  { items, cursor }: Page<Item>, more: More
): readonly Item[] & More & { readonly cursor?: string } {
  return Object.assign([...items], more, cursor === undefined ? {} : { cursor })
}
