import type { Change } from './change.ts'

/** Seconds. */
const limits = { lag: 0.25, delivery: 0.5, queueWait: 1 }
/** Refused upgrades, or connections closed because of errors, that are too many. */
const perSecond = 1

/**
 * What an instance suffers from that its health does not say: what the alerts of docs/operations.md tell, with the same thresholds. The
 * sentences have no numbers in them, so that those of a thousand instances are one.
 */
export function signsOf (change: Change, lagP99: number): readonly string[] {
  const often = (name: string, label: string, limit = perSecond): ReadonlyArray<readonly [string, number]> =>
    [...change.perSecondBy(name, label)].filter(([, rate]) => rate > limit)
  const above = (name: string, limit: number): boolean => (change.p99(name) ?? 0) > limit
  return [
    ...often('outage_decisions_total', 'decision', 0).map(([decision]) => `the backplane is out for some calls: ${decision}`),
    ...lagP99 > limits.lag ? ['the event loop is late: something holds the process up'] : [],
    ...above('queue_wait_seconds', limits.queueWait) ? ['messages wait: callbacks take longer than messages take to come'] : [],
    ...above('publish_to_delivery_seconds', limits.delivery) ? ['messages are delivered late'] : [],
    ...often('upgrades_refused_total', 'reason')
      // Tokens end all the time, and an instance that is not ready says so itself.
      .filter(([reason, rate]) => reason !== 'unauthorized' || rate > change.perSecond('connections_opened_total'))
      .filter(([reason]) => reason !== 'not_ready')
      .map(([reason]) => `upgrades are refused: ${reason}`),
    ...often('connections_closed_total', 'code')
      .filter(([code]) => code === '1011' || code === '1013')
      .map(([code]) => `connections are closed because of errors (${code}): the log says which`)
  ]
}
