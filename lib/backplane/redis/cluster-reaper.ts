import { withDeadline } from '../../deadline.ts'
import type { LocalInstance } from '../backplane.ts'
import type { Keys } from './keys.ts'
import type { Link } from './link/port.ts'
import { betweenBeatsMs } from './membership/beat-times.ts'
import { Reaper } from './membership/reaper.ts'
import { claimDead, unregister } from './membership/scripts.ts'
import { MemberStore } from './membership/store.ts'
import { sumStats } from './stats.ts'

/** How many searches go on at the same time, each for up to eight instances. One more search replaces the oldest. */
const maxSearches = 1_000
/**
 * How long to look for a dead instance (milliseconds). If a partition still knows the instance after that, the instance lives: it was only
 * cut off from other partitions.
 */
const searchMs = 180_000
/** How long `close` may take to tidy up (milliseconds). */
const closeMs = 1_000

interface Search {
  readonly instanceIds: readonly string[]
  readonly endsAt: number
  /** Partitions in which the dead instances may still be known. */
  readonly partitions: Set<number>
}

/**
 * Removes memberships of dead instances from partitions in which this instance has no lease. The beats of a lease notice who died, but a
 * group of one instance alone may lie in a partition in which no other has a lease.
 */
export class ClusterReaper {
  readonly #links: readonly Link[]
  readonly #keys: readonly Keys[]
  readonly #local: LocalInstance
  readonly #roundMs: number
  readonly #hasLease: (partition: number) => boolean
  readonly #reapers = new Map<number, Reaper>()
  readonly #searches = new Set<Search>()
  #timer: NodeJS.Timeout | undefined
  #closed = false

  /**
   * `links`, `keys`: one for each partition. `hasLease`: whether this instance holds a lease in the partition, and so claims by its beats.
   */
  constructor (
    links: readonly Link[], keys: readonly Keys[], local: LocalInstance, leaseMs: number, hasLease: (partition: number) => boolean
  ) {
    this.#links = links
    this.#keys = keys
    this.#local = local
    this.#roundMs = betweenBeatsMs(leaseMs)
    this.#hasLease = hasLease
  }

  stats (): Record<string, number> {
    return sumStats(Array.from(this.#reapers.values(), reaper => reaper.stats()))
  }

  /** Removes the memberships of these dead instances, in each partition as soon as their lease there is over. */
  died (instanceIds: readonly string[]): void {
    const searched = new Set([...this.#searches].flatMap(search => search.instanceIds))
    const more = instanceIds.filter(id => id !== this.#local.instanceId && !searched.has(id))
    if (more.length === 0 || this.#closed) return
    const [oldest] = this.#searches
    if (oldest !== undefined && this.#searches.size >= maxSearches) this.#searches.delete(oldest)
    this.#searches.add({ instanceIds: more, endsAt: performance.now() + searchMs, partitions: new Set(this.#keys.keys()) })
    this.#schedule(0)
  }

  /** Removes reaped instances from partitions in which no living instance is known: nobody else would. */
  async close (): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    const partitions = new Set([...this.#searches].flatMap(search => [...search.partitions]))
    const tidying = [...this.#reapers].map(async ([partition, reaper]) => {
      await reaper.close()
      const [link, keys] = [this.#links[partition], this.#keys[partition]]
      if (link?.up !== true || keys === undefined || !partitions.has(partition)) return
      await link.script(unregister, [keys.leases, keys.instances], [this.#local.instanceId, ''])
    })
    await withDeadline(Promise.allSettled(tidying), closeMs, () => [])
  }

  #schedule (delayMs: number): void {
    if (this.#closed || this.#searches.size === 0) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      void this.#round().finally(() => { this.#schedule(this.#roundMs) })
    }, delayMs).unref()
  }

  async #round (): Promise<void> {
    for (const search of [...this.#searches]) {
      await Promise.all(Array.from(search.partitions, async partition => await this.#look(search, partition)))
      if (search.partitions.size === 0) this.#searches.delete(search)
    }
  }

  /** A partition that cannot be asked now is asked in the next round. Never rejects. */
  async #look (search: Search, partition: number): Promise<void> {
    const [link, keys] = [this.#links[partition], this.#keys[partition]]
    if (keys === undefined || this.#hasLease(partition)) search.partitions.delete(partition)
    if (link?.up !== true || keys === undefined || !search.partitions.has(partition) || this.#closed) return
    try {
      const [known = 0, ...claims] = await link.script(
        claimDead, [keys.leases, keys.instances], [Math.ceil(this.#roundMs), ...search.instanceIds]
      ) as [number, ...string[]]
      if (known === 0 || performance.now() > search.endsAt) search.partitions.delete(partition)
      if (claims.length > 0) await this.#reaperOf(partition, link, keys).add(claims)
    } catch (error) {
      this.#local.log.debug({ err: error }, 'a partition could not be asked for dead instances')
    }
  }

  #reaperOf (partition: number, link: Link, keys: Keys): Reaper {
    const reaper = this.#reapers.get(partition) ?? new Reaper(link, keys, this.#local, new MemberStore(link, keys, this.#local))
    this.#reapers.set(partition, reaper)
    return reaper
  }
}
