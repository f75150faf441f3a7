import { Redis, type RedisOptions } from 'ioredis'

export type RedisSource = string | RedisOptions | Redis

/** Short, as memberships are to be back within two seconds of the return of Redis. */
const maxRetryMs = 500

/**
 * Makes a client that connects at once, with everything off that would hold a command back or send it twice. A client that is given is
 * duplicated.
 */
export function connect (source: RedisSource, role: 'command' | 'subscribe'): Redis {
  const overrides: RedisOptions = {
    keyPrefix: '',                          // keys.ts names everything; ioredis would not prefix channels
    lazyConnect: false,
    enableOfflineQueue: false,
    enableReadyCheck: true,
    autoResubscribe: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    commandTimeout: undefined,
    connectTimeout: 2_000,
    disconnectTimeout: 100,
    enableAutoPipelining: role === 'command',
    maxLoadingRetryTime: 500,
    // Replies as the scripts expect them, whatever the user's client is set to.
    stringNumbers: false,
    replyMapping: 'legacy',
    retryStrategy: attempt => Math.min(50 * 2 ** Math.min(attempt - 1, 10), maxRetryMs) * (0.8 + Math.random() * 0.2),
    reconnectOnError: undefined
  }
  if (typeof source === 'string') return new Redis(source, overrides)
  if (source instanceof Redis || 'duplicate' in source) {
    const client = source as Redis
    return client.duplicate({ ...overrides, ...sentinelOverrides(client.options) })
  }
  return new Redis({ ...source, ...overrides, ...sentinelOverrides(source) })
}

/** Where a source leads, with all that is needed to connect to another server in the same way. */
export function optionsOf (source: RedisSource): RedisOptions {
  if (typeof source !== 'string') return 'duplicate' in source ? source.options : source
  const client = new Redis(source, { lazyConnect: true })
  const { options } = client
  client.disconnect()
  return options
}

/** Without it a client stays on a demoted master that hangs, and reads stale messages from it when it wakes. */
function sentinelOverrides ({ sentinels }: RedisOptions): RedisOptions {
  return sentinels === undefined || sentinels === null ? {} : { failoverDetector: true }
}
