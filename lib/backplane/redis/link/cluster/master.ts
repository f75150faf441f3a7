import { hashTagOf } from '../../hash-tags.ts'
import type { Address } from './source.ts'
import type { Link } from '../link.ts'
import { sumStats } from '../../stats.ts'

/** The connections to one master of a cluster. */
export interface Master {
  readonly address: Address
  readonly command: Link
  readonly subscribe: Link | undefined
  /** Since when it has had no partition (`performance.now()`). */
  unusedSince: number | undefined
}

export async function closeMaster ({ command, subscribe }: Master): Promise<void> {
  await Promise.all([command.close(), subscribe?.close()])
}

/** Counters and gauges of the connections to a master. */
export function statsOf ({ command, subscribe }: Master): Record<string, number> {
  const links = [command, subscribe].filter(link => link !== undefined).map(link => link.stats())
  return sumStats([
    ...links.map(({ connections, timeouts, reconnects }) => (
      { redisConnections: connections, redisTimeouts: timeouts, redisReconnects: reconnects }
    )),
    command.bulk.stats()
  ])
}

export function nameOf ({ host, port }: Address): string {
  return `${host}:${port}`
}

export function uniqueAddresses (addresses: readonly Address[]): Address[] {
  return [...new Map(addresses.map(address => [nameOf(address), address])).values()]
}

/** The hash tags of the channels that are subscribed on the connection, as ioredis notes them; `undefined` if its notes cannot be read. */
export function subscribedTags ({ redis }: Link): Set<string> | undefined {
  const { condition } = redis as unknown as { readonly condition?: { readonly subscriber?: false | { channels (kind: string): string[] } } }
  if (condition?.subscriber === false) return new Set()
  return condition?.subscriber && new Set(condition.subscriber.channels('ssubscribe').map(hashTagOf))
}
