import type { Test } from 'tap'

interface Due {
  readonly at: number
  readonly run: () => void
}

interface FakeTime {
  /** Lets time pass: what falls due meanwhile runs, in order. */
  pass (ms: number): void
}

/**
 * Until the end of the test, `Date.now` and the timers of everything in this process go only when the test says so: a token cannot end
 * while a busy machine still connects. `until` and sockets go on as always.
 */
export function fakeTime (t: Test): FakeTime {
  const real = { now: Date.now, setTimeout: globalThis.setTimeout, clearTimeout: globalThis.clearTimeout }
  const due = new Map<object, Due>()
  let now = real.now()
  Date.now = () => now
  globalThis.setTimeout = ((run: () => void, ms = 0) => {
    const timer = { unref: () => timer, ref: () => timer }
    due.set(timer, { at: now + ms, run })
    return timer
  }) as unknown as typeof setTimeout
  globalThis.clearTimeout = timer => {
    if (!due.delete(timer as object)) real.clearTimeout(timer)
  }
  t.teardown(() => {
    Date.now = real.now
    globalThis.setTimeout = real.setTimeout
    globalThis.clearTimeout = real.clearTimeout
  })
  return {
    pass (ms) {
      const end = now + ms
      for (;;) {
        const [next] = [...due].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)
        if (next === undefined) break
        const [timer, { at, run }] = next
        due.delete(timer)
        now = at
        run()
      }
      now = end
    }
  }
}
