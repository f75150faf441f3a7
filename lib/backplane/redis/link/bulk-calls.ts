import { hasCode } from '../../../errors.ts'
import { SideConnection, type Command, type MainLink } from './side-connection.ts'
import type { RedisSource } from './source.ts'

/** A bulk read is given up when no bytes came for this many deadlines, or after this many milliseconds in all. */
const silentDeadlines = 2
const maxMs = 30_000
/** After no connection could be opened (there may be too many), none is opened again before this is over. */
const refusedMs = 10_000

/**
 * Sends bulk reads by a connection of their own while much is read, so that no other call waits behind their answers; by that of the link
 * when little is read, or when no other connection can be opened.
 */
export class BulkCalls {
  readonly #connection: SideConnection
  readonly #deadlineMs: number
  #refusedAt = -Infinity

  constructor (source: RedisSource, deadlineMs: number, link: MainLink) {
    this.#connection = new SideConnection(source, link, 'received')
    this.#deadlineMs = deadlineMs
  }

  /** Whether there is a connection for them. */
  get connected (): boolean {
    return this.#connection.ready
  }

  /** `much`: more than this is read. `byLink` runs a command on the link. Settles as that does. */
  async run<Answer> (
    command: Command<Answer>, much: boolean, byLink: (command: Command<Answer>, deadlineMs: number) => Promise<Answer>
  ): Promise<Answer> {
    const deadlineMs = silentDeadlines * this.#deadlineMs
    if (!await this.#usable(much)) return await byLink(command, deadlineMs)
    try {
      return await this.#connection.run(command, { deadlineMs, maxMs, bulk: true })
    } catch (error) {
      if (!hasCode(error, 'WSG_TIMEOUT', 'WSG_BACKPLANE_UNAVAILABLE') || this.#connection.ready) throw error
      // The connection broke. To read once more changes nothing.
      return await byLink(command, deadlineMs)
    }
  }

  /** The connection of the link ended: it may lead to another server next. */
  end (): void {
    this.#connection.end()
  }

  close (): void {
    this.#connection.close()
  }

  async #usable (much: boolean): Promise<boolean> {
    if (this.#connection.ready) return true
    if (!much || performance.now() - this.#refusedAt < refusedMs) return false
    if (await this.#connection.whenReady(this.#deadlineMs)) return true
    this.#refusedAt = performance.now()
    return false
  }
}
