import type { Redis } from 'ioredis'
import { withDeadline } from '../../../deadline.ts'
import { hasCode, WebsocketGroupsError } from '../../../errors.ts'
import { Calls } from './calls.ts'
import { Connection } from './connection.ts'
import { toBackplaneError } from './reply-errors.ts'
import { ErrorCleaner } from './safe-error.ts'
import type { RedisSource } from './source.ts'

/** No Redis can be told to take less in one command: 1 MiB is the least for an argument, and for a command that is still coming. */
const largeBytes = 1_000_000
/** A call goes on for so long while bytes go or come. */
const maxMs = 30_000
/** What the slowest link carries for which a large message is not late (bytes per millisecond): the system takes it from us at once. */
const slowestRate = 1_000
/** The connection stays for so long after its last call. */
const idleMs = 10_000
/** What was refused for its size is refused again without asking, for so long. */
const rememberedMs = 60_000

type Command<Answer> = (redis: Redis, settled: () => boolean) => Promise<Answer>

/**
 * Calls that Redis may refuse for their size. It does so by ending the connection, so they have one of their own while there are any, on
 * which they go one after another: a message that is too large costs its sender an error, and nobody else anything.
 */
export class LargeCalls {
  readonly #source: RedisSource
  readonly #deadlineMs: number
  #connection: Connection | undefined
  #calls: Calls | undefined
  #last: Promise<unknown> = Promise.resolve()
  #idleTimer: NodeJS.Timeout | undefined
  /** From this size on calls were refused, and when. */
  #refused = { bytes: Infinity, at: -Infinity }
  #closed = false
  /** Tells whoever waits for the connection. */
  #onReady: () => void = () => {}

  constructor (source: RedisSource, deadlineMs: number) {
    this.#source = source
    this.#deadlineMs = deadlineMs
  }

  /** Whether a call with so many bytes of arguments belongs here. */
  static isLarge (bytes: number): boolean {
    return bytes >= largeBytes
  }

  /** As `Link.run`. @throws {WebsocketGroupsError} WSG_MESSAGE_TOO_LARGE, and what `Link.run` throws */
  async run<Answer> (bytes: number, command: Command<Answer>): Promise<Answer> {
    const turn = this.#last.then(async () => await this.#run(bytes, command))
    this.#last = turn.catch(() => undefined)
    return await turn
  }

  close (): void {
    this.#closed = true
    this.#end()
  }

  async #run<Answer> (bytes: number, command: Command<Answer>): Promise<Answer> {
    if (bytes >= this.#refused.bytes && performance.now() - this.#refused.at < rememberedMs) throw tooLarge(bytes)
    clearTimeout(this.#idleTimer)
    try {
      await this.#ready()
      return await this.#settle(bytes, command)
    } catch (error) {
      if (!await this.#isRefused(error, bytes)) throw error
      this.#refused = { bytes, at: performance.now() }
      // Redis ends it in a moment, if it did not yet.
      this.#connection?.reset()
      throw tooLarge(bytes, error)
    } finally {
      this.#idleTimer = setTimeout(() => this.#end(), idleMs).unref()
    }
  }

  /** The connection ended during the call. Whether that was for its size shows another command of that size, which changes nothing. */
  async #isRefused (error: unknown, bytes: number): Promise<boolean> {
    if (error instanceof Error && /Protocol error|query buffer/i.test(error.message)) return true
    if (!hasCode(error, 'WSG_TIMEOUT') || this.#connection?.ready !== false) return false
    try {
      await this.#ready()
      await this.#settle(bytes, async redis => await redis.ping(Buffer.alloc(bytes, 0x20)))
      return false
    } catch (failure) {
      if (failure instanceof Error && /Protocol error/i.test(failure.message)) return true
      // It broke again, and Redis is still there.
      return hasCode(failure, 'WSG_TIMEOUT') && !this.#connection.ready && await this.#ready().then(() => true, () => false)
    }
  }

  async #settle<Answer> (bytes: number, command: Command<Answer>): Promise<Answer> {
    const { redis } = this.#open()
    if (this.#calls === undefined) throw new WebsocketGroupsError('WSG_CLOSED')
    const deadlineMs = this.#deadlineMs + bytes / slowestRate
    return await this.#calls.run(async settled => await command(redis, settled), { deadlineMs, maxMs, bulk: true })
  }

  /** Resolves when the connection can be used. @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE */
  async #ready (): Promise<void> {
    const connection = this.#open()
    if (connection.ready) return
    await withDeadline(new Promise<void>(resolve => { this.#onReady = resolve }), 2 * this.#deadlineMs, () => {
      throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'no connection for a large message in time')
    })
    if (this.#closed) throw new WebsocketGroupsError('WSG_CLOSED')
  }

  #open (): Connection {
    if (this.#closed) throw new WebsocketGroupsError('WSG_CLOSED')
    if (this.#connection !== undefined) return this.#connection
    const calls = this.#calls = new Calls({
      // What leaves is progress, too: it may take longer than the answer.
      received: () => this.#connection?.moved ?? 0,
      answered () {},
      missed () {},
      translate: error => toBackplaneError(new ErrorCleaner(this.#connection?.redis.options ?? {}).clean(error))
    })
    this.#connection = new Connection(this.#source, 'command', {
      opened () {},
      ready: () => this.#onReady(),
      ended: () => calls.failAll('the link to Redis broke'),
      error () {},
      message () {}
    })
    return this.#connection
  }

  #end (): void {
    clearTimeout(this.#idleTimer)
    this.#connection?.close()
    this.#calls?.failAll('the link to Redis broke')
    this.#connection = undefined
    this.#calls = undefined
    this.#onReady()
  }
}

function tooLarge (bytes: number, cause?: unknown): WebsocketGroupsError {
  const limits = 'see client-query-buffer-limit and proto-max-bulk-len of Redis'
  return new WebsocketGroupsError('WSG_MESSAGE_TOO_LARGE', `${bytes} bytes; ${limits}`, { cause })
}
