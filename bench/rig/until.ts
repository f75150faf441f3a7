import { setTimeout as sleep } from 'node:timers/promises'

/** Resolves with whether it came true in time. */
export async function until (predicate: () => Promise<boolean>, timeoutMs: number, everyMs = 20): Promise<boolean> {
  const deadline = performance.now() + timeoutMs
  while (!await predicate()) {
    if (performance.now() > deadline) return false
    await sleep(everyMs)
  }
  return true
}
