import type { PresenceChange, Presences } from '../backplane.ts'

/** Remembers which groups of a memory cluster were reported to have members, and which users to have connections. */
export class MemoryOccupancy {
  readonly #told = { group: new Set<string>(), user: new Set<string>() }

  /** As `Backplane.settle`; `isPresent` tells whether a group has members now, or a user connections. */
  settle (kind: Presences, names: readonly string[] | undefined, isPresent: (name: string) => boolean): PresenceChange[] {
    const told = this.#told[kind]
    const changes: PresenceChange[] = []
    for (const name of names ?? [...told]) {
      const present = isPresent(name)
      if (present === told.has(name)) continue
      if (present) told.add(name)
      else told.delete(name)
      changes.push({ name, present })
    }
    return changes
  }
}
