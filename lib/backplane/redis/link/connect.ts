import { isIP } from 'node:net'
import { Redis, type RedisOptions } from 'ioredis'
import { addressesOf } from './addresses.ts'
import { Sentinels } from './sentinels.ts'
import { optionsOf, type RedisSource } from './source.ts'

/** How long each step of a dial may take (milliseconds): little at first, so that a sentinel or an address that hangs costs little. */
const minPatienceMs = 2_000
const maxPatienceMs = 16_000
/** Pauses before a dial (milliseconds): short, as memberships are to be back within two seconds of the return of Redis. */
const minPauseMs = 50
const maxPauseMs = 500

const defaultPort = 6379

/** The address of a server. */
export interface Address {
  readonly host: string
  readonly port: number
}

/**
 * Makes the clients of one link, one for each connection, with everything off that would hold a command back or send it twice. ioredis
 * itself never reconnects: each connection begins anew with the name of the server, or with the sentinels.
 */
export class Dialer {
  readonly #source: RedisSource
  readonly #role: 'command' | 'subscribe'
  /** The options in the URL, where the source is one. */
  readonly #parsed: RedisOptions | undefined
  readonly #sentinels: Sentinels | undefined
  readonly #address: () => Address | undefined
  #failures = 0
  /** The address for the next dial: one of those that the name has. */
  #alternative: Address | undefined
  #patienceMs = minPatienceMs

  /** `address`: of the server to dial; where it returns `undefined`, the source says where the server is. */
  constructor (source: RedisSource, role: 'command' | 'subscribe', address: () => Address | undefined = () => undefined) {
    this.#source = source
    this.#address = address
    this.#role = role
    if (typeof source === 'string') this.#parsed = optionsOf(source)
    const { sentinels } = isForeign(source) ? {} : this.#options
    this.#sentinels = sentinels === undefined || sentinels === null || sentinels.length === 0 ? undefined : new Sentinels(sentinels)
  }

  /** How long to wait before the next dial. */
  get pauseMs (): number {
    return Math.min(minPauseMs * 2 ** Math.min(this.#failures, 10), maxPauseMs) * (0.8 + Math.random() * 0.2)
  }

  /** How long a server may be silent before its connection is ready (milliseconds). */
  get patienceMs (): number {
    return this.#patienceMs
  }

  /**
   * Chooses the address for the next dial after one that failed, if the name has several: the first of them may accept connections and be
   * of no use, like a server that hangs, and would be dialled forever. `undefined` where there is nothing to wait for. Never rejects.
   */
  prepare (): Promise<void> | undefined {
    this.#alternative = undefined
    const { host, path, sentinels, Connector } = this.#options
    if (this.#failures === 0 || host === undefined || isIP(host) !== 0 || this.#address() !== undefined) return undefined
    if ((path ?? sentinels ?? Connector ?? undefined) !== undefined) return undefined
    return this.#chooseAddress(host)
  }

  /** A client that connects at once. */
  dial (): Redis {
    const source = this.#source
    const options = this.#options
    const address = options.Connector === undefined ? this.#address() ?? this.#alternative : undefined
    const way = address === undefined ? this.#sentinelOverrides(options) : straightTo(address, options)
    const overrides = { ...this.#overrides(options), ...way }
    // A client of the user's own copy of ioredis.
    if (isForeign(source)) return source.duplicate(overrides)
    // The overrides come last, because the query of a URL may name any option.
    return new Redis({ ...options, ...overrides })
  }

  succeeded (): void {
    this.#failures = 0
    this.#patienceMs = minPatienceMs
  }

  /** Notes that a dial brought no usable connection, and how long it took (milliseconds). */
  failed (tookMs: number): void {
    this.#failures++
    // The sentinels or the link may be slow: with too short a limit no connection would ever come about.
    if (tookMs >= this.#patienceMs) this.#patienceMs = Math.min(2 * this.#patienceMs, maxPatienceMs)
    this.#sentinels?.rotate()
  }

  /** The options as they are now: those of a client that was given, such as its password, may have changed. */
  get #options (): RedisOptions {
    return this.#parsed ?? optionsOf(this.#source)
  }

  async #chooseAddress (name: string): Promise<void> {
    const { port = defaultPort, family } = this.#options
    const addresses = await addressesOf(name, family ?? 0, this.#patienceMs)
    const host = addresses[this.#failures % addresses.length]
    if (addresses.length > 1 && host !== undefined) this.#alternative = { host, port }
  }

  #overrides ({ sentinels }: RedisOptions): RedisOptions {
    this.#sentinels?.rewind()
    return {
      keyPrefix: '',                          // keys.ts names everything; ioredis would not prefix channels
      lazyConnect: false,
      enableOfflineQueue: false,
      // The check asks INFO, which may be forbidden: greeting.ts asks PING. With Sentinel the check tells whether this is a master.
      enableReadyCheck: sentinels !== undefined && sentinels !== null,
      readOnly: false,                        // a master that became a replica must turn reads away, too
      autoResubscribe: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      commandTimeout: undefined,
      connectTimeout: this.#patienceMs,
      disconnectTimeout: 100,
      enableAutoPipelining: this.#role === 'command',
      maxLoadingRetryTime: 500,
      // The scripts expect replies in this form, whatever the user's client is set to.
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
      // Replicas lag behind, and refuse writes.
      role: 'master',
      sentinelCommandTimeout: this.#patienceMs,
      sentinelRetryStrategy: () => null,
      ...(this.#sentinels === undefined ? {} : { Connector: this.#sentinels.connector })
    }
  }
}

/** Options that lead straight to an address, by no name and no sentinels. */
function straightTo (address: Address, { host, sentinels, enableTLSForSentinelMode, tls }: RedisOptions): RedisOptions {
  const bySentinels = sentinels !== undefined && sentinels !== null
  const secure = bySentinels && enableTLSForSentinelMode !== true ? undefined : tls
  // The certificate names the host, not its address.
  const named = secure === undefined || bySentinels || host === undefined || isIP(host) !== 0 ? secure : { servername: host, ...secure }
  return { ...address, path: undefined, sentinels: undefined, enableReadyCheck: false, tls: named }
}

/** A client of another copy of ioredis, maybe of another version: told by its shape. It finds its sentinels itself. */
function isForeign (source: RedisSource): source is Redis {
  return typeof source === 'object' && !(source instanceof Redis) && 'duplicate' in source
}
