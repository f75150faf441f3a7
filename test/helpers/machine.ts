import type { Test } from 'tap'
import { readdirSync, readFileSync } from 'node:fs'

const everyMs = 5
/** How late a timer may be on a machine that has nothing else to do. */
const usualMs = 3

export interface Machine {
  /** Starts counting anew. */
  restart (): void
  /**
   * Milliseconds for which this process, or a process that it started, was ready to run and did not, because the machine had other work.
   */
  readonly deniedMs: number
  /** Passes when `ms` is below the limit, which is longer by the time that was denied. */
  within (t: Test, ms: number, limitMs: number, what: string): void
}

/**
 * A clock that counts only what the machine gave: the way to hold a test to a limit of time while other test files run
 * beside it. On Linux the scheduler tells for how long each process waited for a core; elsewhere a timer that comes late has to do.
 */
export function watchMachine (t: Test): Machine {
  let lateMs = 0
  let due = performance.now() + everyMs
  const timer = setInterval(() => {
    const now = performance.now()
    lateMs += Math.max(0, now - due - usualMs)
    due = now + everyMs
  }, everyMs).unref()
  t.teardown(() => clearInterval(timer))
  let before = waits()
  const machine: Machine = {
    restart () {
      lateMs = 0
      before = waits()
    },
    get deniedMs () {
      let waitedMs = 0
      for (const [thread, ms] of waits()) waitedMs += Math.max(0, ms - (before.get(thread) ?? 0))
      return Math.max(lateMs, waitedMs)
    },
    within (t, ms, limitMs, what) {
      const { deniedMs } = machine
      const denied = deniedMs > usualMs ? `, of which the machine denied ${Math.round(deniedMs)}` : ''
      t.ok(ms < limitMs + deniedMs, `${what}: ${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms${denied}, limit ${limitMs}`)
    }
  }
  return machine
}

const sampleMs = 200

/**
 * How many times longer work takes now than on a machine that has nothing else to do: the time that passes beside the time on a core.
 * Deadlines of the product that are about its work, not about waiting, are multiplied by this.
 */
export function slowdown (): number {
  const cpuMs = (): number => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1_000
  }
  const [startedAt, before] = [performance.now(), cpuMs()]
  while (cpuMs() - before < sampleMs) { /* busy */ }
  return Math.max(1, (performance.now() - startedAt) / (cpuMs() - before))
}

/**
 * By thread, how long it has waited for a core so far: the threads of this process and of all that it started. Empty where there is no
 * Linux.
 */
function waits (): Map<string, number> {
  const found = new Map<string, number>()
  const look = (pid: string): void => {
    for (const thread of entries(`/proc/${pid}/task`)) {
      const [, waitedNs = '0'] = text(`/proc/${pid}/task/${thread}/schedstat`).split(' ')
      found.set(thread, Number(waitedNs) / 1e6)
      for (const child of text(`/proc/${pid}/task/${thread}/children`).split(' ')) if (child !== '') look(child)
    }
  }
  look(String(process.pid))
  return found
}

// A process may end while it is looked at.
function entries (folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

function text (file: string): string {
  try {
    return readFileSync(file, 'utf8').trim()
  } catch {
    return ''
  }
}
