import { partitionOf } from '../../../lib/backplane/redis/hash-tags.ts'

const partitions = 256
/** On a cluster: the partitions of the groups. Three, two and a single one, on three masters. */
const places = [10, 10, 100, 100, 230, 10]

const stores = ['single', 'sentinel', 'cluster'] as const

/** Where the data of this run is: in one Redis, in one that sentinels watch over, or in a cluster. */
export const store = stores.find(name => name === process.env.CHAOS_STORE) ?? 'single'

/** The groups that everybody sends to. The last one keeps no log. */
export const groups: readonly string[] = ['a', 'b', 'c', 'd', 'e', 'v'].map((name, index) => {
  if (store !== 'cluster') return name
  for (let n = 0; ; n++) if (partitionOf(`${name}${n}-`, partitions) === places[index]) return `${name}${n}-`
})

/** The group without a log. What it is sent alone comes at most once; what goes to others, too, has its place among theirs. */
export const volatile = groups.at(-1) ?? ''

export const logged: readonly string[] = groups.filter(group => group !== volatile)

/** The groups that are in one partition with this one: a message to several of them goes out in one step, and has one order in all. */
export function neighbours (group: string): readonly string[] {
  if (store !== 'cluster') return groups
  return groups.filter(other => partitionOf(other, partitions) === partitionOf(group, partitions))
}
