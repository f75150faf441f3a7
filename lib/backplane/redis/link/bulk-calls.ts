import { isOutage } from '../../../errors.ts'
import type { BulkReads } from './bulk.ts'
import { SideConnection, type Command, type MainLink } from './side-connection.ts'
import type { RedisSource } from './source.ts'

/** A bulk read is given up when no bytes came for this many deadlines, or after this many milliseconds in all. */
const silentDeadlines = 2
const maxMs = 30_000
/** After a connection could not be opened (Redis may have too many), no other is tried for this many milliseconds. */
const refusedMs = 10_000

/**
 * Sends bulk reads on a connection of their own while many bytes are read, so that no other call waits behind their answers. Small reads
 * use the connection of the link, and so do all reads while no second connection can be opened.
 */
export class BulkCalls {
  readonly connection: SideConnection
  readonly #deadlineMs: number
  #refusedAt = -Infinity

  constructor (source: RedisSource, deadlineMs: number, link: MainLink, { rate }: BulkReads) {
    this.connection = new SideConnection(source, link, 'received', undefined, bytes => rate.received(bytes))
    this.#deadlineMs = deadlineMs
  }

  /** `much`: many bytes are being read, by this command or others. `byLink` runs a command on the link; `run` settles as `byLink` does. */
  async run<Answer> (
    command: Command<Answer>, much: boolean, byLink: (command: Command<Answer>, deadlineMs: number) => Promise<Answer>
  ): Promise<Answer> {
    const deadlineMs = silentDeadlines * this.#deadlineMs
    if (!await this.#usable(much)) return await byLink(command, deadlineMs)
    try {
      return await this.connection.run(command, { deadlineMs, maxMs, kind: 'bulk' })
    } catch (error) {
      if (!isOutage(error) || this.connection.ready) throw error
      // The connection broke. A read can be sent again: it changes nothing in Redis.
      return await byLink(command, deadlineMs)
    }
  }

  async #usable (much: boolean): Promise<boolean> {
    if (this.connection.ready) return true
    if (!much || performance.now() - this.#refusedAt < refusedMs) return false
    if (await this.connection.whenReady(this.#deadlineMs)) return true
    this.#refusedAt = performance.now()
    return false
  }
}
