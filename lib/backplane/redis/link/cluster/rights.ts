import type { Keys } from '../../keys.ts'
import { checkServer } from '../server.ts'
import type { RoutedLink } from './routed-link.ts'

/**
 * As `Server.missing`, of all masters that answer: rights are set on each master, and may differ. `links`, `keys`: one for each partition.
 * @throws {WebsocketGroupsError} as `checkServer`
 */
export async function missingOnMasters (
  links: readonly RoutedLink[], keys: readonly Keys[], role: 'instance' | 'publisher'
): Promise<string[]> {
  const partitionOf = new Map(links.map((link, partition) => [link.target, partition]))
  const lists = await Promise.all(Array.from(partitionOf, async ([master, partition]) => {
    const [link, names] = [links[partition], keys[partition]]
    if (master === undefined || link?.up !== true || names === undefined) return []
    const { host = '', port = 0 } = master.redis.options
    const { missing } = await checkServer(link, names, role)
    return missing.map(right => `${right} on ${host}:${port}`)
  }))
  return lists.flat()
}
