interface BoundedMapOptions<Key, Value> {
  /** Entries are evicted, oldest first, while their weights add up to more. */
  readonly maxWeight: number
  /** @default every entry weighs 1 */
  readonly weigh?: ((value: Value, key: Key) => number) | undefined
  /** An entry that was set longer ago (milliseconds) counts as absent, and the next `set` evicts it. @default entries do not age */
  readonly maxAgeMs?: number | undefined
  /** Milliseconds. @default `performance.now` */
  readonly now?: (() => number) | undefined
}

interface Entry<Value> { readonly value: Value, readonly weight: number, readonly at: number }

/**
 * A map in order of insertion with a limit on what it holds: the total weight of its entries and, if wanted, their age. Setting a key
 * makes its entry the newest one. The newest entry stays even where it alone is heavier than the limit.
 */
export class BoundedMap<Key, Value> {
  readonly #options: BoundedMapOptions<Key, Value>
  readonly #entries = new Map<Key, Entry<Value>>()
  #weight = 0

  constructor (options: BoundedMapOptions<Key, Value>) {
    this.#options = options
  }

  get size (): number {
    return this.#entries.size
  }

  /** The total weight of all entries. */
  get weight (): number {
    return this.#weight
  }

  has (key: Key): boolean {
    return this.#find(key) !== undefined
  }

  get (key: Key): Value | undefined {
    return this.#find(key)?.value
  }

  /** How long ago the entry was set (milliseconds); `undefined` where there is none. */
  ageMs (key: Key): number | undefined {
    const entry = this.#find(key)
    return entry === undefined ? undefined : this.#now() - entry.at
  }

  set (key: Key, value: Value): void {
    this.delete(key)
    const weight = this.#options.weigh?.(value, key) ?? 1
    this.#entries.set(key, { value, weight, at: this.#now() })
    this.#weight += weight
    for (const [oldest, entry] of this.#entries) {
      if (oldest === key || (this.#weight <= this.#options.maxWeight && !this.#isOld(entry))) break
      this.delete(oldest)
    }
  }

  delete (key: Key): boolean {
    const entry = this.#entries.get(key)
    if (entry === undefined) return false
    this.#weight -= entry.weight
    return this.#entries.delete(key)
  }

  clear (): void {
    this.#entries.clear()
    this.#weight = 0
  }

  /** The entries that are not too old, oldest first. */
  * [Symbol.iterator] (): Iterator<readonly [Key, Value]> {
    for (const [key, entry] of this.#entries) if (!this.#isOld(entry)) yield [key, entry.value]
  }

  #find (key: Key): Entry<Value> | undefined {
    const entry = this.#entries.get(key)
    return entry === undefined || this.#isOld(entry) ? undefined : entry
  }

  #isOld ({ at }: Entry<Value>): boolean {
    const { maxAgeMs } = this.#options
    return maxAgeMs !== undefined && this.#now() - at > maxAgeMs
  }

  #now (): number {
    return this.#options.now?.() ?? performance.now()
  }
}
