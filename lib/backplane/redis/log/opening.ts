import { isOutage } from '../../../errors.ts'
import type { LogPosition } from '../../backplane.ts'
import type { LogFollowers } from './followers.ts'

/**
 * Finds the end of logs whose groups are wanted but not subscribed, while the command link works. Members here must get what is logged from
 * now on: the repair after a later subscription begins at this end.
 */
export class LogOpening {
  readonly #followers: Pick<LogFollowers, 'open'>
  readonly #afterMs: number
  readonly #isWanted: (group: string) => boolean

  /** The end of a log is read beside a subscription that takes longer than `afterMs` milliseconds. `isWanted`: the group has a log, too. */
  constructor (followers: Pick<LogFollowers, 'open'>, afterMs: number, isWanted: (group: string) => boolean) {
    this.#followers = followers
    this.#afterMs = afterMs
    this.#isWanted = isWanted
  }

  /** Waits for the subscription to the group and, where that fails, for the end of its log. Rejects as `subscribing`, or for a fault. */
  async beside (group: string, subscribing: Promise<void>): Promise<void> {
    let opening: Promise<void> | undefined
    const timer = setTimeout(() => {
      opening = this.unsubscribed(group)
      // If the subscription succeeds, it opens the log and reports the error then.
      opening.catch(() => undefined)
    }, this.#afterMs)
    try {
      await subscribing
    } catch (error) {
      await (opening ?? this.unsubscribed(group))
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  /** Reads a page of the log. The reader may be a member here: what members get later has to begin where the page ends. */
  async read<Page extends { readonly end: LogPosition }> (group: string, page: () => Promise<Page>): Promise<Page> {
    await this.unsubscribed(group)
    const found = await page()
    // Pages come by a connection of their own, also while the end of the log cannot be read.
    if (this.#isWanted(group)) await this.#followers.open(group, found.end)
    return found
  }

  /** Rejects only for faults: after an outage the log is opened when its group is subscribed. */
  async unsubscribed (group: string): Promise<void> {
    if (!this.#isWanted(group)) return
    try {
      await this.#followers.open(group)
    } catch (error) {
      if (!isOutage(error)) throw error
    }
  }
}
