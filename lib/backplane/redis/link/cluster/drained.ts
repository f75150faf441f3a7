import type { Link } from '../link.ts'

/** For each link the wait for its previous connection: all partitions of a master share it. */
const drains = new WeakMap<Link, { readonly connection: number, readonly drained: Promise<void> }>()

/** As `Link.previousDrained`. */
export async function drained (link: Link): Promise<void> {
  const known = drains.get(link)
  if (known?.connection === link.connection) return await known.drained
  const drained = link.previousDrained()
  drains.set(link, { connection: link.connection, drained })
  await drained
}
