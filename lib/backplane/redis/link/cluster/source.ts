import type { Cluster, ClusterNode, ClusterOptions, RedisOptions } from 'ioredis'
import { WebsocketGroupsError } from '../../../../errors.ts'
import { isAddress } from '../../../../options/redis.ts'
import { invalid, show } from '../../../../options/rules.ts'

/** Some nodes of a Redis Cluster, from which the others are found, and options as ioredis has them for its `Cluster`. */
interface ClusterNodes {
  readonly cluster: readonly ClusterNode[]
  readonly options?: ClusterOptions | undefined
}

export interface Address {
  readonly host: string
  readonly port: number
}

/** A cluster, and how to reach it. */
export interface ClusterSource {
  /** The nodes to ask first. */
  readonly nodes: readonly Address[]
  /** Options for the connections to all nodes. */
  readonly options: RedisOptions
  /** The keyPrefix of ioredis, which goes in front of ours. */
  readonly keyPrefix: string
  /**
   * Turns an address that the cluster has for a node into the one under which the node can be reached from here.
   * @throws {WebsocketGroupsError} WSG_OPTION_INVALID if a `natMap` function threw, or returned no address
   */
  translate (address: Address): Address
}

/** `undefined` if this is not a cluster, as far as the options show. */
export function clusterSource (source: unknown): ClusterSource | undefined {
  if (typeof source !== 'object' || source === null) return undefined
  if ('cluster' in source && Array.isArray(source.cluster)) {
    const { cluster, options } = source as ClusterNodes
    return resolve(cluster, options)
  }
  if (!('isCluster' in source) || source.isCluster !== true) return undefined
  // Private in the types of ioredis; without it the nodes that the client knows serve as well.
  const client = source as unknown as Cluster
  const { startupNodes } = source as unknown as { readonly startupNodes?: readonly ClusterNode[] }
  return resolve(startupNodes ?? client.nodes('all').map(({ options: { host, port } }) => ({ host, port })), client.options)
}

/** The cluster of a server that was given alone, with these options, and turned out to be a node of it. */
export function clusterOf (node: RedisOptions): ClusterSource {
  return resolve([{ host: node.host, port: node.port }], { redisOptions: node })
}

function resolve (given: readonly ClusterNode[], options: ClusterOptions = {}): ClusterSource {
  const nodes = given.map(nodeOptions)
  const { natMap } = options
  // Nodes that are found later share the credentials and the encryption of those that were given, unless the options say otherwise.
  const { host, port, ...first } = nodes[0] ?? {}
  return {
    nodes: nodes.map(({ host = '127.0.0.1', port = 6379 }) => ({ host, port })),
    // Drops what else says where to connect: each node has an address of its own.
    options: { ...first, ...options.redisOptions, db: 0, path: undefined, sentinels: undefined },
    keyPrefix: options.keyPrefix ?? options.redisOptions?.keyPrefix ?? '',
    translate (address) {
      const mapped = mapAddress(natMap, `${address.host}:${address.port}`)
      if (mapped === undefined || mapped === null) return address
      if (!isAddress(mapped)) throw invalid(`natMap must return { host, port } or nothing, got ${show(mapped)}`)
      return { host: mapped.host, port: Number(mapped.port) }
    }
  }
}

function mapAddress (natMap: ClusterOptions['natMap'], name: string): unknown {
  if (typeof natMap !== 'function') return natMap?.[name]
  try {
    return natMap(name)
  } catch (error) {
    throw new WebsocketGroupsError('WSG_OPTION_INVALID', 'the natMap function threw', { cause: error })
  }
}

function nodeOptions (node: ClusterNode): RedisOptions {
  if (typeof node === 'number') return { port: node }
  if (typeof node === 'object') return node
  const { protocol, hostname, port, username, password } = new URL(node.includes('://') ? node : `redis://${node}`)
  return {
    // An IPv6 address has brackets in a URL.
    host: hostname.replace(/^\[(.*)\]$/, '$1'),
    port: Number(port || 6379),
    ...(username === '' ? {} : { username: decodeURIComponent(username) }),
    ...(password === '' ? {} : { password: decodeURIComponent(password) }),
    ...(protocol === 'rediss:' ? { tls: {} } : {})
  }
}
