import type { PresentMember } from './roster.ts'

export interface MemberEvent {
  /** `away`: the socket broke, the client may come back. */
  readonly event: 'join' | 'leave' | 'away' | 'update'
  readonly member: PresentMember
}

/** What instances tell each other. `changed`: members of a group came or went without events of their own. `resync`: of any group. */
export type PresenceEvent = MemberEvent | { readonly event: 'resync' } | { readonly event: 'changed' }

/** Reads an event that this package wrote, possibly a newer version of it; `undefined` for what this version does not know. */
export function parseEvent (command: string): PresenceEvent | undefined {
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
