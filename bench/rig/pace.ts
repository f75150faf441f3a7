/** After a stall it catches up with at most what is due in this time at once. */
const mostMs = 5

/** Calls `action` at a rate, by the clock: late calls are made up for, but not in one burst. */
export class Pace {
  readonly #perMs: number
  readonly #action: () => void
  readonly #start = performance.now()
  #done = 0
  #timer: NodeJS.Timeout | undefined

  constructor (perSecond: number, action: () => void) {
    this.#perMs = perSecond / 1_000
    this.#action = action
    this.#turn()
  }

  #turn (): void {
    const due = Math.floor((performance.now() - this.#start) * this.#perMs)
    const most = this.#done + Math.max(1, Math.ceil(mostMs * this.#perMs))
    while (this.#done < Math.min(due, most)) {
      this.#done++
      this.#action()
    }
    const nextAt = this.#start + (this.#done + 1) / this.#perMs
    this.#timer = setTimeout(() => this.#turn(), Math.max(1, nextAt - performance.now()))
  }

  stop (): void {
    clearTimeout(this.#timer)
  }
}
