import { userLogLabel } from '../protocol/frames.ts'

/*
 * What is sent to a user may go through a log, as that of a group. The log has a name in which no group's can be: it begins with a control
 * character. Clients know it by one label, as each of them has one user.
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

/** What clients, and routes, know a group or the log of a user by. */
export function labelOf (name: string): string {
  return userOfLog(name) === undefined ? name : userLogLabel
}
