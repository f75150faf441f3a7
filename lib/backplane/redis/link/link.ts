import { Command, type Redis } from 'ioredis'
import { WebsocketGroupsError } from '../../../errors.ts'
import { connect, type RedisSource } from './connect.ts'
import type { Script } from './script.ts'

/** How often an idle link is pinged, and how long it may stay silent before it is torn down. */
const pingIntervalMs = 1_000
const silenceMs = 4_000
/** Misses in a row after which calls fail at once instead of waiting for their own deadline. */
const missesToTrip = 3
/** A timer that is later than this tells of a process that was busy, which gets as long again, up to a limit, to read what came meanwhile. */
const lateMs = 10
const maxGraceMs = 100
/** A master that became a replica is left for whoever is master now; when the same one answers again, not more often than this. */
const demotedRetryMs = 2_000
/** Replies that say "not now" rather than "no": the same call may work on the next master, or in a moment. */
const passingErrors = /^(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY)/

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
  readonly #role: string
  readonly #deadlineMs: number
  readonly #listeners: LinkEvents[] = []
  readonly #calls = new Set<(error: Error) => void>()
  #state: 'down' | 'up' | 'tripped' = 'down'
  #misses = 0
  #lastSign = performance.now()
  #lastWatch = performance.now()
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
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE (not sent, or refused by Redis), WSG_TIMEOUT (unknown outcome)
   */
  async run<T> (command: (redis: Redis) => Promise<T>, deadlineMs = this.#deadlineMs): Promise<T> {
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
    const { sha, lua } = script
    return await this.#byHash(
      async redis => await redis.sendCommand(new Command('evalsha', [sha, keys.length, ...keys, ...args])),
      async redis => await redis.sendCommand(new Command('eval', [lua, keys.length, ...keys, ...args]))
    )
  }

  /** A message arrived: with many of them in the socket, the answer to a ping may be a long way behind. */
  heard (): void {
    this.#lastSign = performance.now()
    this.#misses = 0
  }

  /** Tears the connection down; ioredis makes a new one. What is in flight fails now, and nothing that still arrives brings this connection back. */
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

  async #byHash (evalsha: (redis: Redis) => Promise<unknown>, evaluate: (redis: Redis) => Promise<unknown>): Promise<unknown> {
    const sentAt = performance.now()
    return await this.run(async redis => {
      try {
        return await evalsha(redis)
      } catch (error) {
        if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error
        // The caller heard of a timeout and may have sent something newer since.
        if (performance.now() - sentAt > this.#deadlineMs) throw error
        return await evaluate(redis)
      }
    })
  }

  async #settle<T> (command: (redis: Redis) => Promise<T>, deadlineMs: number): Promise<T> {
    return await new Promise<T>((resolve, reject) => {
      const fail = (error: Error): void => {
        clearTimeout(timer)
        this.#calls.delete(fail)
        reject(error)
      }
      const startedAt = performance.now()
      const miss = (): void => {
        this.#missed()
        fail(new WebsocketGroupsError('WSG_TIMEOUT', `Redis did not answer within ${deadlineMs} ms`))
      }
      let timer = setTimeout(() => {
        // Timers come before sockets: after a stall of this process the answer may be there already, unread.
        const late = performance.now() - startedAt - deadlineMs
        if (late > lateMs) timer = setTimeout(miss, Math.min(late, maxGraceMs))
        else miss()
      }, deadlineMs)
      this.#calls.add(fail)
      command(this.redis).then(value => {
        clearTimeout(timer)
        this.#calls.delete(fail)
        this.#answered()
        resolve(value)
      }, (error: Error) => fail(this.#translate(error)))
    })
  }

  #translate (error: Error): Error {
    if (error.name === 'ReplyError') {
      this.#answered()
      this.#lastError = error
      if (error.message.startsWith('READONLY')) this.#demoted()
      if (passingErrors.test(error.message)) return new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', error.message, { cause: error })
      return new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', `Redis refused it: ${error.message}`, { cause: error })
    }
    // ioredis says this before it writes anything; all its other failures may come after the command left.
    const unsent = error.message.startsWith("Stream isn't writeable")
    return new WebsocketGroupsError(unsent ? 'WSG_BACKPLANE_UNAVAILABLE' : 'WSG_TIMEOUT', error.message, { cause: error })
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
    this.#timeouts++
    if (++this.#misses < missesToTrip || this.#state !== 'up') return
    this.#state = 'tripped'
    this.#announceDown()
  }

  #up (): void {
    this.#lastSign = performance.now()
    this.#misses = 0
    this.#state = 'up'
    for (const listener of this.#listeners) listener.up?.()
  }

  #down (): void {
    const was = this.#state
    this.#state = 'down'
    // With autoResendUnfulfilledCommands off ioredis forgets what was in flight and never settles it.
    for (const fail of [...this.#calls]) fail(new WebsocketGroupsError('WSG_TIMEOUT', 'the link to Redis broke'))
    if (was === 'up') this.#announceDown()
  }

  #announceDown (): void {
    for (const listener of this.#listeners) listener.down?.()
  }

  /** Once a second: ping, and give up on a connection that has been silent for too long. Also covers the handshake, which no option of ioredis does. */
  #watch (): void {
    const { status } = this.redis
    const now = performance.now()
    // This process stalled, not Redis: its answers are waiting in the socket, to be read after this timer.
    if (now - this.#lastWatch > 2 * pingIntervalMs) this.#lastSign = now
    this.#lastWatch = now
    if (status !== 'ready' && status !== 'connect') return         // ioredis is dialling, or waits before it does
    if (now - this.#lastSign > silenceMs) return this.reset()
    if (status !== 'ready') return
    this.#settle(async redis => await redis.ping(), this.#deadlineMs).catch((error: Error) => { this.#lastError = error })
  }
}
