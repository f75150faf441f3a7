import { isOutage } from '../../../errors.ts'
import type { LogPosition } from '../../backplane.ts'
import type { LogFollowers } from './followers.ts'

/**
 * Reads where logs end whose groups are wanted but not subscribed yet. Members here must get what is logged from now on: the repair after a
 * later subscription begins at this end.
 */
export class LogOpening {
  readonly #followers: Pick<LogFollowers, 'open'>
  readonly #afterMs: number
  readonly #isWanted: (group: string) => boolean

  /**
   * The end of a log is read beside a subscription that takes longer than `afterMs` milliseconds. `isWanted` tells whether the group is
   * wanted and has a log.
   */
  constructor (followers: Pick<LogFollowers, 'open'>, afterMs: number, isWanted: (group: string) => boolean) {
    this.#followers = followers
    this.#afterMs = afterMs
    this.#isWanted = isWanted
  }

  /** Waits for the subscription to the group and, if that fails, for the end of its log. Rejects as `subscribing` does, or with a fault. */
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

  /** Reads a page of the log. The reader may be a member here: what members get later has to begin at the page's `end`. */
  async read<Page extends { readonly end: LogPosition }> (group: string, page: () => Promise<Page>): Promise<Page> {
    await this.unsubscribed(group)
    const found = await page()
    // If the end of the log could not be read: pages come by a connection of their own, and tell the end, too.
    if (this.#isWanted(group)) await this.#followers.open(group, found.end)
    return found
  }

  /** Opens the log of a group that is not subscribed. Rejects with faults only: after an outage, the subscription opens the log. */
  async unsubscribed (group: string): Promise<void> {
    if (!this.#isWanted(group)) return
    try {
      await this.#followers.open(group)
    } catch (error) {
      if (!isOutage(error)) throw error
    }
  }
}
