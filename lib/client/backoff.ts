/** Longer ones fire at once (a 32-bit overflow in every JavaScript engine). */
export const maxTimerMs = 2_147_483_647

/**
 * How long to wait before the next attempt: exponential, with full jitter. With a part of the wait alone at random, the clients of an
 * instance that died would come back as one herd.
 */
export function backoffMs (failures: number, minMs: number, maxMs: number): number {
  return Math.random() * Math.min(maxMs, minMs * 2 ** failures)
}
