const beatsPerLease = 3
/** Beats of many partitions go out together if they are due in the same one of this many parts of the time between beats. */
const beatParts = 16

/** How long it is from one beat to the next at most (milliseconds). */
export function betweenBeatsMs (leaseMs: number): number {
  return leaseMs / beatsPerLease
}

/**
 * How long until the next beat (milliseconds): a third of the lease, up to about a fifth earlier, so that a thousand instances do not beat
 * in one instant. `isPart`: of one partition of many.
 */
export function nextBeatMs (leaseMs: number, isPart: boolean): number {
  const betweenMs = betweenBeatsMs(leaseMs)
  const delayMs = betweenMs * (0.8 + Math.random() * 0.2)
  if (!isPart) return delayMs
  const [now, partMs] = [performance.now(), betweenMs / beatParts]
  return Math.floor((now + delayMs) / partMs) * partMs - now
}
