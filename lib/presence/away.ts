import type { PresentMember } from './roster.ts'

const maxAbsent = 100_000

interface Absent { readonly group: string, readonly member: PresentMember, readonly until: number }

/**
 * Members whose sockets broke and who may still come back. All get the same time, so the oldest is always the next to give up on, and one
 * timer serves all.
 */
export class AwayMembers {
  readonly #graceMs: number
  readonly #ended: (gone: ReadonlyMap<string, readonly PresentMember[]>) => void
  readonly #groups = new Map<string, Map<string, Absent>>()
  readonly #queue = new Set<Absent>()
  #timer: NodeJS.Timeout | undefined

  /** Calls `ended` with the members, by group, that did not come back. */
  constructor (graceMs: number, ended: (gone: ReadonlyMap<string, readonly PresentMember[]>) => void) {
    this.#graceMs = graceMs
    this.#ended = ended
  }

  add (group: string, member: PresentMember): void {
    this.remove(group, member.session)
    const absent: Absent = { group, member, until: performance.now() + this.#graceMs }
    let inGroup = this.#groups.get(group)
    if (inGroup === undefined) this.#groups.set(group, inGroup = new Map())
    inGroup.set(member.session, absent)
    this.#queue.add(absent)
    if (this.#queue.size > maxAbsent) {
      clearTimeout(this.#timer)
      this.#timer = undefined
    }
    this.#arm()
  }

  /** The session is back, or gone for good. Returns whether it was away. */
  remove (group: string, session: string): boolean {
    const absent = this.#groups.get(group)?.get(session)
    if (absent !== undefined) this.#delete(absent)
    return absent !== undefined
  }

  of (group: string): PresentMember[] {
    return Array.from(this.#groups.get(group)?.values() ?? [], ({ member }) => member)
  }

  count (group: string): number {
    return this.#groups.get(group)?.size ?? 0
  }

  /** Nobody here is told about the group any longer. */
  drop (group: string): void {
    for (const absent of this.#groups.get(group)?.values() ?? []) this.#queue.delete(absent)
    this.#groups.delete(group)
  }

  get size (): number {
    return this.#queue.size
  }

  close (): void {
    clearTimeout(this.#timer)
    this.#queue.clear()
    this.#groups.clear()
  }

  #arm (): void {
    const oldest = this.#queue.values().next().value
    if (oldest === undefined || this.#timer !== undefined) return
    const pause = this.#queue.size > maxAbsent ? 0 : Math.max(oldest.until - performance.now() + 1, 0)
    this.#timer = setTimeout(() => this.#sweep(), pause).unref()
  }

  #sweep (): void {
    this.#timer = undefined
    const now = performance.now()
    const gone = new Map<string, PresentMember[]>()
    for (const absent of this.#queue) {
      // When there are too many, those that are away the longest are given up early.
      if (absent.until > now && this.#queue.size <= maxAbsent) break
      this.#delete(absent)
      const members = gone.get(absent.group)
      if (members === undefined) gone.set(absent.group, [absent.member])
      else members.push(absent.member)
    }
    this.#arm()
    if (gone.size > 0) this.#ended(gone)
  }

  #delete (absent: Absent): void {
    const { group, member } = absent
    this.#queue.delete(absent)
    const inGroup = this.#groups.get(group)
    if (inGroup?.delete(member.session) === true && inGroup.size === 0) this.#groups.delete(group)
  }
}
