/**
 * How many groups, or users, of an instance each look for losses covers: these parts of all are looked at one after another. And how many
 * are looked at together: what others ask of Redis, and what this process has to do, comes between.
 */
export const perLook = { parts: 4, least: 256, most: 10_000 } as const
export const perStep = 256

interface RoundOptions {
  /** In how many parts a round goes through all items. */
  readonly parts: number
  /** The fewest, and the most, items of a part. */
  readonly least: number
  readonly most: number
}

/** Goes through a collection that changes, a part at a time, and then again. */
export class Round {
  readonly #items: () => Iterable<string>
  readonly #options: RoundOptions
  /** The items of this round that still have their turn. */
  #left: string[] = []
  #part: string[] = []
  #size = 0

  constructor (items: () => Iterable<string>, options: RoundOptions) {
    this.#items = items
    this.#options = options
  }

  /** The next part. A round has the items that are there when it begins. */
  next (): string[] {
    if (this.#left.length === 0) {
      this.#left = [...this.#items()]
      this.#size = this.sizeOf(this.#left.length)
    }
    this.#part = this.#left.splice(0, this.#size)
    return this.#part
  }

  /** The items outside the last part, no more than a part may have: the rest of the round first. What is left has its turn next. */
  others (): string[] {
    const others = new Set([...this.#left, ...this.#items()])
    for (const item of this.#part) others.delete(item)
    this.#left = [...others]
    return this.#left.splice(0, this.#options.most)
  }

  /** How many of so many items a part has. */
  sizeOf (items: number): number {
    const { parts, least, most } = this.#options
    return Math.min(most, Math.max(least, Math.ceil(items / parts)))
  }
}
