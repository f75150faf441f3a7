import { Redis, type RedisOptions } from 'ioredis'
import { optionsOf, type RedisSource } from './source.ts'

/** Short, as memberships are to be back within two seconds of the return of Redis. */
const maxRetryMs = 500

/**
 * Makes a client that connects at once, with everything off that would hold a command back or send it twice. A client that is given is
 * duplicated.
 */
export function connect (source: RedisSource, role: 'command' | 'subscribe'): Redis {
  const options = optionsOf(source)
  const withSentinels = options.sentinels !== undefined && options.sentinels !== null
  const overrides: RedisOptions = {
    keyPrefix: '',                          // keys.ts names everything; ioredis would not prefix channels
    lazyConnect: false,
    enableOfflineQueue: false,
    // It asks INFO, which may be forbidden: greeting.ts does it with PING. With Sentinel it looks whether this is a master.
    enableReadyCheck: withSentinels,
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
    reconnectOnError: undefined,
    // Without it a client stays on a demoted master that hangs, and reads stale messages from it when it wakes.
    ...withSentinels ? { failoverDetector: true } : {}
  }
  // The client of the user's own copy of ioredis.
  if (typeof source === 'object' && !(source instanceof Redis) && 'duplicate' in source) return (source as unknown as Redis).duplicate(overrides)
  // After those of a URL: its query may name any option.
  return new Redis({ ...options, ...overrides })
}
