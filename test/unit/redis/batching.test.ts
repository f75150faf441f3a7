import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { Throttle } from '../../../lib/backplane/redis/batching.ts'
import { until } from '../../helpers/until.ts'

t.test('work begins with the turn that asks for it, soon after other work a little later, and at once when there is plenty', async t => {
  let now = 0
  const pace = new Throttle(() => now)
  const begun: string[] = []
  pace.soon(() => begun.push('first'))
  t.strictSame(begun, [], 'what else this turn brings can come along')
  await Promise.resolve()
  t.strictSame(begun.splice(0), ['first'])
  pace.soon(() => begun.push('second'))
  await Promise.resolve()
  t.strictSame(begun, [])
  await until(() => begun.length > 0)
  t.strictSame(begun.splice(0), ['second'])
  now += 20
  pace.soon(() => begun.push('third'))
  await Promise.resolve()
  pace.soon(() => begun.push('fourth'), true)
  await Promise.resolve()
  t.strictSame(begun, ['third', 'fourth'])
})

t.test('when it closes, what waits begins, and no timer is left', async t => {
  const pace = new Throttle(() => 0)
  let begun = 0
  pace.close()
  pace.soon(() => { begun++ })
  await Promise.resolve()
  pace.soon(() => { begun++ })
  const timers = (): number => process.getActiveResourcesInfo().filter(name => name === 'Timeout').length
  const before = timers()
  pace.close()
  t.equal(begun, 2)
  t.equal(timers(), before - 1)
  await sleep(20)
  t.equal(begun, 2)
})
