import { invalid, isKeyText, isLiteral, isObject, keyText, property, show, type Rule } from './rules.ts'

export const redisRule: Rule = {
  allowed: 'a URL (redis:// or rediss://), the path of a Unix socket, ioredis options, an ioredis client, an ioredis Cluster, ' +
    'or { cluster: [nodes], options? } (may be left out for the plugin, which then keeps everything in memory)',
  // ioredis takes a path that begins with two slashes for the address of a host, which a URL names by redis://.
  // Accept no instances of other classes: a client of another Redis package would pass for options, and lead to a Redis at localhost.
  accepts: value => typeof value === 'string' ? /^(rediss?:\/\/.|\/[^/])/.test(value) : isRedisClient(value) || isLiteral(value),
  secret: true
}

/**
 * Checks what the rule cannot: the nodes and options of a cluster, also those of a `Cluster` of ioredis. Errors never show a node, which
 * may hold a password.
 * @throws {WebsocketGroupsError} WSG_OPTION_INVALID
 */
export function checkCluster (redis: unknown): void {
  if (isRedisClient(redis)) {
    if (property(redis, 'isCluster') === true) checkClusterOptions(property(redis, 'options'))
    return
  }
  if (!isObject(redis)) return
  const { cluster, options, ...others } = redis as Readonly<Record<string, unknown>>
  if (cluster === undefined) {
    checkSentinels(others)
    return checkNatMap(others.natMap, 'redis.natMap')
  }
  if (!Array.isArray(cluster) || cluster.length === 0) {
    throw invalid(`redis.cluster must be an array of at least one node, got ${show(cluster)}`)
  }
  for (const [index, node] of cluster.entries()) {
    if (!isNode(node)) throw invalid(`redis.cluster[${index}] must be a URL (redis:// or rediss://), host:port, a port, or { host, port }`)
    if (databaseOf(node) !== '0') throw invalid(`a Redis Cluster has database 0 only, redis.cluster[${index}] names another one`)
  }
  const [other] = Object.keys(others)
  if (other !== undefined) {
    throw invalid(`beside redis.cluster there is no ${show(other)}: put it into redis.options, as for a Cluster of ioredis`)
  }
  if (options !== undefined && !isObject(options)) throw invalid(`redis.options must be an object, got ${show(options)}`)
  checkClusterOptions(options)
}

function checkClusterOptions (options: unknown): void {
  const redisOptions = property(options, 'redisOptions') ?? {}
  if (!isObject(redisOptions)) throw invalid(`the redisOptions of the cluster must be an object, got ${show(redisOptions)}`)
  checkNatMap(property(options, 'natMap'), 'the natMap of the cluster')
  const db = property(redisOptions, 'db') ?? 0
  if (db !== 0) throw invalid(`a Redis Cluster has database 0 only, got ${show(db)}`)
  const prefix = property(options, 'keyPrefix') ?? property(redisOptions, 'keyPrefix') ?? ''
  if (typeof prefix !== 'string' || !isKeyText(prefix)) {
    throw invalid(`the keyPrefix of the cluster's options must be ${keyText}`)
  }
}

/** Of `sentinels` without any, or without the name of their master, ioredis tells in a plain error, and others lead to localhost. */
function checkSentinels ({ sentinels, name }: Readonly<Record<string, unknown>>): void {
  if (sentinels === undefined || sentinels === null) return
  if (!Array.isArray(sentinels) || sentinels.length === 0 || !sentinels.every(isHost)) {
    throw invalid(`redis.sentinels must be an array of at least one { host, port }, got ${show(sentinels)}`)
  }
  if (typeof name !== 'string' || name === '') {
    throw invalid(`redis.name must be the name that the sentinels have for the master, got ${show(name)}`)
  }
}

/** ioredis ignores a `natMap` that it cannot use: all nodes would then be looked for at addresses that cannot be reached from here. */
function checkNatMap (natMap: unknown, name: string): void {
  if (natMap === undefined || natMap === null || typeof natMap === 'function') return
  if (!isLiteral(natMap)) {
    throw invalid(`${name} must be an object of { 'host:port': { host, port } } or a function, got ${show(natMap)}`)
  }
  for (const [node, address] of Object.entries(natMap as object)) {
    if (!isAddress(address)) throw invalid(`${name} must have { host, port } for ${show(node)}, got ${show(address)}`)
  }
}

/** Whether this is `{ host, port }`, whole. */
export function isAddress (value: unknown): value is { readonly host: string, readonly port: number | string } {
  const host = property(value, 'host')
  return typeof host === 'string' && host !== '' && isPort(Number(property(value, 'port')))
}

function isNode (node: unknown): boolean {
  if (typeof node === 'string') return /^(rediss?:\/\/.|[^/]+$)/.test(node) && isReadable(urlOf(node))
  if (typeof node === 'number') return isPort(node)
  return isHost(node)
}

/** Whether this is `{ host, port }`, of which each may be left out. */
function isHost (node: unknown): boolean {
  return isObject(node) && isAddress({ host: property(node, 'host') ?? '127.0.0.1', port: property(node, 'port') ?? 6379 })
}

function isPort (value: unknown): boolean {
  return Number.isInteger(value) && Number(value) > 0 && Number(value) < 65_536
}

function urlOf (node: string): string {
  return node.includes('://') ? node : `redis://${node}`
}

function isReadable (url: string): boolean {
  try {
    const { username, password } = new URL(url)
    decodeURIComponent(username + password)
    return true
  } catch {
    return false
  }
}

function databaseOf (node: unknown): string {
  if (typeof node !== 'string') return String(property(node, 'db') ?? 0)
  const { pathname, searchParams } = new URL(urlOf(node))
  return pathname.slice(1) || (searchParams.get('db') ?? '0')
}

/** Recognizes a client by its shape: a process may have two copies of ioredis, and this file must not load one. */
function isRedisClient (value: unknown): boolean {
  return typeof property(value, 'duplicate') === 'function' && typeof property(value, 'defineCommand') === 'function'
}
