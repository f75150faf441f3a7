import type { Link } from '../link.ts'

/** For each link the wait for its previous connection: all partitions of a master share it. */
const drains = new WeakMap<Link, { readonly connection: number, readonly drained: Promise<void> | undefined }>()

/** As `Link.previousDrained`. */
export function drained (link: Link): Promise<void> | undefined {
  const known = drains.get(link)
  if (known?.connection === link.connection) return known.drained
  const drained = link.previousDrained()
  drains.set(link, { connection: link.connection, drained })
  return drained
}
