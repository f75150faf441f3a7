import t from 'tap'
import { deferred } from '../../../lib/deadline.ts'
import { Departures, drainConnections } from '../../../lib/connection/drain.ts'
import { drainSlowly } from '../../../lib/connection/drain-slowly.ts'
import { Metrics } from '../../../lib/metrics.ts'
import { atOnce } from '../../helpers/at-once.ts'
import { fakeConnection, type FakeConnection } from '../../helpers/fakes.ts'
import { watchMachine } from '../../helpers/machine.ts'
import { until } from '../../helpers/until.ts'

const machine = watchMachine(t)

/** Finishes when closed, when forced, or never. */
function closing (finishes: 'when closed' | 'when forced' | 'never'): FakeConnection {
  const finished = deferred()
  const connection = fakeConnection('i.1')
  const { close, forceClosed } = connection
  return Object.assign(connection, {
    finished: finished.promise,
    close (code: number, reason: string) {
      close.call(connection, code, reason)
      if (finishes === 'when closed') finished.resolve()
    },
    forceClosed (code: number, reason: string) {
      forceClosed.call(connection, code, reason)
      if (finishes === 'when forced') finished.resolve()
    }
  })
}

t.test('thousands are closed with the code and its reason, in batches, and nobody is forced who answers', async (t) => {
  const all = Array.from({ length: 1_000 }, () => closing('when closed'))
  const done = drainConnections(all, 1001, 5_000)
  t.equal(all.filter(({ calls }) => calls.length > 0).length, 256, 'the first batch at once')
  await done
  t.ok(all.every(({ calls }) => calls.join() === 'close 1001 server is going away'))
})

t.test('who does not answer within the grace is forced, and gets 400 ms more for its onDisconnect', async (t) => {
  const [polite, deaf, stuck] = [closing('when closed'), closing('when forced'), closing('never')]
  machine.restart()
  const started = performance.now()
  await drainConnections([polite, deaf], 1012, 50)
  const one = performance.now() - started
  t.ok(one >= 45, `${one.toFixed()} ms`)
  machine.within(t, one, 95, 'one grace')
  t.strictSame(deaf.calls, ['close 1012 server restarts', 'force 1012'])
  await drainConnections([stuck], 1012, 50)
  const two = performance.now() - started - one
  t.ok(two >= 445, `the grace, and the time for onDisconnect: ${two.toFixed()} ms`)
})

t.test('who left and whose callbacks are not done after a minute is counted and given up', async (t) => {
  let now = 0
  const metrics = new Metrics()
  const departures = new Departures(metrics, () => now)
  const [slow, stuck, last] = [closing('when closed'), closing('never'), closing('never')]
  departures.add(slow)
  departures.add(stuck)
  slow.close(1001, '')
  await slow.finished
  t.strictSame([...departures], [stuck])
  now = 60_000
  departures.add(last)
  t.strictSame([...departures], [last])
  t.equal(metrics.callbacksOverdue, 1)
})

t.test('framed clients are all told when to come back before the first is closed, and closed when they have their answers', async (t) => {
  const told: number[] = []
  const framed = Array.from({ length: 600 }, (_, n) => {
    const one = closing('when closed')
    const state = { framed: true, pending: n < 3, shutdownAcked: false }
    Object.assign(one, {
      announceShutdown (afterMs: number) {
        one.calls.push('told')
        told.push(afterMs)
      }
    })
    Object.defineProperties(one, {
      framed: { get: () => state.framed }, pending: { get: () => state.pending }, shutdownAcked: { get: () => state.shutdownAcked }
    })
    return { one, state, calls: one.calls }
  })
  const raw = closing('when closed')
  const done = drainConnections([...framed.map(({ one }) => one), raw], 1001, 2_000)
  await until(() => told.length === 600)
  t.ok(framed.every(({ calls }) => calls.join() === 'told'))
  t.ok(new Set(told).size > 100 && Math.max(...told) < 1_300, 'each its own time')
  await until(() => raw.calls.length === 1)
  for (const { state } of framed) state.shutdownAcked = true
  await until(() => framed.filter(({ calls }) => calls.length === 2).length === 597)
  t.ok(framed.slice(0, 3).every(({ calls }) => calls.length === 1), 'not while a callback runs')
  for (const { state } of framed) state.pending = false
  await done
  t.ok(framed.every(({ calls }) => calls.join() === 'told,close 1001 server is going away'))
})

t.test('no connections, no wait', async (t) => {
  await atOnce(t, 'the end', async () => await drainConnections([], 1001, 60_000))
})

t.test('a drain without a window closes everybody at once', async (t) => {
  const all = Array.from({ length: 300 }, () => closing('when closed'))
  await drainSlowly(all, { overMs: 0, graceMs: 400, signal: new AbortController().signal })
  t.ok(all.every(({ calls }) => calls[0] === 'close 1012 server restarts'))
})

t.test('a slow drain is evenly spread, and leaves the last clients time to be back before it is over', async (t) => {
  const [overMs, graceMs, count] = [2_000, 400, 120]
  // In the middle of each step: the last one may be drawn as late as the limit.
  t.intercept(Math, 'random', { value: () => 0.5 })
  const closedAt: number[] = []
  const all = Array.from({ length: count }, () => {
    const one = closing('when closed')
    const { close } = one
    return Object.assign(one, {
      close (code: number, reason: string) {
        closedAt.push(performance.now())
        close.call(one, code, reason)
      }
    })
  })
  machine.restart()
  const startedAt = performance.now()
  await drainSlowly(all, { overMs, graceMs, signal: new AbortController().signal })
  const times = closedAt.map(at => at - startedAt)
  t.equal(times.length, count)
  t.ok(all.every(({ calls }) => calls.join() === 'close 1012 server restarts'))
  // One after another: a machine that stalls may put a few together, but never all.
  const [spreadMs, stepMs] = [overMs - 2 * graceMs, 100]
  const steps = new Set(times.map(at => Math.floor(at / stepMs))).size
  machine.within(t, spreadMs - steps * stepMs, spreadMs / 2, 'in many steps, without a close for')
  machine.within(t, Math.max(...times), spreadMs, 'the last one is closed two graces before the end')
})
