import type { Change } from './change.ts'

/** Seconds. */
const limits = { lag: 0.25, delivery: 0.5, queueWait: 1 }
/** Refused upgrades, or connections closed because of errors, that are too many. */
const perSecond = 1

/**
 * Names the problems of an instance that its health does not show: those of the alerts in docs/operations.md, with the same thresholds. The
 * sentences contain no numbers, so that the same problem of a thousand instances is one sentence.
 */
export function signsOf (change: Change): readonly string[] {
  const often = (name: string, label: string, limit = perSecond): ReadonlyArray<readonly [string, number]> =>
    [...change.perSecondBy(name, label)].filter(([, rate]) => rate > limit)
  const opened = change.perSecond('connections_opened_total')
  const above = (name: string, limit: number): boolean => (change.p99(name) ?? 0) > limit
  return [
    ...often('outage_decisions_total', 'decision', 0).map(([decision]) => `the backplane is out for some calls: ${decision}`),
    ...above('event_loop_lag_seconds', limits.lag) ? ['the event loop is late: something holds the process up'] : [],
    ...above('queue_wait_seconds', limits.queueWait) ? ['messages wait: callbacks take longer than messages take to come'] : [],
    ...above('publish_to_delivery_seconds', limits.delivery) ? ['messages are delivered late'] : [],
    ...often('upgrades_refused_total', 'reason', 0)
      // Some tokens expire all the time: what counts is whether more clients are refused than let in.
      .filter(([reason, rate]) => rate > opened || (rate > perSecond && reason !== 'unauthorized'))
      // An instance that is not ready says so itself.
      .filter(([reason]) => reason !== 'not_ready')
      .map(([reason]) => `upgrades are refused: ${reason}`),
    ...often('connections_closed_total', 'code')
      .filter(([code]) => code === '1011' || code === '1013')
      .map(([code]) => `connections are closed because of errors (${code}): the log says which`)
  ]
}
