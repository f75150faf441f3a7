interface RoundOptions {
  /** In how many parts a round goes through all items. */
  readonly parts: number
  /** The fewest, and the most, items of a part. */
  readonly least: number
  readonly most?: number
}

/** Goes through a collection that changes, a part at a time, and then again. */
export class Round {
  readonly #items: () => Iterable<string>
  readonly #options: RoundOptions
  /** The items of this round, and how many of them had their turn. */
  #round: string[] = []
  #done = 0
  #size = 0

  constructor (items: () => Iterable<string>, options: RoundOptions) {
    this.#items = items
    this.#options = options
  }

  /** The next part. A round has the items that are there when it begins. */
  next (): string[] {
    if (this.#done >= this.#round.length) {
      const { parts, least, most = Infinity } = this.#options
      this.#round = [...this.#items()]
      this.#size = Math.min(most, Math.max(least, Math.ceil(this.#round.length / parts)))
      this.#done = 0
    }
    this.#done += this.#size
    return this.#round.slice(this.#done - this.#size, this.#done)
  }

  /** The items outside the last part, those of the rest of the round first, no more than a part may have. Another round begins then. */
  others (): string[] {
    const part = new Set(this.#round.slice(this.#done - this.#size, this.#done))
    const others = [...new Set([...this.#round.slice(this.#done), ...this.#items()])].filter(item => !part.has(item))
    this.#done = this.#round.length
    return others.slice(0, this.#options.most)
  }
}
