/** Divides a list into pieces of at most `size` items. */
export function * chunks<Item> (items: readonly Item[], size: number): Iterable<Item[]> {
  for (let start = 0; start < items.length; start += size) yield items.slice(start, start + size)
}

/** The first `most` items. Looks at no others. */
export function first<Item> (items: Iterable<Item>, most: number): Item[] {
  const taken: Item[] = []
  for (const item of items) {
    if (taken.push(item) >= most) break
  }
  return taken
}

/** First-in, first-out work queue with a concurrency limit. An item never runs twice at the same time. */
export class WorkQueue<Item extends object> {
  readonly #limit: number
  readonly #run: (item: Item) => Promise<boolean>
  readonly #waiting = new Set<Item>()
  readonly #running = new Set<Item>()

  /** `run` must never reject. When it resolves `false`, the item runs again after those that wait now. */
  constructor (limit: number, run: (item: Item) => Promise<boolean>) {
    this.#limit = limit
    this.#run = run
  }

  /** Whether the item runs now. */
  runs (item: Item): boolean {
    return this.#running.has(item)
  }

  /** Does nothing for an item that already waits or runs. */
  add (item: Item): void {
    if (this.#running.has(item)) return
    this.#waiting.add(item)
    this.#next()
  }

  delete (item: Item): void {
    this.#waiting.delete(item)
  }

  clear (): void {
    this.#waiting.clear()
  }

  #next (): void {
    while (this.#running.size < this.#limit) {
      const [item] = this.#waiting
      if (item === undefined) return
      this.#waiting.delete(item)
      this.#running.add(item)
      void this.#run(item).then(done => {
        this.#running.delete(item)
        if (!done) this.#waiting.add(item)
        this.#next()
      })
    }
  }
}

/** The shortest time between two starts (milliseconds). */
const gapMs = 8

/**
 * Starts work at once after a quiet moment, and otherwise a few milliseconds after the last start, so that thousands of changes become few
 * commands.
 */
export class Throttle {
  readonly #now: () => number
  #lastAt = -Infinity
  #timer: NodeJS.Timeout | undefined
  #waiting: (() => void) | undefined

  /** Tests inject `now`. */
  constructor (now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** Calls `begin` soon. Must not be called again until then. `plenty`: so much work is there that waiting for more is not worth it. */
  soon (begin: () => void, plenty = false): void {
    this.#waiting = begin
    const left = plenty ? 0 : this.#lastAt + gapMs - this.#now()
    // Not at once: the changes that follow in this turn of the event loop come along.
    if (left <= 0) queueMicrotask(() => this.#begin())
    else this.#timer = setTimeout(() => this.#begin(), left)
  }

  /** Starts the waiting work now. */
  close (): void {
    clearTimeout(this.#timer)
    this.#begin()
  }

  #begin (): void {
    const begin = this.#waiting
    if (begin === undefined) return
    this.#waiting = undefined
    this.#lastAt = this.#now()
    begin()
  }
}
