import type { LocalConnection } from '../connection/connection.ts'
import { CloseCode } from '../protocol/close-codes.ts'
import type { PresentMember } from './roster.ts'

/** RFC 6455 7.1.5: the code of a close without one. */
const noStatus = 1005
/** Clients do not come back after these: one side is done, or the client is at fault or belongs to another user. */
const finalCodes: ReadonlySet<number> = new Set([CloseCode.Normal, noStatus, CloseCode.BadFrame, CloseCode.OtherUser])

/** How many members may be away at once; beyond that, those that are away the longest are given up early. */
const maxAway = 100_000

/** Whether the client of a connection that left a group may be back soon, as the same session. */
export function mayComeBack ({ closed, closeCode, dismissed, sessionName }: LocalConnection): boolean {
  // If the link broke while much of what the client sent is still unread, the code is not known yet.
  const isFinal = closeCode === undefined ? !closed : finalCodes.has(closeCode)
  return !dismissed && !isFinal && sessionName !== undefined
}

interface Away { readonly group: string, readonly member: PresentMember, readonly until: number }

/** The time in milliseconds, and a timer on it. */
interface Clock {
  now (): number
  /** Calls `run` after `ms` milliseconds. Returns a function that stops the timer. */
  start (run: () => void, ms: number): () => void
}

const processClock: Clock = {
  now: () => performance.now(),
  start (run, ms) {
    const timer = setTimeout(run, ms).unref()
    return () => clearTimeout(timer)
  }
}

/**
 * Members whose sockets broke and who may still come back. All get the same grace, so the one that is away the longest is always the next
 * to give up, and one timer is enough.
 */
export class AwayMembers {
  readonly #graceMs: number
  readonly #ended: (gone: ReadonlyMap<string, readonly PresentMember[]>) => void
  readonly #groups = new Map<string, Map<string, Away>>()
  readonly #queue = new Set<Away>()
  readonly #clock: Clock
  #stopTimer: (() => void) | undefined

  /** Calls `ended` with the members, by group, who did not come back. */
  constructor (graceMs: number, ended: (gone: ReadonlyMap<string, readonly PresentMember[]>) => void, clock = processClock) {
    this.#graceMs = graceMs
    this.#ended = ended
    this.#clock = clock
  }

  add (group: string, member: PresentMember): void {
    this.remove(group, member.session)
    const away: Away = { group, member, until: this.#clock.now() + this.#graceMs }
    let inGroup = this.#groups.get(group)
    if (inGroup === undefined) this.#groups.set(group, inGroup = new Map())
    inGroup.set(member.session, away)
    this.#queue.add(away)
    if (this.#queue.size > maxAway) this.#disarm()
    this.#arm()
  }

  /** The session is back, or gone for good. Returns whether it was away. */
  remove (group: string, session: string): boolean {
    const away = this.#groups.get(group)?.get(session)
    if (away !== undefined) this.#delete(away)
    return away !== undefined
  }

  of (group: string): PresentMember[] {
    return Array.from(this.#groups.get(group)?.values() ?? [], ({ member }) => member)
  }

  get size (): number {
    return this.#queue.size
  }

  close (): void {
    this.#disarm()
    this.#queue.clear()
    this.#groups.clear()
  }

  #arm (): void {
    const oldest = this.#queue.values().next().value
    if (oldest === undefined || this.#stopTimer !== undefined) return
    const pause = this.#queue.size > maxAway ? 0 : Math.max(oldest.until - this.#clock.now() + 1, 0)
    this.#stopTimer = this.#clock.start(() => this.#sweep(), pause)
  }

  #disarm (): void {
    this.#stopTimer?.()
    this.#stopTimer = undefined
  }

  #sweep (): void {
    this.#stopTimer = undefined
    const now = this.#clock.now()
    const gone = new Map<string, PresentMember[]>()
    for (const away of this.#queue) {
      if (away.until > now && this.#queue.size <= maxAway) break
      this.#delete(away)
      const members = gone.get(away.group)
      if (members === undefined) gone.set(away.group, [away.member])
      else members.push(away.member)
    }
    this.#arm()
    if (gone.size > 0) this.#ended(gone)
  }

  #delete (away: Away): void {
    const { group, member } = away
    this.#queue.delete(away)
    const inGroup = this.#groups.get(group)
    if (inGroup?.delete(member.session) === true && inGroup.size === 0) this.#groups.delete(group)
  }
}
