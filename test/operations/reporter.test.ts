import { createHook } from 'node:async_hooks'
import t from 'tap'
import { Reporter } from '../../lib/operations/dashboard/reporter.ts'
import type { Registry } from '../../lib/types.ts'
import { freePort } from '../helpers/ports.ts'
import { serve } from '../helpers/service.ts'

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

t.test('before the first lease there is no age of one, which JSON could not say', async (t) => {
  const { registry } = await serve(t, { redis: `redis://127.0.0.1:${await freePort()}`, bootTimeoutMs: 50 }, () => {})
  t.match(new Reporter(registry).report(), { redis: { up: false, leaseAgeMs: null } })
})
