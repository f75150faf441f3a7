import { Redis, type RedisOptions } from 'ioredis'
import { Sentinels } from './sentinels.ts'

export type RedisSource = string | RedisOptions | Redis

/** How long each step of a dial may take: less in the first one, so that a sentinel or an address that hangs costs little. */
const minPatienceMs = 2_000
const maxPatienceMs = 16_000
/** Pauses before a dial: short, as memberships are to be back within two seconds of the return of Redis. */
const minPauseMs = 50
const maxPauseMs = 500

/**
 * Makes the clients of one link, one for each connection, with everything off that would hold a command back or send it twice. ioredis
 * itself never reconnects: each connection begins anew with the name of the server, or with the sentinels.
 */
export class Dialer {
  readonly #source: RedisSource
  readonly #role: 'command' | 'subscribe'
  readonly #sentinels: Sentinels | undefined
  #failures = 0
  #patienceMs = minPatienceMs

  constructor (source: RedisSource, role: 'command' | 'subscribe') {
    this.#source = source
    this.#role = role
    const sentinels = typeof source === 'string' || isForeign(source) ? undefined : optionsOf(source).sentinels
    this.#sentinels = sentinels === undefined || sentinels === null || sentinels.length === 0 ? undefined : new Sentinels(sentinels)
  }

  /** How long to wait before the next dial. */
  get pauseMs (): number {
    return Math.min(minPauseMs * 2 ** Math.min(this.#failures, 10), maxPauseMs) * (0.8 + Math.random() * 0.2)
  }

  /** A server may be silent for so long before its connection is ready. */
  get patienceMs (): number {
    return this.#patienceMs
  }

  /** A client that connects at once. One that the user gave is duplicated. */
  dial (): Redis {
    const overrides = this.#overrides()
    const source = this.#source
    if (typeof source === 'string') return new Redis(source, overrides)
    if (isClient(source)) return source.duplicate({ ...overrides, ...this.#sentinelOverrides(source.options) })
    return new Redis({ ...source, ...overrides, ...this.#sentinelOverrides(source) })
  }

  succeeded (): void {
    this.#failures = 0
    this.#patienceMs = minPatienceMs
  }

  /** The dial brought no connection of use, after so many milliseconds. */
  failed (tookMs: number): void {
    this.#failures++
    // Slow sentinels, a slow link: a limit that is too short for them would never let a connection come about.
    if (tookMs >= this.#patienceMs) this.#patienceMs = Math.min(2 * this.#patienceMs, maxPatienceMs)
    this.#sentinels?.rotate()
  }

  #overrides (): RedisOptions {
    this.#sentinels?.rewind()
    return {
      keyPrefix: '',                          // keys.ts names everything; ioredis would not prefix channels
      lazyConnect: false,
      enableOfflineQueue: false,
      enableReadyCheck: true,
      autoResubscribe: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      commandTimeout: undefined,
      connectTimeout: this.#patienceMs,
      disconnectTimeout: 100,
      enableAutoPipelining: this.#role === 'command',
      maxLoadingRetryTime: 500,
      // Replies as the scripts expect them, whatever the user's client is set to.
      stringNumbers: false,
      replyMapping: 'legacy',
      retryStrategy: () => null,
      reconnectOnError: undefined
    }
  }

  #sentinelOverrides ({ sentinels }: RedisOptions): RedisOptions {
    if (sentinels === undefined || sentinels === null) return {}
    return {
      // Without it a client stays on a demoted master that hangs, and reads stale messages from it when it wakes.
      failoverDetector: true,
      sentinelCommandTimeout: this.#patienceMs,
      sentinelRetryStrategy: () => null,
      ...(this.#sentinels === undefined ? {} : { Connector: this.#sentinels.connector })
    }
  }
}

/** Two copies of ioredis may live in one process: a client is told by its shape. */
function isClient (source: RedisOptions | Redis): source is Redis {
  return source instanceof Redis || 'duplicate' in source
}

/** A client of another copy of ioredis, maybe of another version: it finds its sentinels itself. */
function isForeign (source: RedisOptions | Redis): boolean {
  return isClient(source) && !(source instanceof Redis)
}

/** Where a source leads, with all that is needed to connect to another server in the same way. */
export function optionsOf (source: RedisSource): RedisOptions {
  if (typeof source !== 'string') return isClient(source) ? source.options : source
  const { options } = new Redis(source, { lazyConnect: true })
  return options
}
