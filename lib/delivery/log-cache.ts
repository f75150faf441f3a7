import type { Envelope, LoggedEnvelope, LogPosition } from '../backplane/backplane.ts'
import { logStart, samePosition } from '../backplane/position.ts'
import { BoundedMap } from '../bounded-map.ts'

const maxMessagesPerGroup = 128
const maxBytesPerGroup = 262_144
const maxBytes = 33_554_432
/** What a message, and a group, takes beside its payload. */
const overheadBytes = 256

/** The latest messages of one group. */
interface Ring {
  /** The position right before the first message. */
  before: LogPosition
  readonly messages: LoggedEnvelope[]
  bytes: number
}

/**
 * The latest messages of logged groups that have members here, so that clients that come back are served from memory: after the crash of
 * one instance thousands of them want the same messages at once. Bounded per group and in all; the group that was quiet for the longest
 * time makes room.
 */
export class LogCache {
  readonly #rings = new BoundedMap<string, Ring>({ maxWeight: maxBytes, weigh: ({ bytes }) => overheadBytes + bytes })
  /** What came live while a log is read: some of it may be newer than what is read. */
  readonly #meanwhile = new Map<string, LoggedEnvelope[]>()
  #enabled = false

  /** Keeps messages from now on. Called when the first client turns up that could resume. */
  enable (): void {
    this.#enabled = true
  }

  /** A message of a group's log was delivered here. */
  push (envelope: Envelope): void {
    const { position, target: { name } } = envelope
    if (!this.#enabled || position === undefined) return
    // A copy: the payload is a slice of what the network delivered at once.
    const message = { ...envelope, payload: Buffer.from(envelope.payload), position }
    this.#meanwhile.get(name)?.push(message)
    const ring = this.#rings.get(name)
    const last = ring === undefined ? undefined : endOf(ring)
    if (last?.epoch === position.epoch && position.offset <= last.offset) return      // filled in already
    const next = last !== undefined && follows(position, last)
    // What came before a first message is not known, except before the first message of all.
    if (!next && position.offset !== 1) return this.#rings.set(name, newRing(position))
    const kept = next && ring !== undefined ? ring : newRing(logStart)
    append(kept, message)
    // The ring weighs more now, and is the newest one.
    this.#rings.set(name, kept)
  }

  /** The log is going to be read. */
  beginRead (group: string): void {
    this.#meanwhile.set(group, [])
  }

  /** The log was read, or could not be. */
  endRead (group: string): void {
    this.#meanwhile.delete(group)
  }

  /** The whole log was read: what is delivered live goes on from there. */
  fill (group: string, before: LogPosition, messages: readonly LoggedEnvelope[]): void {
    if (!this.#enabled) return
    const ring = newRing(before)
    for (const message of messages) append(ring, message)
    for (const message of this.#meanwhile.get(group) ?? []) if (follows(message.position, endOf(ring))) append(ring, message)
    this.#rings.set(group, ring)
  }

  /**
   * The messages after the position; `undefined` when memory cannot tell. `reached` is how far this instance has delivered the log: what is
   * kept is of no use when it ends before that, as when the group had no members here for a while.
   */
  after (group: string, since: LogPosition, reached: LogPosition | undefined): readonly LoggedEnvelope[] | undefined {
    const ring = this.all(group, reached)
    if (ring === undefined) return undefined
    if (samePosition(ring.before, since)) return ring.messages
    const index = indexUpTo(ring.messages, since)
    const there = ring.messages[index]?.position
    return there !== undefined && samePosition(there, since) ? ring.messages.slice(index + 1) : undefined
  }

  /** All messages that are kept, and where they begin; `undefined` when they end before `reached`, or went another way. */
  all (group: string, reached: LogPosition | undefined): Pick<Ring, 'before' | 'messages'> | undefined {
    const ring = this.#rings.get(group)
    if (ring === undefined || reached === undefined) return undefined
    const there = ring.messages[indexUpTo(ring.messages, reached)]?.position ?? ring.before
    return samePosition(there, reached) ? ring : undefined
  }

  /** The group has no members here any more, or its log lost messages. */
  forget (group: string): void {
    this.#rings.delete(group)
  }

  stats (): Record<string, number> {
    return { recentGroups: this.#rings.size, recentBytes: this.#rings.weight }
  }
}

function newRing (before: LogPosition): Ring {
  return { before, messages: [], bytes: 0 }
}

function weigh ({ payload }: LoggedEnvelope): number {
  return overheadBytes + payload.length
}

function append (ring: Ring, message: LoggedEnvelope): void {
  ring.messages.push(message)
  ring.bytes += weigh(message)
  while (ring.messages.length > maxMessagesPerGroup || (ring.bytes > maxBytesPerGroup && ring.messages.length > 1)) {
    const [dropped] = ring.messages.splice(0, 1)
    if (dropped === undefined) return
    ring.before = dropped.position
    ring.bytes -= weigh(dropped)
  }
}

function follows (position: LogPosition, last: LogPosition): boolean {
  return position.offset === last.offset + 1 && (last.epoch === position.epoch || last.epoch === '')
}

/** The index of the last message that is not after the position. */
function indexUpTo (messages: Ring['messages'], { offset }: LogPosition): number {
  return messages.findLastIndex(({ position }) => position.offset <= offset)
}

function endOf ({ messages, before }: Ring): LogPosition {
  return messages.at(-1)?.position ?? before
}
