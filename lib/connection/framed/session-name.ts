import { createHash } from 'node:crypto'

/**
 * The public name of a session. A session belongs to a user: a client that offers the id of another user's session gets another name, and
 * can neither pass for that user nor end the memberships of that session.
 */
export function sessionName (id: string, userId: string | undefined): string {
  const hash = createHash('sha256').update(id)
  if (userId !== undefined) hash.update(`\0${userId}`)
  return hash.digest('base64url').slice(0, 16)
}
