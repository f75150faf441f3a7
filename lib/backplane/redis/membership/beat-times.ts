const beatsPerLease = 3
/** The time between beats has this many parts: beats of many partitions that are due in the same part go out together. */
const beatParts = 16

/** The longest time from one beat to the next (milliseconds). */
export function betweenBeatsMs (leaseMs: number): number {
  return leaseMs / beatsPerLease
}

/**
 * The time until the next beat (milliseconds): a third of the lease, less up to about a fifth of that, so that a thousand instances do not
 * beat in one instant. `isPart`: the beat is of one partition of many.
 */
export function nextBeatMs (leaseMs: number, isPart: boolean): number {
  const betweenMs = betweenBeatsMs(leaseMs)
  const delayMs = betweenMs * (0.8 + Math.random() * 0.2)
  if (!isPart) return delayMs
  const [now, partMs] = [performance.now(), betweenMs / beatParts]
  return Math.floor((now + delayMs) / partMs) * partMs - now
}
