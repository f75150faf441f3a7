import type { Audience, Envelope } from '../backplane/backplane.ts'
import type { Tags } from '../connection/tags.ts'

/** What the check needs of a connection. */
interface Excludable {
  readonly id: string
  readonly sessionName?: string | undefined
  readonly userId?: string | undefined
  isIn (group: string): boolean
  readonly tags?: Tags | undefined
}

/** Tells whether the message must not go to this connection, although the connection is behind the message's target. */
export type Exclusion<Connection extends Excludable = Excludable> = (connection: Connection) => boolean

/** The fields of a message that say who does not get it. */
export type Exclusive = Pick<Envelope, 'except' | 'audience'>

/** Made once per message, so that most messages cost nothing per recipient: `undefined` means that nobody is excluded. */
export function exclusionOf ({ except, audience }: Exclusive): Exclusion | undefined {
  const named = except.length === 0 ? undefined : new Set(except)
  if (audience === undefined) return named === undefined ? undefined : connection => isNamed(connection, named)
  const users = new Set(audience.exceptUsers)
  return connection => (named !== undefined && isNamed(connection, named)) || isOutside(connection, audience, users)
}

/**
 * Whether the connection, or its session, is in the list. A connection id has a dot in it and the name of a session has none, so one list
 * holds both.
 */
function isNamed ({ id, sessionName }: Excludable, names: ReadonlySet<string>): boolean {
  return names.has(id) || (sessionName !== undefined && names.has(sessionName))
}

function isOutside (connection: Excludable, { exceptGroups = [], tags, taggedIn }: Audience, exceptUsers: ReadonlySet<string>): boolean {
  if (connection.userId !== undefined && exceptUsers.has(connection.userId)) return true
  if (exceptGroups.some(group => connection.isIn(group))) return true
  return tags !== undefined && tags.length > 0 && connection.tags?.includes(tags, taggedIn) !== true
}
