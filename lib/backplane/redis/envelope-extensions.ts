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

/** Lua: the length of an entry with a place, and how it begins. The script that appends adds these entries: it alone knows the places. */
export const luaPlaceHead = `'\\${headBytes + 14}\\${first}\\${kind.place}'`

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

/** Collects the entries of one envelope. */
export class Extensions {
  readonly #values: Array<{ readonly kind: number, bytes: Buffer }> = []

  add (entry: Buffer): void {
    const [, of = 0] = entry
    const bytes = entry.subarray(headBytes)
    const last = this.#values.at(-1)
    if ((of & continues) === 0) this.#values.push({ kind: of, bytes })
    else if (last !== undefined) last.bytes = Buffer.concat([last.bytes, bytes])
  }

  get from (): Sender | undefined {
    const [userId, connectionId] = [this.#textOf(kind.userId), this.#textOf(kind.connectionId)]
    if (userId === undefined && connectionId === undefined) return undefined
    return { ...(userId === undefined || userId === '' ? {} : { userId }), ...(connectionId === undefined ? {} : { connectionId }) }
  }

  get trace (): string | undefined {
    return this.#textOf(kind.trace)
  }

  get places (): Place[] | undefined {
    const [groups, places] = [this.#all(kind.group), this.#all(kind.place)]
    const complete = groups.length > 0 && groups.length === places.length && places.every(({ length }) => length === 14)
    if (!complete) return undefined
    return places.map((bytes, index) => {
      return { group: groups[index]?.toString() ?? '', epoch: bytes.toString('latin1', 0, 8), offset: bytes.readUIntBE(8, 6) }
    })
  }

  #all (wanted: number): Buffer[] {
    return this.#values.filter(({ kind }) => kind === wanted).map(({ bytes }) => bytes)
  }

  #textOf (wanted: number): string | undefined {
    return this.#values.find(({ kind }) => kind === wanted)?.bytes.toString()
  }
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
