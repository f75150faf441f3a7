import type { HistogramMetric, MetricsSnapshot, NumberMetric } from '../../types.ts'

/** Compares two snapshots of an instance's metrics. */
export class Change {
  readonly #now: MetricsSnapshot
  /** `undefined` for the first snapshot: then nothing counts as changed. */
  readonly #before: MetricsSnapshot | undefined
  readonly #seconds: number

  constructor (now: MetricsSnapshot, before: MetricsSnapshot | undefined, seconds: number) {
    this.#now = now
    this.#before = before
    this.#seconds = Math.max(0.001, seconds)
  }

  /** How much a counter grew in a second. */
  perSecond (name: string): number {
    return [...this.perSecondBy(name, '').values()].reduce((sum, rate) => sum + rate, 0)
  }

  /** How much a counter grew in a second, by the value of a label. */
  perSecondBy (name: string, label: string): ReadonlyMap<string, number> {
    const rates = new Map<string, number>()
    if (this.#before === undefined) return rates
    const add = (metric: NumberMetric | undefined, sign: 1 | -1): void => {
      for (const { labels: { [label]: key = '' }, value } of metric?.values ?? []) {
        rates.set(key, (rates.get(key) ?? 0) + sign * value / this.#seconds)
      }
    }
    add(this.#now[name] as NumberMetric | undefined, 1)
    add(this.#before[name] as NumberMetric | undefined, -1)
    return rates
  }

  /** The bucket bound below which 99 of 100 observations fell, in seconds; `null` without observations. */
  p99 (name: string): number | null {
    const [now, then] = [this.#now[name], this.#before?.[name]] as ReadonlyArray<HistogramMetric | undefined>
    const [value, old] = [now?.values[0], then?.values[0]]
    if (now === undefined || value === undefined || old === undefined || value.count === old.count) return null
    const at = value.counts.findIndex((count, index) => count - (old.counts[index] ?? 0) >= 0.99 * (value.count - old.count))
    return now.buckets[at] ?? now.buckets.at(-1) ?? null
  }
}
