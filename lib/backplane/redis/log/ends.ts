import { logStart } from '../../position.ts'
import type { LogPosition } from '../../backplane.ts'
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
   * Where these logs end; keeps their metas for another half an hour. The meta of a short log expires soon after its messages; to an
   * instance that still follows the group, the next message would then look like a loss. Groups that had no log are only asked for whether
   * any of them has one now, which costs Redis a small part of reading each.
   */
  async keepAll (logs: ReadonlyArray<{ readonly group: string, readonly hasLog: boolean }>): Promise<LogPosition[]> {
    const [had, others] = [logs.filter(({ hasLog }) => hasLog), logs.filter(({ hasLog }) => !hasLog)]
    const asked = others.length > 0 && await this.#anyExists(others) ? logs : had
    const ends = asked.length === 0 ? [] : await this.#ends(asked.map(({ group }) => group), shortMetaMs)
    const byGroup = new Map(asked.map(({ group }, at) => [group, ends[at]]))
    return logs.map(({ group }) => byGroup.get(group) ?? logStart)
  }

  async #anyExists (logs: ReadonlyArray<{ readonly group: string }>): Promise<boolean> {
    const names = logs.flatMap(({ group }) => [this.#keys.logMeta(group), this.#keys.log(group)])
    return await this.#link.run(async redis => await redis.exists(names)) > 0
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
    const names = [...groups.map(group => this.#keys.logMeta(group)), ...groups.map(group => this.#keys.log(group))]
    const reply = await this.#link.bytesScript(readEnds, names, [keepMs]) as Array<Buffer | null>
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
