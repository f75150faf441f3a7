import type { Connection } from '../types.ts'
import type { LocalConnection } from './connection.ts'

/** Whether a connection of this instance is in the group. For what is asked with each message: `connection.groups` is a copy. */
export function isIn (connection: Connection, group: string): boolean {
  // Callbacks are given connections of this instance alone, and all of these are of one class.
  return (connection as unknown as LocalConnection).isIn(group)
}
