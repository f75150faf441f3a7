import type { PresenceChange, Presences } from '../backplane.ts'
import type { ClusterWriter } from './cluster-writer.ts'
import type { OccupancyStore } from './membership/occupancy.ts'

/** How many names are remembered. If there are more, everything is compared when the backplane is back. */
const maxMissed = 10_000

/** Reports which groups and users came and went: asks each partition, so that each change is reported once in the cluster. */
export class ClusterOccupancy {
  /** Names whose partitions were out when they were asked for. */
  readonly #missed = { group: new Set<string>(), user: new Set<string>() }
  /** Changes that partitions have recorded and no call has returned yet. */
  readonly #changes: Record<Presences, PresenceChange[]> = { group: [], user: [] }
  readonly #stores = new Map<number, OccupancyStore>()
  readonly #usersStored: (partition: number) => Promise<void>

  /** `usersStored` resolves when a partition has the counts of its users. */
  constructor (usersStored: (partition: number) => Promise<void>) {
    this.#usersStored = usersStored
  }

  /** As `Backplane.settle`. Changes in partitions that are out come with a later call; rejects only if no partition could be asked. */
  async settle (writer: ClusterWriter, kind: Presences, names: readonly string[] | undefined): Promise<readonly PresenceChange[]> {
    const [missed, changes] = [this.#missed[kind], this.#changes[kind]]
    const byPartition = divide(writer, kind, [...names ?? [], ...missed])
    missed.clear()
    const asked = names === undefined ? Array.from({ length: writer.partitions }, (_, index) => index) : [...byPartition.keys()]
    const results = await Promise.allSettled(asked.map(async partition => {
      const [store, some = []] = [this.#storeOf(writer, partition), byPartition.get(partition)]
      try {
        if (kind === 'user') await this.#usersStored(partition)
        changes.push(...await store.settle(kind, some))
        if (names === undefined) changes.push(...await store.settle(kind, undefined))
      } catch (error) {
        for (const name of some) if (missed.size < maxMissed) missed.add(name)
        throw error
      }
    }))
    const failures = results.flatMap(result => result.status === 'rejected' ? [result.reason as Error] : [])
    const [failure] = failures
    if (failure !== undefined && failures.length === results.length) throw failure
    return changes.splice(0)
  }

  #storeOf (writer: ClusterWriter, partition: number): OccupancyStore {
    const store = this.#stores.get(partition) ?? writer.occupancyOf(partition)
    this.#stores.set(partition, store)
    return store
  }
}

function divide (writer: ClusterWriter, kind: Presences, names: readonly string[]): Map<number, string[]> {
  const parts = new Map<number, string[]>()
  for (const name of new Set(names)) {
    const partition = writer.partitionOf({ kind, name })
    const part = parts.get(partition)
    if (part === undefined) parts.set(partition, [name])
    else part.push(name)
  }
  return parts
}
