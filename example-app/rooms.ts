import { Type, type Static } from '@fastify/type-provider-typebox'

/** A room is a group of the same name. 60 characters are at most 240 bytes, and a group's name may have 255. */
const RoomName = Type.String({ pattern: '^\\P{Cc}{1,60}$' })

export const RoomParams = Type.Object({ room: RoomName })
export type RoomParams = Static<typeof RoomParams>

export const GroupParams = Type.Object({ group: RoomName })

/** Makes the line that a room gets. Always one line: a line break in the text could begin a line in somebody else's name. */
export function lineOf (name: string, text: string): string {
  return `[${name}]: ${text.replace(/[\p{Cc}\u2028\u2029]+/gu, ' ')}`
}
