import { maxBlocks, type Block } from '../backplane.ts'

/** The users and tokens that the instances of one process block. */
export class MemoryBlocks {
  /** Name -> when it ends (on the clock of `performance.now()`). */
  readonly #ends = new Map<string, number>()

  /** As `Backplane.block`. */
  set (name: string, forMs: number): boolean {
    if (forMs <= 0) {
      this.#ends.delete(name)
      return true
    }
    this.#sweep()
    if (this.#ends.size >= maxBlocks && !this.#ends.has(name)) return false
    this.#ends.set(name, performance.now() + forMs)
    return true
  }

  /** As `Backplane.blocks`. */
  list (): Block[] {
    this.#sweep()
    const now = performance.now()
    return Array.from(this.#ends, ([name, end]) => ({ name, leftMs: end - now }))
  }

  #sweep (): void {
    const now = performance.now()
    for (const [name, end] of this.#ends) if (end <= now) this.#ends.delete(name)
  }
}
