import { monitorEventLoopDelay } from 'node:perf_hooks'

interface Usage {
  /** Of one core, in percent. */
  readonly cpu: number
  /** How late the event loop was, in ms. */
  readonly lagP99: number
  readonly lagMax: number
}

const delay = monitorEventLoopDelay({ resolution: 5 })
delay.enable()
let cpu = process.cpuUsage()
let at = performance.now()

/** Of this process since the last call. */
export function usage (): Usage {
  const { user, system } = process.cpuUsage(cpu)
  const ms = performance.now() - at
  const result = {
    cpu: Math.round((user + system) / ms / 10), lagP99: Math.round(delay.percentile(99) / 1e6) - 5, lagMax: Math.round(delay.max / 1e6) - 5
  }
  cpu = process.cpuUsage()
  at = performance.now()
  delay.reset()
  return result
}
