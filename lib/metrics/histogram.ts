/** Upper bounds in seconds: from a message between two processes of one machine to a callback that hangs. */
const secondsBuckets: readonly number[] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

/** Counts observations in fixed buckets. An observation allocates nothing. */
export class Histogram {
  readonly bounds: readonly number[]
  /** How many observations fell between each bound and the one before it; the last count is of those beyond all bounds. */
  readonly #counts: Float64Array
  #sum = 0
  #count = 0

  constructor (bounds: readonly number[] = secondsBuckets) {
    this.bounds = bounds
    this.#counts = new Float64Array(bounds.length + 1)
  }

  get sum (): number {
    return this.#sum
  }

  get count (): number {
    return this.#count
  }

  /** Negative values count as 0: the clocks of two instances may disagree. */
  observe (value: number): void {
    const { bounds } = this
    let at = 0
    while (at < bounds.length && value > (bounds[at] ?? 0)) at++
    this.#counts[at] = (this.#counts[at] ?? 0) + 1
    this.#count++
    if (value > 0) this.#sum += value
  }

  /** Observes the time since `startedAt`, by `performance.now()`. */
  observeSince (startedAt: number): void {
    this.observe((performance.now() - startedAt) / 1_000)
  }

  /** Counts as Prometheus does: each bucket includes those before it. `more`: observations of 0 that were not recorded one by one. */
  cumulative (more = 0): { readonly counts: readonly number[], readonly count: number } {
    let below = more
    return { counts: this.bounds.map((_, at) => (below += this.#counts[at] ?? 0)), count: this.#count + more }
  }
}
