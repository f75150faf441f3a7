import type { Json } from '../types.ts'
import { withDefaults } from './group-logs.ts'
import type { ResolvedOptions } from './resolve.ts'
import { isLiteral, property, withoutUndefined } from './rules.ts'
import type { Rate } from './types.ts'

/**
 * Describes the options in force, for a support ticket. Leaves out what may hold a secret: shows only the kind of functions and other
 * values of the application, and only the address of Redis.
 */
export function describeOptions (options: ResolvedOptions): Record<string, Json> {
  const {
    redis, secret, backplane, tracing, rooms, limits: { explicit: _, ...limits }, upgradeLimit, log, logs = {}, userLog, ...rest
  } = options
  return {
    redis: redis === undefined ? null : describeRedis(redis),
    backplane: backplane === undefined ? null : backplane.name,
    secret: secret === undefined ? null : 'set',
    tracing: tracing !== undefined,
    rooms: Object.keys(rooms),
    log: plain(withDefaults(log)),
    logs: typeof logs === 'function' ? 'function' : plain(mapped(withoutUndefined(logs), withDefaults)),
    userLog: plain(withDefaults(userLog)),
    limits: plain(mapped(limits, withBurst)),
    upgradeLimit: plain(withBurst(upgradeLimit)),
    ...Object.fromEntries(Object.entries(rest).map(([name, value]) => [name, plain(value)]))
  }
}

function mapped<Value> (values: Readonly<Record<string, Value>>, map: (value: Value) => unknown): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(values).map(([name, value]) => [name, map(value)]))
}

/** A rate in whole: without a burst it has that of a second. */
function withBurst (limit: Rate | number | false | undefined): Rate | number | false | undefined {
  return typeof limit === 'object' ? { ...limit, burst: limit.burst ?? limit.perSecond } : limit
}

/**
 * Keeps numbers, booleans and strings, also inside literals; replaces other values by their kind, and missing ones by `null`. Instances of
 * classes are not looked into: a server, for example, has the keys and the passphrase of its certificate.
 */
function plain (value: unknown): Json {
  if (value === undefined || value === null) return null
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'string') return value
  if (!isLiteral(value)) return typeof value
  return Object.fromEntries(Object.entries(value as object).map(([name, one]) => [name, plain(one)]))
}

function describeRedis (redis: NonNullable<ResolvedOptions['redis']>): Json {
  if (typeof redis === 'string') {
    if (redis.startsWith('/') || !URL.canParse(redis)) return 'a socket'
    const { protocol, host, pathname } = new URL(redis)
    // With a password that was not escaped, the URL is read wrongly: a part of the password may be in the path, or taken for the host.
    if (redis.slice(redis.indexOf(host) + host.length).includes('@')) return `${protocol}//`
    return `${protocol}//${host}${/^\/\d*$/.test(pathname) ? pathname : ''}`
  }
  const cluster = property(redis, 'cluster') ?? property(redis, 'startupNodes')
  if (Array.isArray(cluster)) return { cluster: cluster.length }
  // A client has its options in a property.
  const options = property(redis, 'options') ?? redis
  const [host, port, db] = ['host', 'port', 'db'].map(name => property(options, name))
  const sentinels = property(options, 'sentinels')
  return {
    ...(typeof host === 'string' ? { host: host.replace(/^.*@/s, '') } : {}),
    ...(typeof port === 'number' ? { port } : {}),
    ...(typeof db === 'number' ? { db } : {}),
    ...(Array.isArray(sentinels) ? { sentinels: sentinels.length } : {}),
    tls: property(options, 'tls') !== undefined
  }
}
