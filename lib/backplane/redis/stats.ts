/** Ages, of which the oldest counts. All other figures are added up. */
const ages = new Set(['leaseAgeMs'])

/** Combines the figures of several parts into one set. */
export function sumStats (parts: ReadonlyArray<Readonly<Record<string, number>>>): Record<string, number> {
  const sums: Record<string, number> = {}
  for (const part of parts) {
    for (const [name, value] of Object.entries(part)) {
      const sum = sums[name] ?? 0
      sums[name] = ages.has(name) ? Math.max(sum, value) : sum + value
    }
  }
  return sums
}
