/** How a measure in milliseconds is spread; can be sent to another process and added up there. */
export class Spread {
  readonly counts = new Map<number, number>()

  static sum (all: ReadonlyArray<ReadonlyMap<number, number>>): Spread {
    const sum = new Spread()
    for (const counts of all) for (const [ms, count] of counts) sum.add(ms, count)
    return sum
  }

  add (ms: number, count = 1): void {
    const whole = Math.max(0, Math.round(ms))
    this.counts.set(whole, (this.counts.get(whole) ?? 0) + count)
  }

  /** `undefined` when there is nothing. */
  quantile (share: number): number | undefined {
    const total = [...this.counts.values()].reduce((a, b) => a + b, 0)
    let below = 0
    for (const [ms, count] of [...this.counts].sort(([a], [b]) => a - b)) {
      below += count
      if (below >= total * share) return ms
    }
    return undefined
  }

  /** Median / 99 % / worst. */
  toString (): string {
    return [0.5, 0.99, 1].map(share => this.quantile(share) ?? '-').join(' / ')
  }

  toJSON (): object {
    return { p50: this.quantile(0.5), p99: this.quantile(0.99), max: this.quantile(1) }
  }
}
