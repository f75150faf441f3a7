/** Numbers that look random and are the same for the same seed. */
export class Random {
  #state: number

  constructor (seed: number) {
    this.#state = seed >>> 0
  }

  /** In [0, 1). */
  next (): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }

  between (low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1))
  }

  pick<Item> (items: readonly Item[]): Item {
    const item = items[this.between(0, items.length - 1)]
    if (item === undefined) throw new RangeError('nothing to pick from')
    return item
  }

  shuffle<Item> (items: readonly Item[]): Item[] {
    return items.map(item => ({ item, key: this.next() })).sort((a, b) => a.key - b.key).map(({ item }) => item)
  }
}
