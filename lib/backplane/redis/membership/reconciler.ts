import { deferred, withProgress, type Deferred } from '../../../deadline.ts'
import { hasCode, WebsocketGroupsError } from '../../../errors.ts'
import type { LocalInstance } from '../../backplane.ts'
import { first, Throttle } from '../batching.ts'
import type { Link } from '../link/port.ts'
import type { Audit } from './audit.ts'
import type { Lease } from './lease.ts'
import type { MemberStore } from './store.ts'

/** One step of a repair is small, as it delays changes that callers wait for; those go in larger steps, in several calls side by side. */
const groupsPerRepair = 100
const groupsPerStep = 400
const changesPerStep = 2_000
/** Beyond this many groups the changes during an outage are not remembered one by one: all groups are compared when Redis is back. */
const maxRemembered = 10_000
const minRetryMs = 250
const maxRetryMs = 2_000

/** How a group is compared with what is stored: by the number of its members, or member by member. */
type Check = 'count' | 'ids'

/** Changes of one group that callers wait for. */
interface Change {
  /** Ids of the connections whose membership changed. */
  readonly ids: Set<string>
  readonly stored: Deferred<void>
}

/**
 * Keeps what Redis knows of this instance's members equal to what the instance holds. Each write carries the state of that moment, so an
 * outage piles nothing up, a repeated write changes nothing, and lost data is written again. One step is under way at a time; what changes
 * meanwhile goes together in the next one. A group whose members could not be written, or may have been lost, is dirty, and is repaired
 * between the changes that callers wait for.
 */
export class MemberReconciler {
  readonly #link: Link
  readonly #store: MemberStore
  readonly #lease: Lease
  readonly #local: LocalInstance
  readonly #audit: Audit
  readonly #changed: () => void
  #changes = new Map<string, Change>()
  readonly #dirty = new Map<string, Check>()
  /** Set when all groups need a check; which groups there are is looked up when it begins. */
  #allDirty: Check | undefined
  readonly #pace = new Throttle()
  #flushing: Promise<void> | undefined
  #looking: Promise<void> | undefined
  #retryTimer: NodeJS.Timeout | undefined
  #retryMs = minRetryMs
  #repairing = false
  #resumed = false
  #failure: Error | undefined
  #closed = false

  constructor (link: Link, store: MemberStore, lease: Lease, local: LocalInstance, audit: Audit, changed: () => void) {
    this.#link = link
    this.#store = store
    this.#lease = lease
    this.#local = local
    this.#audit = audit
    this.#changed = changed
    lease.on({ resumed: lost => this.#resume(lost), suspended: () => this.#suspend() })
    lease.on({ beating: () => { this.#looking ??= this.#look().finally(() => { this.#looking = undefined }) } })
  }

  /** Set while memberships that should be stored by now are not. */
  get problem (): string | undefined {
    return this.#repairing ? `not all members are stored yet${this.#failure === undefined ? '' : ` (${this.#failure.message})`}` : undefined
  }

  /** Resolves when the current state of the membership is stored. */
  async sync (group: string, connectionId: string): Promise<void> {
    if (this.#closed) return
    if (!this.#link.up || !this.#lease.active) {
      this.#markDirty(group)
      throw this.#suspended()
    }
    const change = this.#changes.get(group) ?? { ids: new Set(), stored: deferred() }
    this.#changes.set(group, change)
    change.ids.add(connectionId)
    this.#flushSoon()
    const { deadlineMs } = this.#link
    await withProgress(change.stored.promise, deadlineMs, () => this.#store.answeredAt, () => {
      throw new WebsocketGroupsError('WSG_TIMEOUT', `the membership was not stored within ${deadlineMs} ms`)
    })
  }

  /** Rewrites all memberships, which also renews the safety TTL of their keys. */
  refresh (): void {
    if (this.#lease.active) this.#markAllDirty('ids')
  }

  /** Stops writing; waits for a write in flight. */
  async close (): Promise<void> {
    this.#closed = true
    clearTimeout(this.#retryTimer)
    this.#pace.close()
    this.#audit.close()
    for (const { stored } of this.#changes.values()) stored.resolve()
    await this.#looking
    await this.#flushing
  }

  /** Writes anew what Redis lost of the memberships. Runs beside each beat; never rejects. */
  async #look (): Promise<void> {
    if (this.#closed || !this.#lease.active) return
    const lost = await this.#audit.next(this.#lease.generation, group => this.#changes.has(group), group => this.#dirty.has(group))
    for (const group of lost) this.#markDirty(group)
    this.#flushSoon()
  }

  /** This instance is registered. `lost`: what was stored before cannot be relied on. The first time, nothing was stored before. */
  #resume (lost: boolean): void {
    this.#setRepairing(this.#resumed || this.#isDirty())
    if (lost && this.#resumed) this.#audit.lost()
    this.#resumed = true
    this.#markAllDirty(lost ? 'ids' : 'count')
  }

  #suspend (): void {
    const changes = this.#changes
    this.#changes = new Map()
    for (const [group, change] of changes) this.#failed(group, change, this.#suspended())
  }

  #suspended (): WebsocketGroupsError {
    return this.#link.up ? new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'this instance holds no lease') : this.#link.unavailable()
  }

  #markDirty (group: string): void {
    this.#setRepairing(true)
    if (this.#dirty.size < maxRemembered || this.#dirty.has(group)) this.#dirty.set(group, 'ids')
    else this.#allDirty = 'ids'
  }

  #markAllDirty (check: Check): void {
    if (this.#allDirty !== 'ids') this.#allDirty = check
    this.#flushSoon()
  }

  #setRepairing (repairing: boolean): void {
    if (this.#repairing === repairing) return
    this.#repairing = repairing
    this.#changed()
  }

  #flushSoon (): void {
    if (this.#mayWork()) this.#flushing ??= this.#flush()
  }

  /** Works until nothing is left to do, or nothing can be done now. Never rejects. */
  async #flush (): Promise<void> {
    while (this.#mayWork()) {
      await new Promise<void>(resolve => this.#pace.soon(resolve, this.#changes.size >= groupsPerRepair || this.#mayRepair()))
      if (!this.#mayWork()) break
      try {
        if (this.#changes.size > 0) {
          await this.#storeSome()
          this.#endPause()
        }
        if (this.#mayRepair()) await this.#repairSome()
        this.#retryMs = minRetryMs
        this.#failure = undefined
      } catch (error) {
        this.#failure = error as Error
        this.#setRepairing(true)
        this.#pause()
      }
    }
    // In the same turn as the last `#mayWork`: a change a moment later starts a new flush.
    this.#flushing = undefined
    if (!this.#isDirty()) this.#setRepairing(false)
  }

  #mayWork (): boolean {
    return this.#lease.active && !this.#closed && (this.#changes.size > 0 || this.#mayRepair())
  }

  #isDirty (): boolean {
    return this.#allDirty !== undefined || this.#dirty.size > 0
  }

  #mayRepair (): boolean {
    return this.#retryTimer === undefined && this.#isDirty()
  }

  /** Stops repairs for a while, each time for longer: Redis refused. */
  #pause (): void {
    this.#retryTimer ??= setTimeout(() => {
      this.#retryTimer = undefined
      this.#flushSoon()
    }, this.#retryMs).unref()
    this.#retryMs = Math.min(2 * this.#retryMs, maxRetryMs)
  }

  #endPause (): void {
    clearTimeout(this.#retryTimer)
    this.#retryTimer = undefined
  }

  async #storeSome (): Promise<void> {
    const some: Array<[group: string, change: Change]> = []
    let left = changesPerStep
    for (const [group, change] of first(this.#changes, groupsPerStep)) {
      this.#changes.delete(group)
      some.push([group, change])
      if ((left -= change.ids.size) <= 0) break
    }
    try {
      const lost = await this.#assertStored(this.#store.write(this.#lease.generation, some.map(([group, { ids }]) => [group, ids])))
      for (const group of lost) this.#markDirty(group)
    } catch (error) {
      for (const [group, change] of some) {
        // When Redis does not answer, the waiting callers give up by their own deadlines.
        if (hasCode(error, 'WSG_TIMEOUT') && this.#lease.active) this.#putBack(group, change)
        else this.#failed(group, change, error as Error)
      }
      throw error
    }
    for (const [, { stored }] of some) stored.resolve()
  }

  /** @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE when Redis knows a newer generation, and what the write throws */
  async #assertStored (write: Promise<readonly string[] | undefined>): Promise<readonly string[]> {
    const lost = await write
    if (lost !== undefined) return lost
    this.#lease.fenced()
    throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'this instance was declared dead and is registering again')
  }

  /** Puts the change back, to be written with later ones. */
  #putBack (group: string, { ids, stored }: Change): void {
    const newer = this.#changes.get(group)
    if (newer === undefined) {
      this.#changes.set(group, { ids, stored })
      return
    }
    for (const id of ids) newer.ids.add(id)
    newer.stored.promise.then(() => stored.resolve(), (error: Error) => stored.reject(error))
  }

  /** Fails a change of which nobody knows how much was written, and has the group checked. */
  #failed (group: string, change: Change, error: Error): void {
    this.#markDirty(group)
    change.stored.reject(error)
  }

  /** Repairs some groups: a step at a time, so that callers need not wait for the repair of thousands. */
  async #repairSome (): Promise<void> {
    const all = this.#allDirty
    if (all !== undefined) {
      this.#allDirty = undefined
      try {
        for (const group of [...await this.#store.groups(), ...this.#local.groups()]) {
          if (this.#dirty.get(group) !== 'ids') this.#dirty.set(group, all)
        }
      } catch (error) {
        if (this.#allDirty !== 'ids') this.#allDirty = all
        throw error
      }
    }
    const groups = first(this.#dirty, groupsPerRepair)
    for (const [group] of groups) this.#dirty.delete(group)
    try {
      const different = await this.#store.groupsWithOtherCount(groups.filter(([, check]) => check === 'count').map(([group]) => group))
      const repaired = groups.filter(([group, check]) => check === 'ids' || different.has(group))
      await this.#assertStored(this.#store.rewrite(this.#lease.generation, repaired.map(([group]) => group)))
    } catch (error) {
      for (const [group] of groups) this.#dirty.set(group, 'ids')
      throw error
    }
  }
}
