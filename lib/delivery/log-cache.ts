import { memoryOf, memoryOfPlaces, overheadBytes, type Envelope, type LoggedEnvelope, type LogPosition } from '../backplane/backplane.ts'
import { formatPosition, logStart, samePosition } from '../backplane/position.ts'
import { BoundedMap } from '../bounded-map.ts'
import { copyToKeep } from '../kept-bytes.ts'

/** As much as a log keeps by default. */
const maxMessagesPerGroup = 1_000
const maxDataPerGroup = 1_048_576
const maxBytesPerGroup = maxDataPerGroup + maxMessagesPerGroup * overheadBytes
const maxBytes = 33_554_432
/** How many of the messages that were stored anew after a loss are remembered. */
const maxMoved = 10_000
/** How many logs of a group are remembered from the time before an earlier log came back. */
const maxBetween = 10_000
/** How many bytes may be kept that were read from logs and do not reach up to the live messages yet. */
const maxPartBytes = 8_388_608

/** Messages of one group that follow each other. */
interface Run {
  /** The position right before the first message. */
  before: LogPosition
  readonly messages: LoggedEnvelope[]
  bytes: number
  /** Whether the log held nothing before it when it was read. */
  whole: boolean
}

/** What memory knows of a group's log. */
export type CachedLog = Readonly<Pick<Run, 'before' | 'messages' | 'whole'>>

/** Messages after a position. */
interface CachedPage {
  readonly messages: readonly LoggedEnvelope[]
  /** Others follow that are not in memory. */
  readonly more: boolean
}

/**
 * The latest messages of logged groups that have members here, so that clients that come back are served from memory: after the crash of
 * one instance thousands of them want the same messages at once. Bounded per group and in all, in bytes of memory; the group that was quiet
 * for the longest time makes room. Payloads are copied, because they arrive as slices of larger chunks from the network.
 */
export class LogCache {
  /** What was delivered last, and what was read right before that. */
  readonly #latest = newRuns(maxBytes)
  /** What was read from logs and lies further back, page by page, until it reaches the latest. */
  readonly #parts = newRuns(maxPartBytes)
  /** Where messages stood before their log was lost and they were stored anew, by group and new position. */
  readonly #moved = new BoundedMap<string, LogPosition>({ maxWeight: maxMoved })
  /** Where this instance goes on in the log that came back, by group and the epoch of a log that the group had meanwhile. */
  readonly #returns = new BoundedMap<string, LogPosition>({ maxWeight: maxBetween })
  #enabled = false

  /** Keeps messages from now on. Called for the first client that could resume. */
  enable (): void {
    this.#enabled = true
  }

  /** A message of a group's log was delivered here. */
  push (envelope: Envelope): void {
    const { position, target: { name }, repeated } = envelope
    if (repeated !== undefined && position !== undefined) this.#moved.set(movedKey(name, position), repeated)
    if (!this.#enabled || position === undefined) return
    const known = this.#latest.get(name)
    const last = known === undefined ? undefined : endOf(known)
    if (last?.epoch === position.epoch && position.offset <= last.offset) return      // it was read already
    const next = known !== undefined && last !== undefined && follows(position, last)
    // Keep the earlier messages apart: a read may still bring those in between.
    if (known !== undefined && !next && known.messages.length > 0) this.#parts.set(name, known)
    // Nothing is known of what came before, unless this is the first message of the log.
    if (!next && position.offset !== 1) return this.#latest.set(name, newRun(position))
    const run = next ? known : newRun(logStart, true)
    // Not marked as repeated: clients that come later may not have got the message from the log that was lost.
    append(run, { ...envelope, repeated: undefined, payload: copyToKeep(envelope.payload), position })
    // The entry weighs more now, and is the newest one.
    this.#latest.set(name, run)
  }

  /** A page of the log was read. `whole`: the log has nothing before it. */
  fill (group: string, before: LogPosition, messages: readonly LoggedEnvelope[], whole: boolean): void {
    if (!this.#enabled) return
    const page = newRun(before, whole)
    for (const message of messages) append(page, { ...message, payload: copyToKeep(message.payload) })
    const earlier = this.#parts.get(group)
    this.#parts.delete(group)
    const part = earlier !== undefined && holds(earlier, before) ? join(earlier, page) : page
    const latest = this.#latest.get(group)
    if (latest === undefined) this.#latest.set(group, part)
    else if (holds(latest, part.before)) this.#latest.set(group, join(latest, part))
    else if (holds(part, latest.before)) this.#latest.set(group, join(part, latest))
    else this.#parts.set(group, part)
  }

  /**
   * The messages after the position; `undefined` when memory cannot tell. `reached` is how far this instance has delivered the log: what is
   * kept is of no use when it ends before that, as when the group had no members here for a while.
   */
  after (group: string, since: LogPosition, reached: LogPosition | undefined): CachedPage | undefined {
    const latest = this.#find(group, reached)
    if (latest !== undefined && holds(latest, since)) return { messages: following(latest, since), more: false }
    const part = this.#parts.get(group)
    if (part === undefined || reached?.epoch !== endOf(part).epoch || !holds(part, since)) return undefined
    const messages = following(part, since)
    return messages.length === 0 ? undefined : { messages, more: true }
  }

  /** All messages that are kept, and where they begin; `undefined` when they end before `reached`, or took another branch. */
  all (group: string, reached: LogPosition | undefined): CachedLog | undefined {
    const run = this.#find(group, reached)
    return run === undefined ? undefined : { ...run, messages: [...run.messages] }
  }

  /** Where the message at this position stood in a log that was lost; `undefined` for one that was stored once, as far as is known. */
  lostPlace (group: string, position: LogPosition): LogPosition | undefined {
    return this.#moved.size === 0 ? undefined : this.#moved.get(movedKey(group, position))
  }

  /**
   * Where a client of a log that the group had meanwhile goes on, now that the group has the log of `epoch` again; `undefined` when this
   * instance did not see that log come back.
   */
  returnOf (group: string, meanwhile: string, epoch: string | undefined): LogPosition | undefined {
    const position = this.#returns.size === 0 ? undefined : this.#returns.get(returnKey(group, meanwhile))
    return position?.epoch === epoch ? position : undefined
  }

  /** The group no longer has members here. */
  forget (group: string): void {
    this.#latest.delete(group)
    this.#parts.delete(group)
  }

  /** As `LocalInstance.gap`. */
  lost (group: string, position: LogPosition, between: readonly string[] = []): void {
    this.forget(group)
    for (const epoch of between) this.#returns.set(returnKey(group, epoch), position)
  }

  stats (): Record<string, number> {
    return { recentGroups: this.#latest.size, recentBytes: this.#latest.weight + this.#parts.weight }
  }

  #find (group: string, reached: LogPosition | undefined): Run | undefined {
    const run = this.#latest.get(group)
    return run !== undefined && reached !== undefined && holds(run, reached) ? run : undefined
  }
}

function movedKey (group: string, position: LogPosition): string {
  return `${formatPosition(position)} ${group}`
}

function returnKey (group: string, epoch: string): string {
  return `${epoch} ${group}`
}

function newRuns (maxWeight: number): BoundedMap<string, Run> {
  return new BoundedMap({ maxWeight, weigh: ({ bytes }) => overheadBytes + bytes })
}

function newRun (before: LogPosition, whole = false): Run {
  return { before, messages: [], bytes: 0, whole }
}

function weigh (message: LoggedEnvelope): number {
  return memoryOf(message) + memoryOfPlaces(message)
}

function append (run: Run, message: LoggedEnvelope): void {
  run.messages.push(message)
  run.bytes += weigh(message)
  while (run.messages.length > maxMessagesPerGroup || (run.bytes > maxBytesPerGroup && run.messages.length > 1)) {
    const dropped = run.messages.shift()
    if (dropped === undefined) return
    run.before = dropped.position
    run.bytes -= weigh(dropped)
    // The log may still have the dropped message.
    run.whole = false
  }
}

/** Adds to `first` the messages of `second` that come after it; `second` begins within `first`. */
function join (first: Run, second: Run): Run {
  const { offset } = endOf(first)
  for (const message of second.messages) if (message.position.offset > offset) append(first, message)
  return first
}

function follows (position: LogPosition, last: LogPosition): boolean {
  return position.offset === last.offset + 1 && (last.epoch === position.epoch || last.epoch === '')
}

/** Whether the position is that before the run, or that of one of its messages. */
function holds (run: Run, position: LogPosition): boolean {
  if (samePosition(run.before, position)) return true
  const there = run.messages[indexUpTo(run, position)]?.position
  return there !== undefined && samePosition(there, position)
}

function following (run: Run, position: LogPosition): readonly LoggedEnvelope[] {
  return run.messages.slice(indexUpTo(run, position) + 1)
}

/** The index of the last message that is not after the position. */
function indexUpTo ({ messages }: Run, { offset }: LogPosition): number {
  return messages.findLastIndex(({ position }) => position.offset <= offset)
}

function endOf ({ messages, before }: Run): LogPosition {
  return messages.at(-1)?.position ?? before
}
