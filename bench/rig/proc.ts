import { existsSync, readdirSync, readFileSync } from 'node:fs'

export function assertLinux (): void {
  if (!existsSync('/proc/self/stat')) throw new Error('this bench reads /proc and uses epoll: it needs Linux')
}

/**
 * CPU of a process in microseconds: user and system, all threads that live. By the scheduler's clock, which counts nanoseconds: `stat`
 * counts hundredths of a second, a fifth of what 10,000 joins cost Redis.
 */
export function cpuUs (pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`)
  return threads.reduce((sum, thread) => sum + Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]), 0) / 1e3
}

/** Resident memory of a process in bytes. */
export function rssBytes (pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1_024
}
