import { partitionOf } from '../../../lib/backplane/redis/hash-tags.ts'

const partitions = 256
/** On a cluster: the partitions of the groups. Two pairs and a single one, on three masters. */
const places = [10, 10, 100, 100, 230]

const stores = ['single', 'sentinel', 'cluster'] as const

/** Where the data of this run is: in one Redis, in one that sentinels watch over, or in a cluster. */
export const store = stores.find(name => name === process.env.CHAOS_STORE) ?? 'single'

/** The groups that everybody sends to. */
export const groups: readonly string[] = ['a', 'b', 'c', 'd', 'e'].map((name, index) => {
  if (store !== 'cluster') return name
  for (let n = 0; ; n++) if (partitionOf(`${name}${n}-`, partitions) === places[index]) return `${name}${n}-`
})

/** The groups that are in one partition with this one: a message to several of them goes out in one step, and has one order in all. */
export function neighbours (group: string): readonly string[] {
  if (store !== 'cluster') return groups
  return groups.filter(other => partitionOf(other, partitions) === partitionOf(group, partitions))
}
