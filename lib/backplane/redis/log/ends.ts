import { logStart } from '../../position.ts'
import type { LogPosition } from '../../backplane.ts'
import { chunks } from '../batching.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { unpackNonce } from './page.ts'
import { shortMetaMs } from './append-lua.ts'
import { readEnds } from './scripts.ts'
import { unpackSettings, type SettingsDifferences } from './settings.ts'

const groupsPerCall = 200
/** No more calls than this are under way together: a deadline limits the wait for Redis, not for other calls of this process. */
const callsAtOnce = 4

interface Waiter {
  readonly group: string
  resolve (top: LogPosition): void
  reject (error: unknown): void
}

/** Batches reads of log ends: all requests of one turn of the event loop share one script call. */
export class LogEnds {
  readonly #link: Link
  readonly #keys: Keys
  readonly #differences: SettingsDifferences
  #waiters: Waiter[] = []
  #calls = 0

  /** `differences` collects logs whose settings differ between processes. */
  constructor (link: Link, keys: Keys, differences: SettingsDifferences) {
    this.#link = link
    this.#keys = keys
    this.#differences = differences
  }

  /** @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT */
  read (group: string): Promise<LogPosition> {
    return new Promise((resolve, reject) => {
      if (this.#waiters.push({ group, resolve, reject }) === 1) queueMicrotask(() => this.#flush())
    })
  }

  /** Where the log of each group ends. @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT */
  async readAll (groups: readonly string[]): Promise<LogPosition[]> {
    return await Promise.all(groups.map(async group => await this.read(group)))
  }

  /**
   * As `readAll`, and keeps the metas of these logs for another half an hour. The meta of a short log expires soon after its messages; to
   * an instance that still follows the group, the next message would then look like a loss.
   */
  async keepAll (groups: readonly string[]): Promise<LogPosition[]> {
    const ends = await Promise.all([...chunks(groups, groupsPerCall)].map(async some => await this.#ends(some, shortMetaMs)))
    return ends.flat()
  }

  #flush (): void {
    // While a call is under way, requests gather: a call costs Redis more than one more group in it, so a storm of joins takes few calls.
    while (this.#waiters.length >= (this.#calls === 0 ? 1 : groupsPerCall) && this.#calls < callsAtOnce) {
      this.#calls++
      void this.#call(this.#waiters.splice(0, groupsPerCall)).then(() => {
        this.#calls--
        this.#flush()
      })
    }
  }

  /** Never rejects. */
  async #call (waiters: readonly Waiter[]): Promise<void> {
    try {
      const ends = await this.#ends(waiters.map(({ group }) => group), 0)
      for (const [index, { resolve }] of waiters.entries()) resolve(ends[index] ?? logStart)
    } catch (error) {
      // Queued requests fail as well: they would wait just as long for a server that does not answer.
      for (const { reject } of [...waiters, ...this.#waiters.splice(0)]) reject(error)
    }
  }

  async #ends (groups: readonly string[], keepMs: number): Promise<LogPosition[]> {
    const metas = groups.map(group => this.#keys.logMeta(group))
    const reply = await this.#link.bytesScript(readEnds, metas, [keepMs]) as Array<Buffer | null>
    let at = 0
    return groups.map(group => {
      const epoch = reply[at++]
      if (epoch === null || epoch === undefined) return logStart
      const [offset, nonce, differ] = reply.slice(at, at += 3)
      const difference = unpackSettings(differ)
      if (difference !== undefined) this.#differences.add(group, difference)
      return { epoch: epoch.toString('latin1'), offset: Number(offset), nonce: unpackNonce(nonce) }
    })
  }
}
