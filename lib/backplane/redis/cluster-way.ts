import { hashTags } from './hash-tags.ts'
import { commonTag, Keys } from './keys.ts'
import { ClusterLinks, type ClusterLinkEvents } from './link/cluster/cluster.ts'
import type { ClusterSource } from './link/cluster/source.ts'

/** Far more than a cluster has masters, and few enough for an instance to have members in all of them. */
const partitionCount = 256

/** Makes the names and the links of all partitions of a cluster. `prefix`: what all keys begin with. */
export function clusterWay (
  source: ClusterSource, prefix: string, deadlineMs: number, events: ClusterLinkEvents, partitions = partitionCount
): { readonly links: ClusterLinks, readonly keys: readonly Keys[] } {
  const tags = hashTags(partitions)
  const links = new ClusterLinks(source, { keyPrefix: prefix, tags, commonTag, deadlineMs }, events)
  return { links, keys: tags.map(tag => new Keys(prefix, 0, tag)) }
}
