import type { Redis } from 'ioredis'
import { WebsocketGroupsError } from '../../../errors.ts'
import { BulkReads } from './bulk.ts'
import { CallDeadline } from './call-deadline.ts'
import { connect, type RedisSource } from './connect.ts'
import { isReply, toBackplaneError } from './reply-errors.ts'
import { bytesCommands, type RedisCommand, type Script } from './script.ts'

/** How often an idle link is pinged, and how long it may stay silent before it is torn down. */
const pingIntervalMs = 1_000
const silenceMs = 4_000
/** Misses in a row after which calls fail at once instead of waiting for their own deadline. */
const missesToTrip = 3
/** A call that waits behind a bulk read that makes progress gets so many deadlines. */
const deadlinesBehindBulk = 4
/** A bulk read is given up when no bytes came for so many deadlines, or after so many milliseconds in all. */
const silentDeadlines = 2
const maxBulkMs = 30_000
/** A master that became a replica is left for whoever is master now; when the same one answers again, not more often than this. */
const demotedRetryMs = 2_000

export interface LinkEvents {
  /** The link works now: after the first connect, a reconnect, or a hang. */
  readonly up?: (() => void) | undefined
  /** The link broke, or Redis does not answer on it. */
  readonly down?: (() => void) | undefined
  readonly error?: ((error: Error) => void) | undefined
}

/**
 * One connection to Redis that always answers in time. ioredis reconnects; deadlines, liveness and the circuit breaker are ours, because
 * with its defaults a command may wait for minutes, be sent twice, or never settle (see docs/redis.md).
 */
export class Link {
  readonly redis: Redis
  /** Whether it leads to a cluster, where messages go by sharded pub/sub. */
  readonly sharded: boolean = false
  /** Where reads of much data take their turn. */
  readonly bulk = new BulkReads()
  readonly #role: string
  readonly #deadlineMs: number
  readonly #listeners: LinkEvents[] = []
  /** What fails each call that is under way, and whether that is a bulk read. */
  readonly #calls = new Map<(error: Error) => void, boolean>()
  #state: 'down' | 'up' | 'tripped' = 'down'
  #misses = 0
  #lastSign = performance.now()
  #lastWatch = performance.now()
  /** Bytes that had come when the link was looked at last. */
  #lastReceived = 0
  #lastError: Error | undefined
  #lastDemotion = -Infinity
  #pinger: NodeJS.Timeout | undefined
  #closed = false
  #timeouts = 0
  #connects = 0

  constructor (source: RedisSource, role: 'command' | 'subscribe', deadlineMs: number) {
    this.#role = role
    this.#deadlineMs = deadlineMs
    this.redis = connect(source, role)
    this.redis.on('connect', () => { this.#lastSign = performance.now() })
    this.redis.on('ready', () => {
      this.#connects++
      this.#up()
    })
    this.redis.on('close', () => this.#down())
    this.redis.on('error', (error: Error) => {
      this.#lastError = error
      for (const listener of this.#listeners) listener.error?.(error)
    })
    this.#pinger = setInterval(() => this.#watch(), pingIntervalMs).unref()
  }

  /** Adds a listener; those of an event are called in the order they were added. */
  on (listener: LinkEvents): void {
    this.#listeners.push(listener)
  }

  get up (): boolean {
    return this.#state === 'up'
  }

  get deadlineMs (): number {
    return this.#deadlineMs
  }

  /** Number of the present connection, or of the last one. */
  get connection (): number {
    return this.#connects
  }

  get problem (): string | undefined {
    if (this.#state === 'up') return undefined
    const why = this.#state === 'tripped' ? 'Redis does not answer' : this.#lastError?.message ?? 'not connected'
    return `Redis ${this.#role} link is down: ${why}`
  }

  stats (): { readonly timeouts: number, readonly reconnects: number } {
    return { timeouts: this.#timeouts, reconnects: Math.max(0, this.#connects - 1) }
  }

  /**
   * Runs one command, or several that ioredis sends together. Settles within the deadline; while the link is down, at once.
   * `settled` tells a command of two steps whether the caller was given an outcome before the second.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE (not sent, or refused by Redis), WSG_TIMEOUT (unknown outcome)
   */
  async run<T> (command: (redis: Redis, settled: () => boolean) => Promise<T>, deadlineMs = this.#deadlineMs): Promise<T> {
    if (this.#state !== 'up') throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', this.problem)
    return await this.#settle(command, deadlineMs)
  }

  /** As `run`, for a script: by hash, and by text when Redis does not know it (any more). */
  async script (script: Script, keys: readonly string[], args: ReadonlyArray<string | number | Buffer>): Promise<unknown> {
    const { sha, lua } = script
    return await this.#byHash(
      async redis => await redis.evalsha(sha, keys.length, ...keys, ...args),
      async redis => await redis.eval(lua, keys.length, ...keys, ...args)
    )
  }

  /** As `script`, with strings of the reply as bytes. */
  async bytesScript (script: Script, keys: readonly string[], args: ReadonlyArray<string | number | Buffer>): Promise<unknown> {
    return await this.#byHash(...bytesCommands(script, keys, args))
  }

  /** As `bytesScript`, for an answer with much data, called in its turn in `bulk`: its failure says nothing about the link. */
  async bulkScript (script: Script, keys: readonly string[], args: ReadonlyArray<string | number | Buffer>): Promise<unknown> {
    return await this.#byHash(...bytesCommands(script, keys, args), true)
  }

  /** As `run`, for answers with much data; called in its turn in `bulk`. */
  async runBulk<T> (command: (redis: Redis, settled: () => boolean) => Promise<T>): Promise<T> {
    if (this.#state !== 'up') throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', this.problem)
    return await this.#settle(command, silentDeadlines * this.#deadlineMs, true)
  }

  /** A message arrived: with many of them in the socket, the answer to a ping may be a long way behind. */
  heard (): void {
    this.#lastSign = performance.now()
    this.#misses = 0
  }

  /** Tears the connection down; ioredis makes a new one. What is in flight fails now, and what still arrives counts for nothing. */
  reset (): void {
    this.#down()
    this.redis.disconnect(true)
  }

  async close (): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    clearInterval(this.#pinger)
    try {
      // A hung server would never answer QUIT.
      if (this.#state === 'up') await this.#settle(async redis => await redis.quit(), Math.min(this.#deadlineMs, 500))
    } catch (error) {
      this.#lastError = error as Error
    } finally {
      this.redis.disconnect()
      this.#down()
    }
  }

  async #byHash (evalsha: RedisCommand, evaluate: RedisCommand, bulk = false): Promise<unknown> {
    const command = async (redis: Redis, settled: () => boolean): Promise<unknown> => {
      try {
        return await evalsha(redis)
      } catch (error) {
        if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error
        // The caller heard of a timeout and may have sent something newer since.
        if (settled()) throw error
        return await evaluate(redis)
      }
    }
    return await (bulk ? this.runBulk(command) : this.run(command))
  }

  async #settle<T> (command: (redis: Redis, settled: () => boolean) => Promise<T>, deadlineMs: number, bulk = false): Promise<T> {
    return await new Promise<T>((resolve, reject) => {
      const fail = (error: Error): void => {
        deadline.stop()
        this.#calls.delete(fail)
        reject(error)
      }
      const deadline = new CallDeadline(deadlineMs, bulk ? maxBulkMs : deadlinesBehindBulk * deadlineMs, () => this.#received, {
        mayGoOn: () => bulk || this.bulk.running > 0,
        missed: tookMs => {
          this.#timeouts++
          if (!bulk) this.#missed()
          fail(new WebsocketGroupsError('WSG_TIMEOUT', `Redis did not answer within ${Math.round(tookMs)} ms`))
        }
      })
      this.#calls.set(fail, bulk)
      command(this.redis, () => !this.#calls.has(fail)).then(value => {
        deadline.stop()
        this.#calls.delete(fail)
        this.#answered()
        resolve(value)
      }, (error: Error) => fail(this.#translate(error)))
    })
  }

  /** Bytes that came on the present connection. */
  get #received (): number {
    return (this.redis.stream as { readonly bytesRead?: number } | undefined)?.bytesRead ?? 0
  }

  #translate (error: Error): Error {
    if (isReply(error)) {
      this.#answered()
      this.#lastError = error
      if (error.message.startsWith('READONLY')) this.#demoted()
    }
    return toBackplaneError(error)
  }

  /** This server became a replica. A new connection may lead to its successor: a failover moves names and addresses. */
  #demoted (): void {
    const now = performance.now()
    if (now - this.#lastDemotion < demotedRetryMs) return
    this.#lastDemotion = now
    // Not at once: the reply that told of it settles first.
    setImmediate(() => { if (!this.#closed) this.reset() })
  }

  #answered (): void {
    this.#lastSign = performance.now()
    this.#misses = 0
    if (this.#state === 'tripped' && this.redis.status === 'ready') this.#up()
  }

  #missed (): void {
    if (++this.#misses < missesToTrip || this.#state !== 'up') return
    this.#state = 'tripped'
    for (const [fail, bulk] of [...this.#calls]) if (bulk) fail(new WebsocketGroupsError('WSG_TIMEOUT', 'Redis does not answer'))
    this.#announceDown()
  }

  #up (): void {
    this.bulk.reset()
    this.#lastSign = performance.now()
    this.#misses = 0
    this.#state = 'up'
    for (const listener of this.#listeners) listener.up?.()
  }

  #down (): void {
    const was = this.#state
    this.#state = 'down'
    // With autoResendUnfulfilledCommands off ioredis forgets what was in flight and never settles it.
    for (const fail of [...this.#calls.keys()]) fail(new WebsocketGroupsError('WSG_TIMEOUT', 'the link to Redis broke'))
    if (was === 'up') this.#announceDown()
  }

  #announceDown (): void {
    for (const listener of this.#listeners) listener.down?.()
  }

  /** Once a second: ping, and give up on a connection that was silent for too long, also in its handshake: no option of ioredis does. */
  #watch (): void {
    const { status } = this.redis
    const now = performance.now()
    // Part of an answer came; or this process stalled, not Redis, and its answers are waiting in the socket, to be read after this timer.
    if (now - this.#lastWatch > 2 * pingIntervalMs || this.#received !== this.#lastReceived) this.#lastSign = now
    this.#lastWatch = now
    this.#lastReceived = this.#received
    if (status !== 'ready' && status !== 'connect') return         // ioredis is dialling, or waits before it does
    if (now - this.#lastSign > silenceMs) return this.reset()
    if (status !== 'ready') return
    this.#settle(async redis => await redis.ping(), this.#deadlineMs).catch((error: Error) => { this.#lastError = error })
  }
}
