import t, { type Test } from 'tap'
import { Expiry } from '../../../lib/connection/expiry.ts'
import { Heartbeat } from '../../../lib/connection/heartbeat.ts'
import { Metrics } from '../../../lib/metrics.ts'
import { fakeConnection, type FakeConnection } from '../../helpers/fakes.ts'
import { until } from '../../helpers/until.ts'

const day = 86_400_000

const pings = ({ calls }: FakeConnection): number => calls.filter(call => call === 'ping').length
const isTerminated = ({ calls }: FakeConnection): boolean => calls.includes('terminate')
/** The code that the connection was closed with. */
const closedWith = ({ calls }: FakeConnection): number | undefined => calls[0] === undefined
  ? undefined
  : Number(calls[0].replace('fault ', ''))

t.test('heartbeat', async t => {
  const build = (t: Test, intervalMs: number, connections: FakeConnection[]): { heartbeat: Heartbeat, metrics: Metrics } => {
    const metrics = new Metrics()
    const heartbeat = new Heartbeat(intervalMs, () => connections, metrics)
    t.teardown(() => heartbeat.stop())
    heartbeat.start()
    return { heartbeat, metrics }
  }

  t.test('a connection that gives no sign of life is terminated', async t => {
    const silent = fakeConnection('i.1')
    const { metrics } = build(t, 5, [silent])
    await until(() => isTerminated(silent))
    t.equal(pings(silent), 1)
    t.equal(metrics.heartbeatTimeouts >= 1, true)
  })

  t.test('a connection that answers lives on', async t => {
    const alive = fakeConnection('i.1')
    alive.ping = () => {
      alive.calls.push('ping')
      alive.pulse.ponged()
    }
    build(t, 2, [alive])
    await until(() => pings(alive) > 10)
    t.equal(isTerminated(alive), false)
  })

  t.test('a connection whose socket is half closed is given up, and not pinged', async t => {
    const half = Object.assign(fakeConnection('i.1'), { closed: true })
    build(t, 2, [half])
    await until(() => half.calls.includes('leaving'))
    t.equal(pings(half), 0)
  })

  t.test('thousands are pinged in batches, with the event loop free in between', async t => {
    const many = Array.from({ length: 1_000 }, () => fakeConnection('i.1'))
    let largest = 0
    let inTurn = 0
    for (const one of many) {
      one.ping = () => {
        if (one.calls.push('ping') > 1) return
        if (inTurn++ === 0) process.nextTick(() => { inTurn = 0 })
        largest = Math.max(largest, inTurn)
      }
    }
    build(t, 5, many)
    await until(() => many.every(one => pings(one) > 0))
    t.ok(largest <= 256, String(largest))
  })

  t.test('stop ends the timer and a sweep under way', async t => {
    const many = Array.from({ length: 1_000 }, () => fakeConnection('i.1'))
    const { heartbeat } = build(t, 5, many)
    await until(() => many[0] !== undefined && pings(many[0]) > 0, { everyMs: 0 })
    heartbeat.stop()
    const pinged = many.reduce((sum, one) => sum + pings(one), 0)
    const witness = fakeConnection('i.1')
    build(t, 5, [witness])
    await until(() => isTerminated(witness))
    t.equal(many.reduce((sum, one) => sum + pings(one), 0), pinged)
  })

  t.test('an interval of 0 disables it', async t => {
    const one = fakeConnection('i.1')
    build(t, 0, [one])
    const witness = fakeConnection('i.1')
    build(t, 1, [witness])
    await until(() => isTerminated(witness))
    t.equal(pings(one), 0)
  })
})

t.test('expiry', async t => {
  const build = (t: Test, now?: () => number): { expiry: Expiry, metrics: Metrics } => {
    const metrics = new Metrics()
    const expiry = new Expiry(metrics, now)
    t.teardown(() => expiry.stop())
    return { expiry, metrics }
  }

  t.test('a connection is closed with 4401 when its identity ends, not before', async t => {
    const { expiry, metrics } = build(t)
    const soon = fakeConnection('i.1')
    const later = fakeConnection('i.1')
    const expiresAt = Date.now() + 60
    expiry.add(later, Date.now() + day)
    expiry.add(soon, expiresAt)
    await until(() => closedWith(soon) !== undefined, { everyMs: 1 })
    t.ok(Date.now() >= expiresAt)
    t.equal(closedWith(soon), 4401)
    t.equal(closedWith(later), undefined)
    t.equal(metrics.tokensExpired, 1)
  })

  t.test('an identity that ends in months does not end at once', async t => {
    // setTimeout with more than 2^31 ms fires after one.
    const warnings: Error[] = []
    const warned = (warning: Error): void => { warnings.push(warning) }
    process.on('warning', warned)
    t.teardown(() => process.off('warning', warned))
    const { expiry } = build(t)
    const far = fakeConnection('i.1')
    const past = fakeConnection('i.1')
    expiry.add(far, Date.now() + 90 * day)
    expiry.add(past, Date.now() - 1)
    await until(() => closedWith(past) === 4401)
    t.equal(closedWith(far), undefined)
    t.strictSame(warnings, [])
  })

  t.test('a clock that is set forward is noticed', async t => {
    let now = 0
    const { expiry } = build(t, () => now)
    const one = fakeConnection('i.1')
    const other = fakeConnection('i.1')
    expiry.add(one, day)
    now = day
    expiry.add(other, 5)
    await until(() => closedWith(one) === 4401)
    t.equal(closedWith(other), 4401)
  })

  t.test('sweeps keep a distance of a second, and the next one comes', async t => {
    const { expiry } = build(t)
    const closedAt: number[] = []
    for (const inMs of [-1, 100]) {
      expiry.add({ closed: false, closeForFault () { closedAt.push(performance.now()) } }, Date.now() + inMs)
    }
    await until(() => closedAt.length === 2, { timeoutMs: 60_000 })
    const [one = 0, two = 0] = closedAt
    t.ok(two - one >= 900, `${(two - one).toFixed()} ms`)
  })

  t.test('a connection that is gone or closing is left alone', async t => {
    const { expiry, metrics } = build(t)
    const gone = fakeConnection('i.1')
    const closing = Object.assign(fakeConnection('i.1'), { closed: true })
    const last = fakeConnection('i.1')
    const expiresAt = Date.now() + 20
    for (const one of [gone, closing, last]) expiry.add(one, expiresAt)
    expiry.remove(gone)
    await until(() => closedWith(last) === 4401)
    t.strictSame([closedWith(gone), closedWith(closing)], [undefined, undefined])
    t.equal(metrics.tokensExpired, 1)
  })

  t.test('Infinity never comes, and an end that is no number is over already', async t => {
    const { expiry } = build(t)
    const [never, ...over] = [Infinity, NaN, -Infinity].map(expiresAt => {
      const one = fakeConnection('i.1')
      expiry.add(one, expiresAt)
      return one
    })
    const last = fakeConnection('i.1')
    expiry.add(last, Date.now() + 5)
    await until(() => closedWith(last) === 4401)
    for (const one of over) t.equal(closedWith(one), 4401)
    t.equal(never && closedWith(never), undefined)
  })

  t.test('after stop nothing is closed', async t => {
    const { expiry } = build(t)
    const one = fakeConnection('i.1')
    const witness = fakeConnection('i.1')
    expiry.add(one, Date.now() + 10)
    expiry.stop()
    build(t).expiry.add(witness, Date.now() + 20)
    await until(() => closedWith(witness) === 4401)
    t.equal(closedWith(one), undefined)
  })
})
