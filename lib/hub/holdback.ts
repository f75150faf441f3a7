import type { Envelope, GapReason, LogPosition } from '../backplane/backplane.ts'
import { samePosition } from '../backplane/position.ts'

const maxWaiting = { messages: 1_000, bytes: 262_144 } as const
/** The memory that a message takes beside its payload (bytes). */
const overheadBytes = 256
/** As many positions as an instance remembers of what it delivered. If a log lost more messages, nobody can tell its branches apart. */
const maxGiven = 256

/** Messages of a group's log are lost. The log goes on after `position`. */
export interface Gap {
  readonly reason: GapReason
  readonly position: LogPosition
  /** The epoch of the log that goes on; '' when there is none. */
  readonly epoch: string
}

/** Where in a group's log the replay to a connection ended. */
export interface ReplayEnd {
  readonly position: LogPosition
  /** The epoch of the log that goes on there. A position at the beginning of a log has none. */
  readonly epoch: string
  /** The client was told that messages before the position are lost. */
  readonly told: boolean
  /** Where this instance was in the log; set when the position is only what the client says: its log may be another one. */
  readonly behind?: LogPosition | undefined
  /** The epoch of the log that this instance still delivers, when that log is known to be gone: the client is in its successor. */
  readonly gone?: string | undefined
  /** Where the client was in the log before this one. The client was told that this log is gone, but it may come back: see `hadBefore`. */
  readonly left?: LogPosition | undefined
}

/**
 * Hold-back queue of one connection in one group. While the connection replays the log, live messages wait here, up to a limit in bytes:
 * the log has them all, so beyond the limit they are dropped, and the replay goes on until it has read them. Afterwards the queue drops
 * those that the client already got from another instance.
 */
export class Holdback {
  #waiting: Array<Envelope | Gap> | undefined = []
  #bytes = 0
  #since: LogPosition | undefined
  #end: ReplayEnd | undefined
  /** As `ReplayEnd.gone`, until this instance has left that log. */
  #gone: string | undefined
  /** Where this instance went on when it left that log, unless it went on in the client's log. */
  #between: LogPosition | undefined
  /** Where the latest messages stand that the replay gave to the client, oldest first. */
  #given: LogPosition[] = []
  #forked = false

  /** The replay is not over: everything waits. */
  get holding (): boolean {
    return this.#waiting !== undefined
  }

  /** The messages and gaps that wait, the oldest first. */
  get waiting (): ReadonlyArray<Envelope | Gap> {
    return this.#waiting ?? []
  }

  /** Messages up to this position were dropped, and have to be read from the log; `undefined`: everything that came still waits. */
  get since (): LogPosition | undefined {
    return this.#since
  }

  /**
   * Keeps the news, or leaves it to the log. Returns `false` for a message without a log that there is no room for: it is lost to the
   * connection.
   */
  push (news: Envelope | Gap): boolean {
    if (this.#waiting === undefined) return true
    const bytes = overheadBytes + ('payload' in news ? news.payload.length : 0)
    // Gaps are few and small, and each must be reported.
    if ('reason' in news || (this.#waiting.length < maxWaiting.messages && this.#bytes + bytes <= maxWaiting.bytes)) {
      this.#waiting.push(news)
      this.#bytes += bytes
      return true
    }
    if (news.position === undefined) return false
    // A gap among those that are dropped shows when the log is read.
    this.#waiting = []
    this.#bytes = 0
    this.#since = news.position
    return true
  }

  /** The replay gave the message at the position to the client. */
  gave (position: LogPosition): void {
    this.#given.push(position)
    if (this.#given.length === 2 * maxGiven) this.#given = this.#given.slice(maxGiven)
  }

  /** The log lost messages, and went on along another branch; the next messages show which branch the replay gave the client. */
  fork (): void {
    this.#forked = true
  }

  /** Whether the client is in the log of this epoch. */
  isIn (epoch: string): boolean {
    return this.#end?.epoch === epoch
  }

  /** Whether the message belongs to a log that is gone, and that the client left before this instance did. */
  isGone ({ epoch }: LogPosition): boolean {
    return this.#gone !== undefined && epoch === this.#gone
  }

  /**
   * Returns where the client goes on if the message at the position belongs to another log than the client's, and the client was not told.
   * The client claimed to be in a log that could not be read, or its log was lost before this instance reached it.
   */
  otherLog (position: LogPosition): LogPosition | undefined {
    return this.#end !== undefined && position.epoch !== this.#end.epoch ? this.#end.behind ?? this.#between : undefined
  }

  /** Whether other messages may have had the same offsets as these: only nonces tell them apart. */
  get forked (): boolean {
    return this.#forked
  }

  /** Ends the wait. Messages up to `end` are not for the connection from now on. Returns what waited. */
  release (end: ReplayEnd | undefined): ReadonlyArray<Envelope | Gap> {
    const { waiting } = this
    this.#waiting = undefined
    this.#end = end
    this.#gone = end?.gone
    if (end !== undefined && this.#given.at(-1)?.offset !== end.position.offset) this.#given.push(end.position)
    return waiting
  }

  /** Whether the message comes before the place where the client of another log is told to go on. */
  isBehind ({ epoch, offset }: LogPosition): boolean {
    const behind = this.#end?.behind
    return behind !== undefined && epoch !== this.#end?.epoch && epoch === behind.epoch && offset <= behind.offset
  }

  /** Whether the client has the message at the position. */
  has (position: LogPosition): boolean {
    if (this.#end === undefined || position.epoch !== this.#end.epoch || position.offset > this.#end.position.offset) return false
    // What stood further back cannot be compared: the client was told of a loss, and gets nothing twice.
    if (!this.#forked || position.offset < (this.#given[0]?.offset ?? Infinity)) return true
    return this.#given.some(given => samePosition(given, position))
  }

  /**
   * Whether the client got the message from a log that seemed to be gone when the client joined, and has come back since: after a failover
   * to a server without the log, and a second failover.
   */
  hadBefore ({ epoch, offset }: LogPosition): boolean {
    const left = this.#end?.left
    return left !== undefined && epoch === left.epoch && offset <= left.offset
  }

  /**
   * Whether the loss lies before what the client has. A log that was rewound goes on along another branch: only a client that was told of a
   * loss is sure to be on that branch.
   */
  covers (gap: Gap): boolean {
    if (this.#end === undefined) return false
    const { position: { offset }, epoch, told } = this.#end
    // A client that was told that the log is gone is owed the next log from its beginning.
    const sameLog = epoch === gap.epoch || (epoch === '' && (told || this.#gone !== undefined))
    // This instance is still in the log that the client left, or on its way to the client's log.
    if (this.#gone !== undefined && (gap.epoch === this.#gone || (!sameLog && gap.epoch === ''))) return true
    return sameLog && (told || gap.reason !== 'rewound') && gap.position.offset <= offset
  }

  /** Called for a gap that is covered: this instance leaves the log that the client left before. */
  leave (gap: Gap): void {
    if (gap.epoch === this.#gone) return
    const { epoch } = this.#end ?? {}
    if (this.#gone !== undefined && epoch !== '' && epoch !== gap.epoch) this.#between = gap.position
    this.#gone = undefined
  }
}
