import { createHook } from 'node:async_hooks'
import t from 'tap'
import { Reporter } from '../../lib/operations/dashboard/reporter.ts'
import type { Registry } from '../../lib/types.ts'

t.test('a dashboard that nobody looks at has no timer and no meter', async (t) => {
  const made: string[] = []
  const hook = createHook({ init (_id, type) { made.push(type) } }).enable()
  const reporter = new Reporter({} as Registry)
  reporter.start()
  const before = made.splice(0)
  const timer = setTimeout(() => {}, 1)
  hook.disable()
  clearTimeout(timer)
  reporter.stop()
  t.strictSame(made, ['Timeout'], 'a timer would have been seen')
  t.strictSame(before, [])
})
