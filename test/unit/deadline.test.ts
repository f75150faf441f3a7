import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { deferred, withDeadline } from '../../lib/deadline.ts'

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
