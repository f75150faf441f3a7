import type { Connection } from '../types.ts'
import type { LocalConnection } from './connection.ts'

/** Whether a connection of this instance is in the group. Cheap enough for each message: `connection.groups` makes a copy. */
export function isIn (connection: Connection, group: string): boolean {
  // Callbacks are given connections of this instance alone, and all of these are of one class.
  return (connection as unknown as LocalConnection).isIn(group)
}
