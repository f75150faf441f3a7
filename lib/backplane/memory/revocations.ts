import type { Revocation } from '../backplane.ts'

/** The bytes that all names together may take. */
const standardMaxBytes = 16_777_216
/** How much memory a name takes beside its text, and how much each character takes in a concatenated string (bytes). */
const [entryBytes, characterBytes] = [400, 2]

interface Entry extends Revocation {
  /** When the entry is forgotten. */
  readonly end: number
}

/** Remembers whom the instances of one process put out of groups. */
export class MemoryRevocations {
  readonly #now: () => number
  readonly #maxBytes: number
  /** Entries by group and name, in the order of their revocations. */
  readonly #entries = new Map<string, Entry>()
  #bytes = 0
  /**
   * Stands for all entries that there was no more room for, with the latest of their times, so that nobody gets back in by filling up the
   * room.
   */
  #others: Entry | undefined

  constructor (now: () => number = () => performance.now(), maxBytes = standardMaxBytes) {
    this.#now = now
    this.#maxBytes = maxBytes
  }

  /** As `Backplane.revoke`. */
  set (group: string, names: readonly string[], { at, position }: Revocation, forMs: number): void {
    const now = this.#now()
    for (const name of names) {
      const key = keyOf(group, name)
      // A later revocation is known.
      if ((this.#entries.get(key)?.at ?? -Infinity) > at) continue
      this.#delete(key)
      this.#entries.set(key, { at, position, end: now + forMs })
      this.#bytes += weigh(key)
    }
    for (const [key, entry] of this.#entries) {
      const isOver = entry.end <= now
      if (!isOver && this.#bytes <= this.#maxBytes) return
      this.#delete(key)
      if (!isOver) this.#others = later(this.#others, entry)
    }
  }

  /** As `Backplane.revoked`. */
  latest (group: string, names: readonly string[]): Revocation | undefined {
    let latest: Entry | undefined
    const found = [this.#others, ...names.map(name => this.#entries.get(keyOf(group, name)))]
    for (const entry of found) if (entry !== undefined && entry.end > this.#now() && entry.at > (latest?.at ?? -Infinity)) latest = entry
    return latest && { at: latest.at, position: latest.position }
  }

  #delete (key: string): void {
    if (this.#entries.delete(key)) this.#bytes -= weigh(key)
  }
}

/** Returns the later of two entries, without its position, which belongs to the log of a single group. */
function later (one: Entry | undefined, { at, end }: Entry): Entry {
  return { at: Math.max(one?.at ?? -Infinity, at), end: Math.max(one?.end ?? -Infinity, end) }
}

function weigh (key: string): number {
  return entryBytes + characterBytes * key.length
}

function keyOf (group: string, name: string): string {
  return `${group.length}:${group}:${name}`
}
