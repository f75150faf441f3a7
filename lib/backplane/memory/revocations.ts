import { BoundedMap } from '../../bounded-map.ts'
import type { Revocation } from '../backplane.ts'

const maxRevocations = 100_000

/** Who was put out of groups by the instances of one process. */
export class MemoryRevocations {
  readonly #now: () => number
  readonly #entries = new BoundedMap<string, Revocation & { readonly end: number }>({ maxWeight: maxRevocations })

  constructor (now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** As `Backplane.revoke`. */
  set (group: string, names: readonly string[], revocation: Revocation, forMs: number): void {
    for (const name of names) this.#entries.set(key(group, name), { ...revocation, end: this.#now() + forMs })
  }

  /** As `Backplane.revoked`. */
  latest (group: string, names: readonly string[]): Revocation | undefined {
    let latest: Revocation | undefined
    for (const name of names) {
      const entry = this.#entries.get(key(group, name))
      if (entry !== undefined && entry.end > this.#now() && entry.at > (latest?.at ?? -Infinity)) latest = entry
    }
    return latest && { at: latest.at, position: latest.position }
  }
}

function key (group: string, name: string): string {
  return `${group.length}:${group}:${name}`
}
