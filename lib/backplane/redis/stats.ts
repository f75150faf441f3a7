/**
 * Figures of which the largest counts: the oldest age, and of evicted keys the most of one master, as all its partitions count the same
 * keys. All other figures are added up.
 */
const largest = new Set(['leaseAgeMs', 'redisEvictedKeys'])

/** Combines the figures of several parts into one set. */
export function sumStats (parts: ReadonlyArray<Readonly<Record<string, number>>>): Record<string, number> {
  const sums: Record<string, number> = {}
  for (const part of parts) {
    for (const [name, value] of Object.entries(part)) {
      const sum = sums[name] ?? 0
      sums[name] = largest.has(name) ? Math.max(sum, value) : sum + value
    }
  }
  return sums
}
