/** Runs a task for each item that was added, some at once, each item once at a time and in the order they came. */
export class WorkQueue<Item extends object> {
  readonly #limit: number
  readonly #run: (item: Item) => Promise<boolean>
  readonly #waiting = new Set<Item>()
  readonly #running = new Set<Item>()

  /** `run` never rejects; `false`: the item wants another turn, after those that wait now. */
  constructor (limit: number, run: (item: Item) => Promise<boolean>) {
    this.#limit = limit
    this.#run = run
  }

  runs (item: Item): boolean {
    return this.#running.has(item)
  }

  /** Does nothing for an item that waits or runs. */
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
