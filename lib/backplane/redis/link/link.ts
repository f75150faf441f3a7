import type { Redis } from 'ioredis'
import { WebsocketGroupsError } from '../../../errors.ts'
import { BulkCalls } from './bulk-calls.ts'
import { BulkReads } from './bulk.ts'
import { Calls, type CallKind } from './calls.ts'
import type { Address } from './connect.ts'
import { Connection } from './connection.ts'
import type { LinkEvents, LinkStats, MessageListener } from './events.ts'
import { LargeCalls } from './large-calls.ts'
import { Liveness, lookIntervalMs } from './liveness.ts'
import { isReply, reasonOf, toBackplaneError } from './reply-errors.ts'
import { ErrorCleaner } from './safe-error.ts'
import { byHash, bytesCommands, bytesOf, textCommands, type Script } from './script.ts'
import type { Command, MainLink, SideConnection } from './side-connection.ts'
import type { RedisSource } from './source.ts'

/** How long a link may be silent before its connection is given up: it is pinged after two seconds (milliseconds). */
const silenceMs = 5_000
/** Misses in a row after which calls fail at once instead of waiting for their own deadline. */
const missesToTrip = 3
/** A call that waits behind other answers may take this many deadlines. */
const maxDeadlines = 4
/** How long a bulk read may take, even while bytes come (milliseconds). */
const maxBulkMs = 30_000
/** A master that became a replica is left for its successor, no more often than this: the same server may answer again (milliseconds). */
const demotedRetryMs = 2_000

/**
 * A connection to Redis whose calls always settle in time. Deadlines, liveness, the circuit breaker and reconnects are ours: with the
 * defaults of ioredis a command may wait for minutes, be sent twice, or never settle, and a client may end for good (see docs/redis.md).
 */
export class Link {
  /** Whether the link leads to a cluster, where messages go by sharded pub/sub. */
  readonly sharded: boolean = false
  /** The queue of bulk reads. */
  readonly bulk = new BulkReads()
  readonly deadlineMs: number
  readonly #role: string
  readonly #connection: Connection
  readonly #large: LargeCalls
  readonly #bulkCalls: BulkCalls
  readonly #sides: readonly SideConnection[]
  readonly #listeners: LinkEvents[] = []
  readonly #liveness = new Liveness()
  readonly #calls = new Calls({
    received: () => this.#connection.received,
    answered: () => this.#answered(),
    missed: (silent, kind) => {
      this.#timeouts++
      if (kind !== 'bulk' && silent) this.#missed()
    },
    translate: error => this.#translate(error)
  })

  #state: 'down' | 'up' | 'tripped' = 'down'
  #misses = 0
  #lastError: Error | undefined
  #lastDemotion = -Infinity
  #watcher: NodeJS.Timeout | undefined
  #receive: MessageListener | undefined
  #closed = false
  #timeouts = 0
  #connects = 0

  constructor (source: RedisSource, role: 'command' | 'subscribe', deadlineMs: number) {
    this.#role = role
    this.deadlineMs = deadlineMs
    const main: MainLink = {
      assertUp: () => this.#assertUp(),
      address: () => this.#connection.address,
      translate: error => this.#translate(error),
      missed: () => { this.#timeouts++ }
    }
    this.#large = new LargeCalls(source, deadlineMs, main)
    this.#bulkCalls = new BulkCalls(source, deadlineMs, main, this.bulk)
    this.#sides = [this.#large.connection, this.#bulkCalls.connection]
    this.#connection = new Connection(source, role, {
      opened: () => this.#liveness.sign(),
      ready: () => {
        this.#connects++
        this.#up()
      },
      ended: () => this.#down(),
      error: error => this.#reportError(error),
      message: (channel, bytes, late) => {
        // The answer to a ping may be far behind many messages in the socket.
        if (!late) this.#answered()
        this.#receive?.(channel, bytes, late)
      },
      moved: () => { for (const listener of this.#listeners) listener.moved?.() }
    })
    this.#watcher = setInterval(() => this.#watch(), lookIntervalMs).unref()
  }

  /** Adds a listener. Listeners are called in the order they were added. */
  on (listener: LinkEvents): void { this.#listeners.push(listener) }

  /** The client of the present connection, or of the last one. */
  get redis (): Redis { return this.#connection.redis }

  /** Sets who gets the messages of the channels that are subscribed on this link. */
  onMessage (receive: MessageListener): void { this.#receive = receive }

  get up (): boolean { return this.#state === 'up' }

  /** This link itself; in a `RoutedLink`, the link to its master. */
  get master (): { readonly connection: number } { return this }

  /** Where the present connection leads; `undefined` as in `Connection`. */
  get address (): Address | undefined { return this.#connection.address }

  /** Number of the present connection, or of the last one. */
  get connection (): number { return this.#connects }

  get problem (): string | undefined {
    if (this.#state === 'up') return undefined
    return `Redis ${this.#role} link is down: ${this.#state === 'tripped' ? 'Redis does not answer' : reasonOf(this.#lastError)}`
  }

  /** The error of calls while the link is down. Applications may show its message to strangers: only the cause names the host of Redis. */
  unavailable (): WebsocketGroupsError {
    return new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', `the Redis ${this.#role} link is down`, { cause: this.#lastError })
  }

  stats (): LinkStats {
    const connections = [this.#connection, ...this.#sides].filter(({ ready }) => ready).length
    return { connections, timeouts: this.#timeouts, reconnects: Math.max(0, this.#connects - 1) }
  }

  /**
   * Runs one command, or several that ioredis sends together. Settles within the deadline; while the link is down, at once.
   * `settled` tells a command of two steps, before the second, whether its caller has an outcome already.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE (not sent, or refused by Redis), WSG_TIMEOUT (unknown outcome)
   */
  async run<T> (command: Command<T>, deadlineMs = this.deadlineMs, kind: CallKind = 'call'): Promise<T> {
    this.#assertUp()
    return await this.#settle(command, deadlineMs, kind)
  }

  /** As `run`, for a script: by hash, and by text when Redis does not know the hash (any longer). */
  async script (script: Script, keys: readonly string[], args: ReadonlyArray<string | number | Buffer>): Promise<unknown> {
    return await this.run(byHash(...textCommands(script, keys, args)))
  }

  // Every message goes through the next two, `#settle` and `Calls.run`: promises of their own were 15 % of what it cost this process.
  /** As `script`, with strings of the reply as bytes. Callers whose order counts wait for one call before they make the next. */
  bytesScript (script: Script, keys: readonly string[], args: ReadonlyArray<string | number | Buffer>): Promise<unknown> {
    return this.runSized(bytesOf(args), byHash(...bytesCommands(script, keys, args)), 'call')
  }

  /** As `run`, with this many bytes of arguments; see `LargeCalls.isLarge`. @throws {WebsocketGroupsError} also WSG_MESSAGE_TOO_LARGE */
  runSized<T> (bytes: number, command: Command<T>, kind: 'call' | 'publish'): Promise<T> {
    if (this.#state === 'up' && LargeCalls.isLarge(bytes, kind)) return this.#large.run(bytes, command)
    return this.run(command, this.deadlineMs, kind)
  }

  /** As `bytesScript`, for an answer with much data; called in its turn in `bulk`. Its failure says nothing about the link. */
  async bulkScript (script: Script, keys: readonly string[], args: ReadonlyArray<string | number | Buffer>): Promise<unknown> {
    return await this.runBulk(byHash(...bytesCommands(script, keys, args)))
  }

  /** As `run`, for reads with much data; called in its turn in `bulk`. It may be sent twice. */
  async runBulk<T> (command: Command<T>): Promise<T> {
    this.#assertUp()
    return await this.#bulkCalls.run(command, this.bulk.much, async (command, deadlineMs) => {
      return await this.run(command, deadlineMs, 'bulk')
    })
  }

  /**
   * Gives the connection up for a new one. Calls under way fail now. Messages that still arrive are ignored; with `keep` they are
   * delivered until `dropPrevious`.
   */
  reset (keep = false): void {
    this.#connection.reset(keep)
  }

  /** After a reconnect: as `Connection.previousDrained`. */
  previousDrained (patiently = false): Promise<void> | undefined { return this.#connection.previousDrained(patiently) }

  /** Drops the previous connection: from now on all messages come by the new one. */
  dropPrevious (): void { this.#connection.dropPrevious() }

  async close (): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    clearInterval(this.#watcher)
    try {
      // A hung server would never answer QUIT.
      if (this.#state === 'up') await this.#settle(async redis => await redis.quit(), Math.min(this.deadlineMs, 500))
    } catch (error) {
      this.#lastError = error as Error
    } finally {
      this.#connection.close()
      for (const side of this.#sides) side.close()
      this.#down()
    }
  }

  #assertUp (): void { if (this.#state !== 'up') throw this.unavailable() }

  #settle<T> (command: Command<T>, deadlineMs: number, kind: CallKind = 'call'): Promise<T> {
    // The subscribe link brings messages, as large and as many as others send.
    const maxMs = kind === 'bulk' || this.#role === 'subscribe' ? maxBulkMs : maxDeadlines * deadlineMs
    return this.#calls.run(settled => command(this.#connection.redis, settled), { deadlineMs, maxMs, kind })
  }

  #reportError (error: Error): void {
    const clean = this.#lastError = this.#clean(error)
    for (const listener of this.#listeners) listener.error?.(clean)
  }

  /** The error without the passwords of the present connection. */
  #clean (error: Error): Error { return new ErrorCleaner(this.redis.options).clean(error) }

  #translate (raw: Error): Error {
    const error = this.#clean(raw)
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
    // Reset later, so that the call with this reply settles first.
    setImmediate(() => this.#connection.blame())
  }

  #answered (): void {
    this.#liveness.sign()
    this.#misses = 0
    if (this.#state === 'tripped' && this.#connection.ready) this.#up()
  }

  #missed (): void {
    if (++this.#misses < missesToTrip || this.#state !== 'up') return
    this.#state = 'tripped'
    this.#calls.fail('Redis does not answer', ['publish', 'bulk'])
    for (const listener of this.#listeners) listener.down?.()
  }

  #up (): void {
    this.bulk.reset()
    this.#liveness.sign()
    this.#misses = 0
    this.#state = 'up'
    for (const listener of this.#listeners) listener.up?.()
  }

  #down (): void {
    const was = this.#state
    this.#state = 'down'
    // With autoResendUnfulfilledCommands off ioredis forgets what was in flight and never settles it.
    this.#calls.fail('the link to Redis broke')
    // The next connection of the link may lead to another server.
    for (const side of this.#sides) side.end()
    if (was === 'up') for (const listener of this.#listeners) listener.down?.()
  }

  /**
   * Twice a second: pings if need be, and gives up a connection that was silent for too long, also in its handshake, as no option of
   * ioredis does.
   */
  #watch (): void {
    const { ready, shakingHands, received, patienceMs } = this.#connection
    const { silentMs, ping } = this.#liveness.look(received)
    if (!ready && !shakingHands) return this.#connection.check()
    if (silentMs > (ready ? silenceMs : Math.max(silenceMs, patienceMs))) return this.reset(true)
    if (ready && ping) this.#settle(async redis => await redis.ping(), this.deadlineMs).catch((error: Error) => { this.#lastError = error })
  }
}
