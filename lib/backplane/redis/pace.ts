/** Work that is worth gathering for: in a storm this is how long it may wait for more of its kind (ms). */
const gapMs = 5

/** Begins work at once after a quiet moment, and otherwise not sooner than some milliseconds after it began last: thousands of changes become few commands. */
export class Throttle {
  #lastAt = -Infinity
  #timer: NodeJS.Timeout | undefined
  #waiting: (() => void) | undefined

  /** Not called again before `begin` was. `plenty`: it is not worth waiting for more. */
  soon (begin: () => void, plenty = false): void {
    this.#waiting = begin
    const left = plenty ? 0 : this.#lastAt + gapMs - performance.now()
    // Either way the rest of this turn's changes come along.
    if (left <= 0) queueMicrotask(() => this.#begin())
    else this.#timer = setTimeout(() => this.#begin(), left)
  }

  /** What waits begins now. */
  close (): void {
    clearTimeout(this.#timer)
    this.#begin()
  }

  #begin (): void {
    const begin = this.#waiting
    if (begin === undefined) return
    this.#waiting = undefined
    this.#lastAt = performance.now()
    begin()
  }
}
