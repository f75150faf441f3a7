import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { TabLock } from '../../lib/client/tab-lock.ts'

/** Web Locks that answer when the test says so. Returns the names that are held, and the function that lets them answer. */
function fakeLocks (t: Test): { readonly held: ReadonlySet<string>, answer (): Promise<void> } {
  const held = new Set<string>()
  const waiting: Array<() => void> = []
  const request = async (name: string, _options: unknown, run: (lock: unknown) => unknown): Promise<unknown> => {
    await new Promise<void>(resolve => waiting.push(resolve))
    if (held.has(name)) return await run(null)
    held.add(name)
    return await Promise.resolve(run({})).finally(() => held.delete(name))
  }
  const before = Object.getOwnPropertyDescriptor(globalThis, 'navigator')
  Object.defineProperty(globalThis, 'navigator', { configurable: true, value: { locks: { request } } })
  t.teardown(() => {
    if (before === undefined) Reflect.deleteProperty(globalThis, 'navigator')
    else Object.defineProperty(globalThis, 'navigator', before)
  })
  return {
    held,
    answer: async () => {
      for (const resolve of waiting.splice(0)) resolve()
      await setImmediate()
    }
  }
}

t.test('a session is held until its release, and no other page gets it meanwhile', async t => {
  const { held, answer } = fakeLocks(t)
  const [one, other] = [new TabLock(), new TabLock()]
  const taken = one.take('s')
  await answer()
  t.equal(await taken, true)
  t.equal(await one.take('s'), true, 'again')
  const refused = other.take('s')
  await answer()
  t.equal(await refused, false)
  one.release()
  await setImmediate()
  t.strictSame([...held], [])
})

t.test('a session that was released before the browser answered is not held', async t => {
  const { held, answer } = fakeLocks(t)
  const lock = new TabLock()
  void lock.take('s')
  lock.release()
  await answer()
  t.strictSame([...held], [])
  void lock.take('s1')
  void lock.take('s2')
  await answer()
  t.strictSame([...held], ['wsg:s2'])
})
