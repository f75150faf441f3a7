/** How long large chunks may be read in one turn of the event loop (milliseconds). */
const shareMs = 5

/**
 * Keeps a flood of small frames from occupying the event loop. A large chunk of the network may hold ten thousand frames: it is read in
 * parts, and what does not fit into a turn waits behind the parts of others. Small chunks, as harmless clients send them, never wait.
 */
export class LoopShare {
  readonly #waiting: Array<() => void> = []
  readonly #now: () => number
  /** The time at which the share of this turn is used up. */
  #endsAt = 0
  #armed = false

  constructor (now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** Whether there is time left in this turn; if not, `goOn` is called in a later one, and asks again. */
  hasTime (goOn: () => void): boolean {
    if (!this.#armed) this.#begin()
    if (this.#now() < this.#endsAt) return true
    this.#waiting.push(goOn)
    return false
  }

  #begin (): void {
    this.#armed = true
    this.#endsAt = this.#now() + shareMs
    setImmediate(() => { this.#next() })
  }

  /** The turn is over. */
  #next (): void {
    this.#armed = false
    if (this.#waiting.length === 0) return
    this.#begin()
    for (let count = this.#waiting.length; count > 0 && this.#now() < this.#endsAt; count--) this.#waiting.shift()?.()
  }
}
