import { isOutage } from '../../../errors.ts'
import type { BulkReads } from './bulk.ts'
import { SideConnection, type Command, type MainLink } from './side-connection.ts'
import type { RedisSource } from './source.ts'

/** A bulk read is given up when no bytes came for this many deadlines, or after this many milliseconds in all. */
const silentDeadlines = 2
const maxMs = 30_000
/** After a connection could not be opened (Redis may have too many), no other is tried for this many milliseconds. */
const refusedMs = 10_000
/** After the link failed under a read, all reads keep off it for this many milliseconds. */
const cautiousMs = 60_000

/**
 * Sends bulk reads on a connection of their own while many bytes are read, so that no other call waits behind their answers, or is lost
 * where Redis ends a connection because an answer is larger than its `client-output-buffer-limit`. Small reads use the connection of the
 * link, and so do all reads while no second connection can be opened.
 */
export class BulkCalls {
  readonly connection: SideConnection
  readonly #deadlineMs: number
  #refusedAt = -Infinity
  #linkFailedAt = -Infinity

  constructor (source: RedisSource, deadlineMs: number, link: MainLink, { rate }: BulkReads) {
    this.connection = new SideConnection(source, link, 'received', undefined, bytes => rate.received(bytes))
    this.#deadlineMs = deadlineMs
  }

  /** `much`: many bytes are being read, by this command or others. `byLink` runs a command on the link; `run` settles as `byLink` does. */
  async run<Answer> (
    command: Command<Answer>, much: boolean, byLink: (command: Command<Answer>, deadlineMs: number) => Promise<Answer>
  ): Promise<Answer> {
    const deadlineMs = Math.min(silentDeadlines * this.#deadlineMs, maxMs)
    if (!await this.#usable(much)) return await this.#watched(byLink(command, deadlineMs))
    const read = async (): Promise<Answer> => await this.connection.run(command, { deadlineMs, maxMs, kind: 'bulk' })
    try {
      return await read()
    } catch (error) {
      if (!isOutage(error) || this.connection.ready) throw error
      // The connection broke, maybe under this answer: then the link would break, too. A read can be sent again, as it changes nothing.
      if (await this.#usable(true)) return await read()
      throw error
    }
  }

  async #watched<Answer> (byLink: Promise<Answer>): Promise<Answer> {
    try {
      return await byLink
    } catch (error) {
      if (isOutage(error)) this.#linkFailedAt = performance.now()
      throw error
    }
  }

  async #usable (much: boolean): Promise<boolean> {
    if (this.connection.ready) return true
    const now = performance.now()
    if ((!much && now - this.#linkFailedAt >= cautiousMs) || now - this.#refusedAt < refusedMs) return false
    if (await this.connection.whenReady(this.#deadlineMs)) return true
    this.#refusedAt = performance.now()
    return false
  }
}
