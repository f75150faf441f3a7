import type { Envelope, LogPosition } from '../backplane/backplane.ts'
import { logStart, samePosition } from '../backplane/position.ts'

const maxMessagesPerGroup = 128
const maxBytesPerGroup = 262_144
const maxBytes = 33_554_432

type Logged = Envelope & { readonly position: LogPosition }

interface Ring {
  /** Its share of the total. */
  counted: number
  /** The position right before the first message. */
  before: LogPosition
  readonly messages: Logged[]
  bytes: number
}

/**
 * The latest messages of logged groups that have members here, so that clients that come back are served from memory: after the crash of one instance
 * thousands of them want the same messages at once. Bounded per group and in all; the group that was quiet for the longest time makes room.
 */
export class LogCache {
  readonly #rings = new Map<string, Ring>()
  /** What came live while a log is read: it may be newer than what is read. */
  readonly #meanwhile = new Map<string, Logged[]>()
  #bytes = 0
  /** Nothing is kept until the first client turns up that could resume. */
  enabled = false

  /** A message of the group's log was delivered here. */
  push (envelope: Envelope): void {
    const { position, target: { name } } = envelope
    if (!this.enabled || position === undefined) return
    // A copy: the payload is a slice of what the network delivered at once.
    const message = { ...envelope, payload: Buffer.from(envelope.payload), position }
    this.#meanwhile.get(name)?.push(message)
    const ring = this.#rings.get(name)
    const last = ring === undefined ? undefined : endOf(ring)
    if (ring !== undefined && last?.epoch === position.epoch && position.offset <= last.offset) return      // seeded already
    const next = last !== undefined && follows(position, last)
    if (ring !== undefined && !next) this.forget(name)
    // What came before a first message is not known, except for the first one of all.
    if (!next && position.offset !== 1) return this.#add(name, { before: position, messages: [], bytes: 0, counted: 0 })
    const kept = next && ring !== undefined ? ring : { before: logStart, messages: [], bytes: 0, counted: 0 }
    append(kept, message)
    this.#add(name, kept)
  }

  /** The log is going to be read. */
  beginRead (group: string): void {
    this.#meanwhile.set(group, [])
  }

  endRead (group: string): void {
    this.#meanwhile.delete(group)
  }

  /** The whole log was read: what is delivered live goes on from there. */
  fill (group: string, before: LogPosition, messages: readonly Logged[]): void {
    if (!this.enabled) return
    this.forget(group)
    const ring: Ring = { before, messages: [], bytes: 0, counted: 0 }
    for (const message of messages) append(ring, message)
    for (const message of this.#meanwhile.get(group) ?? []) if (follows(message.position, endOf(ring))) append(ring, message)
    this.#add(group, ring)
  }

  /**
   * What came after the position; `undefined` when that cannot be told from memory. `reached` is how far this instance has delivered the log: what is kept here
   * is of no use when it ends before that, as when the group had no members here for a while.
   */
  after (group: string, since: LogPosition, reached: LogPosition | undefined): readonly Logged[] | undefined {
    const ring = this.all(group, reached)
    if (ring === undefined) return undefined
    if (samePosition(ring.before, since)) return ring.messages
    const index = indexUpTo(ring.messages, since)
    const there = ring.messages[index]?.position
    return there !== undefined && samePosition(there, since) ? ring.messages.slice(index + 1) : undefined
  }

  /** All that is kept, and where it begins; `undefined` when it ends before `reached`, or went another way. */
  all (group: string, reached: LogPosition | undefined): Pick<Ring, 'before' | 'messages'> | undefined {
    const ring = this.#rings.get(group)
    if (ring === undefined || reached === undefined) return undefined
    const there = ring.messages[indexUpTo(ring.messages, reached)]?.position ?? ring.before
    return samePosition(there, reached) ? ring : undefined
  }

  /** The group has no members here any more, or its log lost messages. */
  forget (group: string): void {
    const ring = this.#rings.get(group)
    if (ring === undefined) return
    this.#bytes -= ring.counted
    this.#rings.delete(group)
  }

  stats (): Record<string, number> {
    return { recentGroups: this.#rings.size, recentBytes: this.#bytes }
  }

  #add (group: string, ring: Ring): void {
    this.forget(group)
    this.#rings.set(group, ring)
    ring.counted = ring.bytes
    this.#bytes += ring.counted
    for (const oldest of this.#rings.keys()) {
      if (this.#bytes <= maxBytes) return
      this.forget(oldest)
    }
  }
}

function append (ring: Ring, message: Ring['messages'][number]): void {
  ring.messages.push(message)
  ring.bytes += message.payload.length
  while (ring.messages.length > maxMessagesPerGroup || (ring.bytes > maxBytesPerGroup && ring.messages.length > 1)) {
    const [dropped] = ring.messages.splice(0, 1)
    if (dropped === undefined) return
    ring.before = dropped.position
    ring.bytes -= dropped.payload.length
  }
}

function follows (position: LogPosition, last: LogPosition): boolean {
  return position.offset === last.offset + 1 && (last.epoch === position.epoch || last.epoch === '')
}

/** Of the last message that is not after the position. */
function indexUpTo (messages: Ring['messages'], { offset }: LogPosition): number {
  return messages.findLastIndex(({ position }) => position.offset <= offset)
}

function endOf ({ messages, before }: Ring): LogPosition {
  return messages.at(-1)?.position ?? before
}
