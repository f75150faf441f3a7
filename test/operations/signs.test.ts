import t from 'tap'
import { Change } from '../../lib/operations/dashboard/change.ts'
import { signsOf } from '../../lib/operations/dashboard/signs.ts'
import { Metrics } from '../../lib/metrics.ts'
import { metricsSnapshot } from '../../lib/metrics/snapshot.ts'

const seconds = 2

/** What an instance shows of what happened within two seconds. */
function signsAfter (happens: (metrics: Metrics) => void): readonly string[] {
  const metrics = new Metrics()
  metrics.upgradeRefused({}, 401)
  const before = metricsSnapshot({ ...metrics }, metrics)
  happens(metrics)
  return signsOf(new Change(metricsSnapshot({ ...metrics }, metrics), before, seconds))
}

/** Does it this many times. */
function repeat (times: number, act: () => void): void {
  for (let n = 0; n < times; n++) act()
}

const closed = (metrics: Metrics, code: number): void => metrics.closeCodes.add(code)

t.test('an instance that suffers says from what', async (t) => {
  t.strictSame(signsAfter(() => {}), [])
  t.match(signsAfter(({ timings }) => timings.loopLag.histogram.observe(0.3)), [/event loop/])
  t.match(signsAfter(({ timings }) => timings.delivery.observe(0.7)), [/delivered late/])
  t.match(signsAfter(metrics => {
    metrics.messagesReceived = 1
    metrics.timings.queueWait.observe(1.5)
  }), [/messages wait/])
  t.strictSame(signsAfter(metrics => repeat(10, () => metrics.limitHit('refusedAddressRate'))), ['upgrades are refused: address_rate'])
  t.strictSame(signsAfter(metrics => repeat(10, () => metrics.upgradeRefused({}, 503))), ['upgrades are refused: failed'])
  t.strictSame(signsAfter(metrics => { metrics.publishedLocally++ }), ['the backplane is out for some calls: published_locally'])
  t.match(signsAfter(metrics => repeat(10, () => closed(metrics, 1011))), [/1011/])
})

t.test('what is usual is no sign', async (t) => {
  t.strictSame(signsAfter(metrics => {
    repeat(10, () => metrics.upgradeRefused({}, 401))
    metrics.connectionsOpened += 20
    metrics.upgradesRefused += 10
    repeat(10, () => closed(metrics, 1001))
    closed(metrics, 1011)
    repeat(100, () => metrics.timings.delivery.observe(0.01))
    repeat(20, () => metrics.timings.loopLag.histogram.observe(0.2))
    metrics.timings.delivery.observe(0.7)
  }), [])
  const more = signsAfter(metrics => repeat(10, () => metrics.upgradeRefused({}, 401)))
  t.strictSame(more, ['upgrades are refused: unauthorized'], 'more than get in are not')
  const few = signsAfter(metrics => metrics.upgradeRefused({}, 500))
  t.strictSame(few, ['upgrades are refused: failed'], 'nor are few, when nobody gets in')
})

t.test('before there is a second snapshot nothing happened', async (t) => {
  const metrics = new Metrics()
  repeat(10, () => metrics.upgradeRefused({}, 403))
  const first = new Change(metricsSnapshot({ ...metrics }, metrics), undefined, seconds)
  t.strictSame(signsOf(first), [])
  t.equal(first.perSecond('upgrades_refused_total'), 0)
})
