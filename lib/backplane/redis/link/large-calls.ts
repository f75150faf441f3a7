import { hasCode, WebsocketGroupsError } from '../../../errors.ts'
import type { CallKind } from './calls.ts'
import { SideConnection, type Command, type MainLink } from './side-connection.ts'
import type { RedisSource } from './source.ts'

/** Every Redis accepts smaller commands: 1 MiB is the lowest value of `proto-max-bulk-len` and of `client-query-buffer-limit`. */
const largeBytes = 1_000_000
/**
 * Over a slow link a call of this size takes so long to send that others should not wait behind it, or longer than its deadline. A batch
 * of small messages is smaller (log/lanes.ts).
 */
const longBytes = 300_000
/** A call may take this many milliseconds as long as its bytes move, and may wait for as long until it is sent. */
const maxMs = 30_000
/** Bytes per millisecond that the deadline of a large call allows for: a slower network makes the call time out. */
const slowestRate = 1_000
/** After Redis refused a size, calls of that size or more are refused for this many milliseconds without asking Redis. */
const rememberedMs = 60_000

/**
 * Runs calls that Redis may refuse for their size, and others that take long to send. Redis refuses by ending the connection, so these
 * calls use one of their own, one call after another: only the sender of a message that is too large gets an error.
 */
export class LargeCalls {
  readonly connection: SideConnection
  readonly #deadlineMs: number
  readonly #link: MainLink
  #last: Promise<unknown> = Promise.resolve()
  /** The smallest size that Redis refused lately, and when. */
  #refused = { bytes: Infinity, at: -Infinity }

  constructor (source: RedisSource, deadlineMs: number, link: MainLink) {
    // Bytes that are sent count as progress, too: sending may take longer than the answer.
    this.connection = new SideConnection(source, link, 'moved')
    this.#deadlineMs = deadlineMs
    this.#link = link
  }

  /** Whether a call with this many bytes of arguments belongs here. A `publish` must be larger, as others may overtake it here. */
  static isLarge (bytes: number, kind: CallKind): boolean {
    return bytes >= (kind === 'publish' ? largeBytes : longBytes)
  }

  /** As `Link.run`. @throws {WebsocketGroupsError} WSG_MESSAGE_TOO_LARGE, and what `Link.run` throws */
  async run<Answer> (bytes: number, command: Command<Answer>): Promise<Answer> {
    const calledAt = performance.now()
    const turn = this.#last.then(async () => {
      if (performance.now() - calledAt > maxMs) throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'too many large messages wait')
      return await this.#run(bytes, command)
    })
    this.#last = turn.catch(() => undefined)
    return await turn
  }

  async #run<Answer> (bytes: number, command: Command<Answer>): Promise<Answer> {
    if (bytes >= this.#refused.bytes && performance.now() - this.#refused.at < rememberedMs) throw tooLarge(bytes)
    try {
      await this.#ready()
      return await this.#settle(bytes, command)
    } catch (error) {
      if (!await this.#isRefused(error, bytes)) throw error
      this.#refused = { bytes, at: performance.now() }
      // Redis ends this connection in a moment, if it has not yet.
      this.connection.reset()
      throw tooLarge(bytes, error)
    }
  }

  /** The connection ended during the call. A ping of the same size, which changes nothing, shows whether the size was the reason. */
  async #isRefused (error: unknown, bytes: number): Promise<boolean> {
    if (error instanceof Error && /Protocol error|query buffer/i.test(error.message)) return true
    if (!hasCode(error, 'WSG_TIMEOUT') || this.connection.ready) return false
    try {
      await this.#ready()
      await this.#settle(bytes, async redis => await redis.ping(Buffer.alloc(bytes, 0x20)))
      return false
    } catch (failure) {
      if (failure instanceof Error && /Protocol error/i.test(failure.message)) return true
      // The connection broke again, and Redis still accepts connections.
      return hasCode(failure, 'WSG_TIMEOUT') && !this.connection.ready && await this.#ready().then(() => true, () => false)
    }
  }

  async #settle<Answer> (bytes: number, command: Command<Answer>): Promise<Answer> {
    return await this.connection.run(command, { deadlineMs: Math.min(this.#deadlineMs + bytes / slowestRate, maxMs), maxMs, kind: 'bulk' })
  }

  /** Resolves when the connection can be used. @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE */
  async #ready (): Promise<void> {
    // Calls that waited here when the link broke fail as new calls do: at once, and not one deadline after another.
    this.#link.assertUp()
    const ready = await this.connection.whenReady(Math.min(2 * this.#deadlineMs, maxMs))
    if (this.connection.closed) throw new WebsocketGroupsError('WSG_CLOSED')
    if (!ready) throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'no connection for a large message in time')
  }
}

function tooLarge (bytes: number, cause?: unknown): WebsocketGroupsError {
  const limits = 'see client-query-buffer-limit and proto-max-bulk-len of Redis'
  return new WebsocketGroupsError('WSG_MESSAGE_TOO_LARGE', `${bytes} bytes; ${limits}`, { cause })
}
