import type { Sender } from '../../types.ts'
import type { Place } from '../backplane.ts'

/*
 * Fields that were added to version 1 of the envelope, as entries of its `except` list: a reader that does not know an entry takes it for
 * an id that nobody has. So every reader of version 1 finds the payload where it expects it, whatever is added here.
 *
 *   0  u8  0, which no id begins with
 *   1  u8  kind: 1 user id of the sender, 2 connection id of the sender, 3 name of a group that a copy went to, 4 where that copy stands
 *          in the group's log (8 B epoch, u48 offset; as many as names, in their order), 5 traceparent; + 0x80: continues the entry before
 *   2      value, to the end of the entry
 */
const first = 0
const kind = { userId: 1, connectionId: 2, group: 3, place: 4, trace: 5 } as const
const continues = 0x80
const headBytes = 2
const maxEntryBytes = 255
const maxValueBytes = maxEntryBytes - headBytes
const placeBytes = 14

/** Lua: the length of an entry with a place, and how it begins. The script that appends adds these entries: it alone knows the places. */
export const luaPlaceHead = `'\\${headBytes + placeBytes}\\${first}\\${kind.place}'`

/** Whether an entry of the list is an extension, by its first byte. */
export function isExtension (firstByte: number | undefined): boolean {
  return firstByte === first
}

/** The entries that name the sender. A sender without any id gets an entry, too, so that readers know that there is one. */
export function senderEntries ({ userId = '', connectionId }: Sender): Buffer[] {
  return [...entriesOf(kind.userId, userId), ...connectionId === undefined ? [] : entriesOf(kind.connectionId, connectionId)]
}

/** The entry for a `traceparent`; more than one if `tracing` of the application returns a longer text. */
export function traceEntries (traceparent: string): Buffer[] {
  return entriesOf(kind.trace, traceparent)
}

export function groupEntries (groups: readonly string[]): Buffer[] {
  return groups.flatMap(group => entriesOf(kind.group, group))
}

/** What the extensions of an envelope say. */
interface Extensions {
  from?: Sender
  places?: Place[]
  trace?: string
}

/** Reads the extensions of one envelope, in their order. Called for each message that is traced or names its sender. */
export function readExtensions (entries: readonly Buffer[]): Extensions {
  let userId: string | undefined
  let connectionId: string | undefined
  const extensions: Extensions = {}
  const groups: string[] = []
  const places: Buffer[] = []
  for (let at = 0; at < entries.length; at++) {
    let entry = entries[at] as Buffer
    const of = entry[1]
    while (((entries[at + 1]?.[1] ?? 0) & continues) !== 0) entry = Buffer.concat([entry, (entries[++at] as Buffer).subarray(headBytes)])
    if (of === kind.userId) userId ??= textOf(entry)
    else if (of === kind.connectionId) connectionId ??= textOf(entry)
    else if (of === kind.trace) extensions.trace ??= textOf(entry)
    else if (of === kind.group) groups.push(textOf(entry))
    else if (of === kind.place) places.push(entry)
  }
  if (userId !== undefined || connectionId !== undefined) extensions.from = senderOf(userId, connectionId)
  if (groups.length > 0 && groups.length === places.length && places.every(({ length }) => length === headBytes + placeBytes)) {
    extensions.places = places.map((bytes, index) => {
      return { group: groups[index] ?? '', epoch: bytes.toString('latin1', 2, 10), offset: bytes.readUIntBE(10, 6) }
    })
  }
  return extensions
}

function senderOf (userId: string | undefined, connectionId: string | undefined): Sender {
  return { ...(userId === undefined || userId === '' ? {} : { userId }), ...(connectionId === undefined ? {} : { connectionId }) }
}

function textOf (entry: Buffer): string {
  return entry.toString('utf8', headBytes)
}

/** The entries for a text: more than one where the text does not fit. */
function entriesOf (kind: number, text: string): Buffer[] {
  const value = Buffer.from(text)
  const entries = [Buffer.from([first, kind, ...value.subarray(0, maxValueBytes)])]
  for (let at = maxValueBytes; at < value.length; at += maxValueBytes) {
    entries.push(Buffer.from([first, kind | continues, ...value.subarray(at, at + maxValueBytes)]))
  }
  return entries
}
