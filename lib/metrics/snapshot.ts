import type { Metrics } from '../metrics.ts'
import type { Stats } from '../types.ts'
import { catalogue, refusedNotReady, type Entry } from './catalogue.ts'
import type { Histogram } from './histogram.ts'
import type { HistogramMetric, Metric, MetricsSnapshot, NumberMetric } from './types.ts'

type Numbers = Omit<NumberMetric, 'values'> & { readonly values: Array<NumberMetric['values'][number]> }

/** Returns the current metrics of an instance. `stats` is what `registry.stats()` returns, with the numbers of a custom backplane. */
export function metricsSnapshot (stats: Stats, { timings, traffic, closeCodes, logLengths }: Metrics): MetricsSnapshot {
  const numbers: Record<string, Numbers> = {}
  const add = ({ name, type, help, unit, labels = {} }: Entry, value: number): void => {
    const metric = numbers[name] ??= { type, help, ...(unit === undefined ? {} : { unit }), values: [] }
    metric.values.push({ labels, value })
  }

  // These exist before the first connection too, so that whoever asks for the names early gets them all.
  for (const { name, type, help, unit } of [closed, routeMessages, routeBytes]) {
    numbers[name] = { type, help, ...(unit === undefined ? {} : { unit }), values: [] }
  }
  let refusedByLimits = 0
  for (const [stat, value] of Object.entries(stats)) {
    // A custom backplane may call one of its numbers `constructor`, say.
    const entry = Object.hasOwn(catalogue, stat) ? catalogue[stat] : undefined
    if (entry?.name === refusedNotReady.name) refusedByLimits += value
    if (entry !== undefined) add(entry, value * (entry.factor ?? 1))
    else if (stat !== 'upgradesRefused' && stat !== 'connectionsClosed') add({ ...otherStat, labels: { stat } }, value)
  }
  add(refusedNotReady, (stats.upgradesRefused ?? 0) - refusedByLimits)
  for (const [code, count] of closeCodes.entries()) add({ ...closed, labels: { code } }, count)
  for (const [route, { messagesIn, bytesIn, messagesOut, bytesOut }] of traffic.routes()) {
    for (const [direction, messages, bytes] of [['in', messagesIn, bytesIn], ['out', messagesOut, bytesOut]] as const) {
      add({ ...routeMessages, labels: { route, direction } }, messages)
      add({ ...routeBytes, labels: { route, direction } }, bytes)
    }
  }

  const handled = stats.messagesReceived ?? 0
  return {
    ...numbers,
    publish_to_delivery_seconds: histogramOf(
      timings.delivery, 'From the call that published a message to the hand-over to sockets here, by the clocks of both instances.'
    ),
    join_duration_seconds: histogramOf(timings.join, 'How long joins took that succeeded.'),
    on_message_duration_seconds: histogramOf(timings.onMessage, 'How long onMessage took.'),
    // Most messages do not wait: they are counted here, at once, as waits of 0.
    queue_wait_seconds: histogramOf(
      timings.queueWait,
      'How long messages and requests waited for the callbacks before them.',
      { unit: 'seconds', more: Math.max(0, handled - timings.queueWait.count) }
    ),
    event_loop_lag_seconds: histogramOf(timings.loopLag.histogram, 'How late the event loop was, looked at ten times a second.'),
    log_messages: histogramOf(logLengths, 'How many messages the logs hold that this instance appends to, looked at with each append.', {})
  } satisfies Record<string, Metric>
}

interface HistogramFacts {
  readonly unit?: 'seconds' | undefined
  /** Observations of 0 that were not recorded. */
  readonly more?: number | undefined
}

function histogramOf (histogram: Histogram, help: string, { unit, more = 0 }: HistogramFacts = { unit: 'seconds' }): HistogramMetric {
  return {
    type: 'histogram',
    help,
    ...(unit === undefined ? {} : { unit }),
    buckets: histogram.bounds,
    values: [{ labels: {}, ...histogram.cumulative(more), sum: histogram.sum }]
  }
}

const closed: Entry = { name: 'connections_closed_total', type: 'counter', help: 'Connections that closed, by close code.' }
const routeMessages: Entry = { name: 'route_messages_total', type: 'counter', help: 'Messages of clients and to clients, by route.' }
const routeBytes: Entry = {
  name: 'route_bytes_total',
  type: 'counter',
  unit: 'bytes',
  help: 'Bytes of clients\' messages (in), and bytes written to sockets (out), by route.'
}
const otherStat: Entry = { name: 'other_stat', type: 'gauge', help: 'Numbers of registry.stats() that this release does not know.' }
