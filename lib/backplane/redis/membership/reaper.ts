import { logEvent } from '../../../logging.ts'
import type { LocalInstance } from '../../backplane.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { markReaped } from './scripts.ts'
import type { MemberStore } from './store.ts'

/** A dead instance is cleaned up after once more after this time (milliseconds): a write of its last moments may have arrived late. */
const secondLookMs = 60_000

/** What the script `markReaped` returns. */
const Marked = { first: 1, unknown: 3 } as const

/** Removes the memberships of dead instances that this one claimed, one instance after another, beside the beats. */
export class Reaper {
  readonly #link: Link
  readonly #keys: Keys
  readonly #local: LocalInstance
  readonly #store: MemberStore
  #reaping: Promise<void> = Promise.resolve()
  #closed = false
  #instances = 0
  #members = 0

  constructor (link: Link, keys: Keys, local: LocalInstance, store: MemberStore) {
    this.#link = link
    this.#keys = keys
    this.#local = local
    this.#store = store
  }

  stats (): Record<string, number> {
    return { instancesReaped: this.#instances, membersReaped: this.#members }
  }

  /**
   * Cleans up after dead instances. `claims`: id and generation of each, as the script `beat` returns them. Resolves when that is done for
   * all that were claimed so far; never rejects.
   */
  async add (claims: readonly string[]): Promise<void> {
    for (let at = 0; at + 1 < claims.length; at += 2) {
      const [instanceId = '', generation = ''] = claims.slice(at, at + 2)
      if (instanceId === this.#local.instanceId) continue       // the instance is alive again
      this.#reaping = this.#reaping.then(async () => await this.#reap(instanceId, Number(generation)))
    }
    await this.#reaping
  }

  /** Starts no further instance; resolves when the present one is done. */
  async close (): Promise<void> {
    this.#closed = true
    await this.#reaping
  }

  /** Never rejects. */
  async #reap (instanceId: string, generation: number): Promise<void> {
    if (this.#closed) return
    try {
      const listed = await this.#store.removeAll(instanceId, generation)
      if (listed === undefined) return
      const { leases, instances } = this.#keys
      const marked = Number(await this.#link.script(markReaped, [leases, instances], [instanceId, generation, secondLookMs]))
      const first = marked === Marked.first
      if (first) this.#instances++
      // The instance's list of groups was evicted or deleted. The second time there is none in any case.
      const incomplete = !listed.whole && (first || marked === Marked.unknown)
      const unlisted = incomplete ? await this.#store.removeUnlisted(instanceId, generation) : undefined
      const { groups, members } = unlisted === undefined
        ? listed
        : { groups: listed.groups + unlisted.groups, members: listed.members + unlisted.members }
      this.#members += members
      if (!first && members === 0) return
      this.#local.membersLost?.()
      logEvent(this.#local.log, 'instance_reaped', { instance: instanceId, groups, members })
    } catch (error) {
      // The claim runs out like a lease: someone, maybe this instance, claims again.
      logEvent(this.#local.log, 'reaping_failed', { err: error, instance: instanceId })
    }
  }
}
