import type { Envelope, GapReason, LogPosition } from '../backplane/backplane.ts'

const maxWaiting = 1_000

/** Messages of a group's log are lost. It goes on after `position`. */
export interface Gap {
  readonly reason: GapReason
  readonly position: LogPosition
  /** Of the log that goes on; '' when there is none. */
  readonly epoch: string
}

/** How far a connection has a group's log. */
export interface ReplayEnd {
  readonly position: LogPosition
  /** Of the log that goes on there. A position at the beginning of a log has none. */
  readonly epoch: string
  /** The connection was told that messages before it are lost, if there are any. */
  readonly told: boolean
}

/**
 * What a connection that joins a group is not given as it comes: first everything, until it has what it missed; then what it has already, where its client is
 * further than this instance, as it may be when it comes from another one.
 */
export class Holdback {
  #waiting: Array<Envelope | Gap> | undefined = []
  #reach: ReplayEnd | undefined

  /** Everything waits. */
  get holding (): boolean {
    return this.#waiting !== undefined
  }

  /** What waits so far. */
  get waiting (): ReadonlyArray<Envelope | Gap> {
    return this.#waiting ?? []
  }

  /** Returns `false` when too much waits already. */
  push (news: Envelope | Gap): boolean {
    if (this.waiting.length >= maxWaiting) return false
    this.#waiting?.push(news)
    return true
  }

  /** Nothing waits any more, but what is not beyond `reach` is not for the connection. Returns what waited. */
  release (reach: ReplayEnd | undefined): ReadonlyArray<Envelope | Gap> {
    const { waiting } = this
    this.#waiting = undefined
    this.#reach = reach
    return waiting
  }

  has (position: LogPosition): boolean {
    return this.#reach !== undefined && position.epoch === this.#reach.epoch && position.offset <= this.#reach.position.offset
  }

  /** Whether the loss is before what the connection has. Of a log that was rewound only one who was told so is surely on the branch that goes on. */
  covers (gap: Gap): boolean {
    if (this.#reach === undefined) return false
    const { position: { offset }, epoch, told } = this.#reach
    // Told that there is no log any more, it is owed the next one from its beginning.
    const sameLog = epoch === gap.epoch || (told && epoch === '')
    return sameLog && (told || gap.reason !== 'rewound') && gap.position.offset <= offset
  }
}
