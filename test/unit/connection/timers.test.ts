import t, { type Test } from 'tap'
import type { LocalConnection } from '../../../lib/connection/connection.ts'
import { Expiry } from '../../../lib/connection/expiry.ts'
import { Heartbeat } from '../../../lib/connection/heartbeat.ts'
import { Pulse } from '../../../lib/connection/pulse.ts'
import { Metrics } from '../../../lib/metrics.ts'
import { until } from '../../helpers/until.ts'

const day = 86_400_000

class FakeConnection {
  readonly pulse = new Pulse()
  readonly outbound = { traffic: {} }
  pings = 0
  left = false
  closed = false
  closedWith: number | undefined
  terminated = false
  readonly log = { debug: () => {} }

  ping (): void {
    this.pings++
  }

  leaving (): void { this.left = true }

  terminate (): void { this.terminated = true }
  closeForFault (code: number): void { this.closedWith = code }
  get asLocal (): LocalConnection { return this as unknown as LocalConnection }
}

t.test('heartbeat', async t => {
  const build = (t: Test, intervalMs: number, connections: FakeConnection[]): { heartbeat: Heartbeat, metrics: Metrics } => {
    const metrics = new Metrics()
    const heartbeat = new Heartbeat(intervalMs, () => connections.map(one => one.asLocal), metrics)
    t.teardown(() => heartbeat.stop())
    heartbeat.start()
    return { heartbeat, metrics }
  }

  t.test('a connection that gives no sign of life is terminated', async t => {
    const silent = new FakeConnection()
    const { metrics } = build(t, 5, [silent])
    await until(() => silent.terminated)
    t.equal(silent.pings, 1)
    t.equal(metrics.heartbeatTimeouts >= 1, true)
  })

  t.test('a connection that answers lives on', async t => {
    const alive = new FakeConnection()
    alive.ping = function () {
      this.pings++
      this.pulse.ponged()
    }
    build(t, 2, [alive])
    await until(() => alive.pings > 10)
    t.equal(alive.terminated, false)
  })

  t.test('a connection whose socket is half closed is given up, and not pinged', async t => {
    const half = Object.assign(new FakeConnection(), { closed: true })
    build(t, 2, [half])
    await until(() => half.left)
    t.equal(half.pings, 0)
  })

  t.test('thousands are pinged in batches, with the event loop free in between', async t => {
    const many = Array.from({ length: 1_000 }, () => new FakeConnection())
    let largest = 0
    let inTurn = 0
    for (const one of many) {
      one.ping = function () {
        if (this.pings++ > 0) return
        if (inTurn++ === 0) process.nextTick(() => { inTurn = 0 })
        largest = Math.max(largest, inTurn)
      }
    }
    build(t, 5, many)
    await until(() => many.every(one => one.pings > 0))
    t.ok(largest <= 256, String(largest))
  })

  t.test('stop ends the timer and a sweep under way', async t => {
    const many = Array.from({ length: 1_000 }, () => new FakeConnection())
    const { heartbeat } = build(t, 5, many)
    await until(() => (many[0]?.pings ?? 0) > 0, { everyMs: 0 })
    heartbeat.stop()
    const pinged = many.reduce((sum, one) => sum + one.pings, 0)
    const witness = new FakeConnection()
    build(t, 5, [witness])
    await until(() => witness.terminated)
    t.equal(many.reduce((sum, one) => sum + one.pings, 0), pinged)
  })

  t.test('an interval of 0 disables it', async t => {
    const one = new FakeConnection()
    build(t, 0, [one])
    const witness = new FakeConnection()
    build(t, 1, [witness])
    await until(() => witness.terminated)
    t.equal(one.pings, 0)
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
    const soon = new FakeConnection()
    const later = new FakeConnection()
    const expiresAt = Date.now() + 60
    expiry.add(later.asLocal, Date.now() + day)
    expiry.add(soon.asLocal, expiresAt)
    await until(() => soon.closedWith !== undefined, { everyMs: 1 })
    t.ok(Date.now() >= expiresAt)
    t.equal(soon.closedWith, 4401)
    t.equal(later.closedWith, undefined)
    t.equal(metrics.tokensExpired, 1)
  })

  t.test('an identity that ends in months does not end at once', async t => {
    // setTimeout with more than 2^31 ms fires after one.
    const warnings: Error[] = []
    const warned = (warning: Error): void => { warnings.push(warning) }
    process.on('warning', warned)
    t.teardown(() => process.off('warning', warned))
    const { expiry } = build(t)
    const far = new FakeConnection()
    const past = new FakeConnection()
    expiry.add(far.asLocal, Date.now() + 90 * day)
    expiry.add(past.asLocal, Date.now() - 1)
    await until(() => past.closedWith === 4401)
    t.equal(far.closedWith, undefined)
    t.strictSame(warnings, [])
  })

  t.test('a clock that is set forward is noticed', async t => {
    let now = 0
    const { expiry } = build(t, () => now)
    const one = new FakeConnection()
    const other = new FakeConnection()
    expiry.add(one.asLocal, day)
    now = day
    expiry.add(other.asLocal, 5)
    await until(() => one.closedWith === 4401)
    t.equal(other.closedWith, 4401)
  })

  t.test('sweeps keep a distance of a second, and the next one comes', async t => {
    const { expiry } = build(t)
    const first = new FakeConnection()
    const second = new FakeConnection()
    expiry.add(first.asLocal, Date.now() - 1)
    expiry.add(second.asLocal, Date.now() + 100)
    await until(() => first.closedWith === 4401, { everyMs: 1 })
    const before = Date.now()
    await until(() => second.closedWith === 4401)
    t.ok(Date.now() - before < 2_000)
  })

  t.test('a connection that is gone or closing is left alone', async t => {
    const { expiry, metrics } = build(t)
    const gone = new FakeConnection()
    const closing = Object.assign(new FakeConnection(), { closed: true })
    const last = new FakeConnection()
    const expiresAt = Date.now() + 20
    for (const one of [gone, closing, last]) expiry.add(one.asLocal, expiresAt)
    expiry.remove(gone.asLocal)
    await until(() => last.closedWith === 4401)
    t.strictSame([gone.closedWith, closing.closedWith], [undefined, undefined])
    t.equal(metrics.tokensExpired, 1)
  })

  t.test('Infinity never comes, and an end that is no number is over already', async t => {
    const { expiry } = build(t)
    const [never, ...over] = [Infinity, NaN, -Infinity].map(expiresAt => {
      const one = new FakeConnection()
      expiry.add(one.asLocal, expiresAt)
      return one
    })
    const last = new FakeConnection()
    expiry.add(last.asLocal, Date.now() + 5)
    await until(() => last.closedWith === 4401)
    for (const one of over) t.equal(one.closedWith, 4401)
    t.equal(never?.closedWith, undefined)
  })

  t.test('after stop nothing is closed', async t => {
    const { expiry } = build(t)
    const one = new FakeConnection()
    const witness = new FakeConnection()
    expiry.add(one.asLocal, Date.now() + 10)
    expiry.stop()
    build(t).expiry.add(witness.asLocal, Date.now() + 20)
    await until(() => witness.closedWith === 4401)
    t.equal(one.closedWith, undefined)
  })
})
