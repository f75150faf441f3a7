/** What kind of number a metric is: a counter never goes down while the process lives, a gauge may. */
export type MetricType = 'counter' | 'gauge' | 'histogram'

/** Names of labels and their values. Values come from code (routes, reasons, close codes), never from groups or users. */
export type MetricLabels = Readonly<Record<string, string>>

export interface MetricBase {
  /** What the metric tells, in one sentence. */
  readonly help: string
  /** The unit, which the name of the metric contains too; left out for plain numbers. */
  readonly unit?: 'seconds' | 'bytes' | undefined
}

/** A counter or a gauge; one value for each set of labels. */
export interface NumberMetric extends MetricBase {
  readonly type: 'counter' | 'gauge'
  readonly values: ReadonlyArray<{ readonly labels: MetricLabels, readonly value: number }>
}

export interface HistogramValue {
  readonly labels: MetricLabels
  /** How many observations were at most as large as each bound of `buckets`, as Prometheus counts them: each includes those before it. */
  readonly counts: readonly number[]
  readonly count: number
  readonly sum: number
}

export interface HistogramMetric extends MetricBase {
  readonly type: 'histogram'
  /** Upper bounds, smallest first; observations beyond the last are in `count` alone. */
  readonly buckets: readonly number[]
  readonly values: readonly HistogramValue[]
}

export type Metric = NumberMetric | HistogramMetric

/** Metrics by name: Prometheus's conventions, without the prefix that an exporter puts in front. */
export type MetricsSnapshot = Readonly<Record<string, Metric>>
