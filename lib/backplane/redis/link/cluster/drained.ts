import type { Link } from '../link.ts'

/** By link, for its present connection: all partitions of a master wait for the same thing. */
const drains = new WeakMap<Link, { readonly connection: number, readonly drained: Promise<void> }>()

/** As `Link.previousDrained`. */
export async function drained (link: Link): Promise<void> {
  const known = drains.get(link)
  if (known?.connection === link.connection) return await known.drained
  const drained = link.previousDrained()
  drains.set(link, { connection: link.connection, drained })
  await drained
}
