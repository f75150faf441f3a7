// An instance that follows thousands of logs, and one beside it that appends to them, in a process without the hooks of a test runner,
// which cost more per promise than all the rest. Started by log-repair.test.ts, which says what to do over IPC.
import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { Test } from 'tap'
import { Recorder, startBackplane } from './log-rig.ts'

export interface Assignment {
  readonly near: string
  readonly far: string
  readonly groups: number
}

/** Appends to each nth group; or only answers. */
export interface Order { readonly everyNth?: number }

export interface Report {
  readonly state: string
  readonly received: number
  readonly gaps: number
  readonly cpuMs: number
  /** The longest delay of the event loop since the last report (milliseconds). */
  readonly lateMs: number
}

const { near, far, groups } = JSON.parse(process.argv[2] ?? '{}') as Assignment
const names = Array.from({ length: groups }, (_, n) => `log ${n}`)
const ends: Array<() => Promise<void>> = []
const t = { teardown: (end: () => Promise<void>) => { ends.push(end) } } as unknown as Test
const delay = monitorEventLoopDelay({ resolution: 1 })
delay.enable()

// A thousand appends at once are no test of deadlines.
const publisher = await startBackplane(t, near, { groups: [], operationTimeoutMs: 10_000 })
const local = new Recorder()
const { backplane } = await startBackplane(t, far, { groups: names, local })

function report (): void {
  const { user, system } = process.cpuUsage()
  const lateMs = Math.round(delay.max / 1e6)
  delay.reset()
  const now: Report = {
    state: backplane.state, received: local.received.length, gaps: local.gaps.length, cpuMs: Math.round((user + system) / 1000), lateMs
  }
  process.send?.(now)
}

process.on('message', ({ everyNth }: Order) => {
  if (everyNth === undefined) return report()
  const some = names.filter((_, n) => n % everyNth === 0)
  void (async () => {
    for (let start = 0; start < some.length; start += 1_000) {
      await Promise.all(some.slice(start, start + 1_000).map(async group => await publisher.append(['x'], { group })))
    }
    report()
  })()
})
process.on('disconnect', () => { void Promise.all(ends.map(async end => await end())).finally(() => process.exit()) })
report()
