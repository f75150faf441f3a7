import t from 'tap'
import { Calls, type CallKind } from '../../../lib/backplane/redis/link/calls.ts'
import { toBackplaneError } from '../../../lib/backplane/redis/link/reply-errors.ts'

/** `hang`: makes a call that nobody answers. `failed`: the names of those that were given up, in their order. */
function calls () {
  const failed: string[] = []
  const calls = new Calls({ received: () => 0, answered () {}, missed () {}, translate: toBackplaneError })
  const hang = async (name: string, kind: CallKind, deadlineMs: number): Promise<void> => {
    const call = calls.run(async () => await new Promise(() => {}), { deadlineMs, maxMs: 1_000, kind })
    await call.catch(() => failed.push(name))
  }
  return { calls, hang, failed }
}

t.test('publishes are given up in their order, whichever deadline is first', async t => {
  const { hang, failed } = calls()
  await Promise.all([
    hang('first', 'publish', 100), hang('call', 'call', 50), hang('second', 'publish', 20), hang('third', 'publish', 100)
  ])
  // When the call is given up among them depends on how busy the machine is.
  t.strictSame(failed.filter(name => name !== 'call'), ['first', 'second', 'third'])
  t.equal(failed.length, 4)
})

t.test('calls of some kinds fail, and the others go on', async t => {
  const { calls: all, hang, failed } = calls()
  const settled = Promise.all([hang('call', 'call', 50), hang('publish', 'publish', 500), hang('bulk', 'bulk', 500)])
  all.fail('Redis does not answer', ['publish', 'bulk'])
  await settled
  t.strictSame(failed, ['publish', 'bulk', 'call'])
})
