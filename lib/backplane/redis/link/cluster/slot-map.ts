import type { Redis } from 'ioredis'
import type { Address } from './source.ts'

/** Which master has which slots, as one node of the cluster sees it. */
export interface SlotMap {
  readonly ranges: readonly SlotRange[]
  /** All nodes that serve slots, replicas too. */
  readonly nodes: readonly Address[]
  /** Grows with every change of masters: of two views, the one with the higher number is newer. */
  readonly epoch: number
  /** Whether the node takes part in the cluster: one that lost sight of the others has an old view. */
  readonly ok: boolean
}

interface SlotRange {
  readonly start: number
  readonly end: number
  readonly master: Address
}

type Node = [host: string | null, port: number, ...unknown[]]

/** Asks one node. `asked`: the node's address, which the node may leave out of its answer. Rejects as ioredis does. */
export async function readSlotMap (redis: Redis, asked: Address): Promise<SlotMap> {
  const [info, slots] = await Promise.all([redis.cluster('INFO') as Promise<string>, redis.cluster('SLOTS') as Promise<unknown[]>])
  const addressOf = ([host, port]: Node): Address => ({ host: knownHost(host, asked.host), port })
  const rows = slots as Array<[start: number, end: number, master: Node, ...replicas: Node[]]>
  return {
    ranges: rows.map(([start, end, master]) => ({ start, end, master: addressOf(master) })),
    nodes: rows.flatMap(([,, ...nodes]) => nodes.map(addressOf)),
    epoch: Number(/cluster_current_epoch:(\d+)/.exec(info)?.[1] ?? 0),
    ok: info.includes('cluster_state:ok')
  }
}

/** Returns the host of a node: the host of the node that was asked, if the answer leaves the host out (`unknown-endpoint`). */
export function knownHost<Host> (host: string | null, asked: Host): string | Host {
  return host === null || host === '' || host === '?' ? asked : host
}
