import type { Test } from 'tap'

const everyMs = 5
/** How late a timer may be on a machine that has nothing else to do. */
const usualMs = 3

export interface Machine {
  /** Starts counting anew. */
  restart (): void
  /** Milliseconds for which this process was ready to run and did not, because the machine had other work. */
  readonly deniedMs: number
  /** Passes when `ms` is below the limit, which is longer by the time that was denied. */
  within (t: Test, ms: number, limitMs: number, what: string): void
}

/** What a limit of time is worth while other test files run beside this one: a clock that only counts what the machine gave. */
export function watchMachine (t: Test): Machine {
  let deniedMs = 0
  let due = performance.now() + everyMs
  const timer = setInterval(() => {
    const now = performance.now()
    deniedMs += Math.max(0, now - due - usualMs)
    due = now + everyMs
  }, everyMs).unref()
  t.teardown(() => clearInterval(timer))
  return {
    restart () { deniedMs = 0 },
    get deniedMs () { return deniedMs },
    within (t, ms, limitMs, what) {
      const denied = deniedMs > usualMs ? `, of which the machine denied ${Math.round(deniedMs)}` : ''
      t.ok(ms < limitMs + deniedMs, `${what}: ${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms${denied}, limit ${limitMs}`)
    }
  }
}
