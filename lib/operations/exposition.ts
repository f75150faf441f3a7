import type { Metric, MetricLabels, MetricsSnapshot } from '../types.ts'

/** The prefix of all metric names. */
export const defaultNamePrefix = 'websocket_groups_'

export const contentType = 'text/plain; version=0.0.4; charset=utf-8'

/** One line of a metric. `metricName` is set on the lines of a histogram, whose names end in `_bucket`, `_sum` or `_count`. */
export interface Sample { readonly metricName?: string | undefined, readonly labels: MetricLabels, readonly value: number }

/** The lines of a metric, in the order of Prometheus's clients. */
export function samplesOf (name: string, metric: Metric): readonly Sample[] {
  if (metric.type !== 'histogram') return metric.values
  return metric.values.flatMap(({ labels, counts, count, sum }) => [
    ...[...metric.buckets, '+Inf'].map((bound, at) => (
      { metricName: `${name}_bucket`, labels: { le: String(bound), ...labels }, value: counts[at] ?? count }
    )),
    { metricName: `${name}_sum`, labels, value: sum },
    { metricName: `${name}_count`, labels, value: count }
  ])
}

/** Writes a snapshot in Prometheus's text format. */
export function exposition (metrics: MetricsSnapshot, namePrefix: string): string {
  return Object.entries(metrics).map(([short, metric]) => {
    const name = namePrefix + short
    const lines = samplesOf(name, metric).map(
      ({ metricName = name, labels, value }) => `${metricName}${labelled(labels)} ${numeral(value)}`
    )
    return [`# HELP ${name} ${escaped(metric.help)}`, `# TYPE ${name} ${metric.type}`, ...lines, ''].join('\n')
  }).join('\n')
}

function labelled (labels: MetricLabels): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value).replaceAll('"', '\\"')}"`)
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`
}

function escaped (text: string): string {
  return text.replaceAll('\\', '\\\\').replaceAll('\n', '\\n')
}

function numeral (value: number): string {
  return Number.isFinite(value) ? String(value) : Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf'
}
