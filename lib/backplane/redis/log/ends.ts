import { logStart } from '../../position.ts'
import type { LogPosition } from '../../backplane.ts'
import { chunks } from '../batching.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/link.ts'
import { noNonce } from './page.ts'
import { readEnds } from './scripts.ts'

const groupsPerCall = 200

interface Waiter {
  readonly group: string
  resolve (top: LogPosition): void
  reject (error: unknown): void
}

/** Batches reads of log ends: all requests of one turn of the event loop share one script call. */
export class LogEnds {
  readonly #link: Link
  readonly #keys: Keys
  #waiters: Waiter[] = []

  constructor (link: Link, keys: Keys) {
    this.#link = link
    this.#keys = keys
  }

  /** @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT */
  async read (group: string): Promise<LogPosition> {
    return await new Promise((resolve, reject) => {
      if (this.#waiters.push({ group, resolve, reject }) === 1) queueMicrotask(() => this.#flush())
    })
  }

  /** Where the log of each group ends. @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT */
  async readAll (groups: readonly string[]): Promise<LogPosition[]> {
    return await Promise.all(groups.map(async group => await this.read(group)))
  }

  #flush (): void {
    const waiters = this.#waiters
    this.#waiters = []
    for (const some of chunks(waiters, groupsPerCall)) void this.#call(some)
  }

  /** Never rejects. */
  async #call (waiters: readonly Waiter[]): Promise<void> {
    try {
      const fields = await this.#link.bytesScript(readEnds, waiters.map(({ group }) => this.#keys.logMeta(group)), []) as Array<Buffer | null>
      for (const [index, { resolve }] of waiters.entries()) resolve(endOf(fields[3 * index], fields[3 * index + 1], fields[3 * index + 2]))
    } catch (error) {
      for (const { reject } of waiters) reject(error)
    }
  }
}

function endOf (epoch: Buffer | null | undefined, offset: Buffer | null | undefined, nonce: Buffer | null | undefined): LogPosition {
  if (epoch === null || epoch === undefined) return logStart
  return { epoch: epoch.toString('latin1'), offset: Number(offset), nonce: (nonce ?? noNonce).readUInt32BE() }
}
