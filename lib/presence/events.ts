import type { PresentMember } from './roster.ts'

export interface MemberEvent {
  /** `away`: the socket broke, the client may come back. */
  readonly event: 'join' | 'leave' | 'away' | 'update'
  readonly member: PresentMember
}

/** Who is away, with the group. */
export type Absence = readonly [group: string, member: PresentMember]

/**
 * What instances tell each other. `changed`: members of a group came or went without events of their own. `resync`: of any group.
 * `handover`: an instance that shuts down lets go of these, who may come back.
 */
export type PresenceEvent =
  | MemberEvent
  | { readonly event: 'resync' }
  | { readonly event: 'changed' }
  | { readonly event: 'handover', readonly away: readonly Absence[] }

/** Reads an event that this package wrote, possibly a newer version of it; `undefined` for what this version does not know. */
export function parseEvent (command: string): PresenceEvent | undefined {
  try {
    const { event, member, away } = JSON.parse(command) as Partial<Record<'event' | 'member' | 'away', unknown>>
    if (event === 'resync' || event === 'changed') return { event }
    if (event === 'handover') return Array.isArray(away) ? { event, away: away.filter(isAbsence) } : undefined
    const known = event === 'join' || event === 'leave' || event === 'away' || event === 'update'
    return known && isMember(member) ? { event, member } : undefined
  } catch {
    return undefined
  }
}

function isAbsence (value: unknown): value is Absence {
  return Array.isArray(value) && typeof value[0] === 'string' && isMember(value[1])
}

function isMember (value: unknown): value is PresentMember {
  const { connectionId, session } = (value ?? {}) as Partial<PresentMember>
  return typeof connectionId === 'string' && typeof session === 'string'
}
