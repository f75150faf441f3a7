import { existsSync, readFileSync } from 'node:fs'

/** The kernel counts CPU here in hundredths of a second, whatever its own tick is. */
const usPerTick = 10_000

export function assertLinux (): void {
  if (!existsSync('/proc/self/stat')) throw new Error('this bench reads /proc and uses epoll: it needs Linux')
}

/** CPU of a process in microseconds: user and system, all threads. */
export function cpuUs (pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The name, in parentheses, may hold spaces: the fields are counted behind it, where the first is the third.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * usPerTick
}

/** Resident memory of a process in bytes. */
export function rssBytes (pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1_024
}
