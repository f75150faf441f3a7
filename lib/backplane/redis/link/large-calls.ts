import { hasCode, WebsocketGroupsError } from '../../../errors.ts'
import { SideConnection, type Command, type MainLink } from './side-connection.ts'
import type { RedisSource } from './source.ts'

/** No Redis can be told to take less in one command: 1 MiB is the least for an argument, and for a command that is still coming. */
const largeBytes = 1_000_000
/** A call goes on for so long while bytes go or come. */
const maxMs = 30_000
/** What the slowest link carries for which a large message is not late (bytes per millisecond): the system takes it from us at once. */
const slowestRate = 1_000
/** What was refused for its size is refused again without asking, for so long. */
const rememberedMs = 60_000

/**
 * Calls that Redis may refuse for their size. It does so by ending the connection, so they have one of their own while there are any, on
 * which they go one after another: a message that is too large costs its sender an error, and nobody else anything.
 */
export class LargeCalls {
  readonly #connection: SideConnection
  readonly #deadlineMs: number
  #last: Promise<unknown> = Promise.resolve()
  /** From this size on calls were refused, and when. */
  #refused = { bytes: Infinity, at: -Infinity }
  #closed = false

  constructor (source: RedisSource, deadlineMs: number, link: MainLink) {
    // What leaves is progress, too: it may take longer than the answer.
    this.#connection = new SideConnection(source, link, 'moved')
    this.#deadlineMs = deadlineMs
  }

  /** Whether a call with so many bytes of arguments belongs here. */
  static isLarge (bytes: number): boolean {
    return bytes >= largeBytes
  }

  /** Whether there is a connection for them. */
  get connected (): boolean {
    return this.#connection.ready
  }

  /** As `Link.run`. @throws {WebsocketGroupsError} WSG_MESSAGE_TOO_LARGE, and what `Link.run` throws */
  async run<Answer> (bytes: number, command: Command<Answer>): Promise<Answer> {
    const turn = this.#last.then(async () => await this.#run(bytes, command))
    this.#last = turn.catch(() => undefined)
    return await turn
  }

  /** The connection of the link ended: it may lead to another server next. */
  end (): void {
    this.#connection.end()
  }

  close (): void {
    this.#closed = true
    this.#connection.close()
  }

  async #run<Answer> (bytes: number, command: Command<Answer>): Promise<Answer> {
    if (bytes >= this.#refused.bytes && performance.now() - this.#refused.at < rememberedMs) throw tooLarge(bytes)
    try {
      await this.#ready()
      return await this.#settle(bytes, command)
    } catch (error) {
      if (!await this.#isRefused(error, bytes)) throw error
      this.#refused = { bytes, at: performance.now() }
      // Redis ends it in a moment, if it did not yet.
      this.#connection.reset()
      throw tooLarge(bytes, error)
    }
  }

  /** The connection ended during the call. Whether that was for its size shows another command of that size, which changes nothing. */
  async #isRefused (error: unknown, bytes: number): Promise<boolean> {
    if (error instanceof Error && /Protocol error|query buffer/i.test(error.message)) return true
    if (!hasCode(error, 'WSG_TIMEOUT') || this.#connection.ready) return false
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
    return await this.#connection.run(command, { deadlineMs: this.#deadlineMs + bytes / slowestRate, maxMs, bulk: true })
  }

  /** Resolves when the connection can be used. @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE */
  async #ready (): Promise<void> {
    const ready = await this.#connection.whenReady(2 * this.#deadlineMs)
    if (this.#closed) throw new WebsocketGroupsError('WSG_CLOSED')
    if (!ready) throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'no connection for a large message in time')
  }
}

function tooLarge (bytes: number, cause?: unknown): WebsocketGroupsError {
  const limits = 'see client-query-buffer-limit and proto-max-bulk-len of Redis'
  return new WebsocketGroupsError('WSG_MESSAGE_TOO_LARGE', `${bytes} bytes; ${limits}`, { cause })
}
