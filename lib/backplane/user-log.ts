import { userLogLabel } from '../protocol/frames.ts'

/*
 * Messages to a user may go through a log, as those to a group do. The name of that log begins with a control character, so no group has
 * the same name. Clients know the log by a label that is the same for all users, as each client has one user.
 */

const mark = '\0'
/** Names travel with their length in one byte. */
const maxNameBytes = 255

/** The name of the user's log; `undefined` for an id that leaves no room for it: such a user has no log. */
export function userLogOf (userId: string): string | undefined {
  return Buffer.byteLength(userId) < maxNameBytes ? mark + userId : undefined
}

/** The user whose log has this name; `undefined` for groups. */
export function userOfLog (name: string): string | undefined {
  return name.startsWith(mark) ? name.slice(mark.length) : undefined
}

/** The name under which clients and routes know a group or the log of a user. */
export function labelOf (name: string): string {
  return userOfLog(name) === undefined ? name : userLogLabel
}
