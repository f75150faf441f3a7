import t from 'tap'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { BusyGrace, deferred, withDeadline, withProgress } from '../../lib/deadline.ts'
import { watchMachine } from '../helpers/machine.ts'

t.test('settles as the promise does when that is in time', async (t) => {
  t.equal(await withDeadline(Promise.resolve(1), 1_000, () => 2), 1)
  await t.rejects(withDeadline(Promise.reject(new Error('early')), 1_000, () => 2), { message: 'early' })
})

t.test('settles by onLate when the promise is late, and ignores what comes then', async (t) => {
  const never = deferred<number>()
  t.equal(await withDeadline(never.promise, 1, () => 2), 2)
  await t.rejects(withDeadline(never.promise, 1, () => { throw new Error('late') }), { message: 'late' })
  const failing = deferred()
  t.equal(await withDeadline(failing.promise, 1, () => 'late'), 'late')
  failing.reject(new Error('nobody waits'))
  await sleep(1)
})

t.test('a deferred promise may be rejected with nobody waiting', async (t) => {
  const { promise, reject } = deferred()
  reject(new Error('first'))
  await sleep(1)
  await t.rejects(promise, { message: 'first' })
})

t.test('a deadline counts from the latest progress', async t => {
  let [progress, progressedAt] = [0, -Infinity]
  const late = (): never => { throw new Error(`late after ${progress}`) }
  const working = setInterval(() => {
    progressedAt = performance.now()
    if (++progress === 6) clearInterval(working)
  }, 5)
  await t.rejects(withProgress(deferred().promise, 20, () => progressedAt, late), { message: 'late after 6' })
  t.equal(await withProgress(Promise.resolve('done'), 20, () => progressedAt, late), 'done')
  await t.rejects(withProgress(Promise.reject(new Error('early')), 20, () => progressedAt, late), { message: 'early' })
})

t.test('progress that ends soon after the start does not double a deadline', async t => {
  const machine = watchMachine(t)
  const startedAt = performance.now()
  let lookedAt = 0
  const late = (): never => {
    lookedAt = performance.now()
    throw new Error('late')
  }
  await t.rejects(withProgress(deferred().promise, 1_000, () => startedAt + 10, late), { message: 'late' })
  machine.within(t, lookedAt - startedAt, 1_500, 'late after a second, and not after two')
})

t.test('progress from before the start counts for nothing', async t => {
  await t.rejects(withProgress(deferred().promise, 1, () => -Infinity, () => { throw new Error('late') }), { message: 'late' })
})

t.test('a deadline that is due waits until sockets were read, and in a busy process for as long as its timer was late', async t => {
  t.equal(new BusyGrace().after(0), 10, 'a timer in time: sockets are read after timers')
  const grace = new BusyGrace()
  t.equal(grace.after(11), 11)
  t.equal(grace.after(100), 0, 'from the second time on it has to be later')
  t.strictSame(Array.from({ length: 11 }, () => grace.after(101)), [...Array.from({ length: 9 }, () => 101), 0, 0])
})

t.test('what has come in time is in time, however long the process was busy until the deadline', async t => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const near = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [far] = await once(server, 'connection') as [Socket]
  t.teardown(() => {
    near.destroy()
    far.destroy()
    server.close()
  })
  for (let busyMs = 20; busyMs <= 30; busyMs++) {
    const answer = deferred()
    near.once('data', () => answer.resolve())
    const waiting = withProgress(answer.promise, 20, () => -Infinity, () => { throw new Error(`late in a process busy for ${busyMs} ms`) })
    far.write('answer')
    const until = performance.now() + busyMs
    while (performance.now() < until) { /* busy */ }
    await t.resolves(waiting)
  }
})
