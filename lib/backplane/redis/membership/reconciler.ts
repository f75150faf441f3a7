import { WebsocketGroupsError } from '../../../errors.ts'
import type { LocalInstance } from '../../backplane.ts'
import { Throttle } from '../batching.ts'
import type { Link } from '../link/link.ts'
import type { MemberStore } from './store.ts'

const groupsPerStep = 100
/** More groups than this are not remembered one by one while Redis is out: all are compared when it is back. */
const maxRemembered = 10_000
const minRetryMs = 250
const maxRetryMs = 2_000

/** How a group is compared with what is stored: by the number of its members, or one by one. */
type Check = 'number' | 'members'

/** Changes of one group that callers wait for. */
interface Change {
  /** Ids of the connections whose membership changed. */
  readonly ids: Set<string>
  readonly done: Promise<void>
  resolve (): void
  reject (error: Error): void
}

/**
 * Keeps what Redis knows of this instance's members as it is here. What is written is what the instance holds at that moment, so an outage
 * piles nothing up, a repeated write changes nothing, and lost data is written anew. One step is under way at a time; what changes meanwhile
 * goes together in the next one. What could not be written, or may have been lost, is in doubt, and repaired between the changes that callers wait for.
 */
export class MemberReconciler {
  readonly #link: Link
  readonly #store: MemberStore
  readonly #local: LocalInstance
  readonly #changed: () => void
  #changes = new Map<string, Change>()
  readonly #dirty = new Map<string, Check>()
  /** All groups are in this doubt; which they are is looked up first. */
  #allDirty: Check | undefined
  readonly #pace = new Throttle()
  #flushing: Promise<void> | undefined
  #retryTimer: NodeJS.Timeout | undefined
  #retryMs = minRetryMs
  #active = false
  #repairing = false
  #failure: Error | undefined
  #closed = false

  constructor (link: Link, store: MemberStore, local: LocalInstance, changed: () => void) {
    this.#link = link
    this.#store = store
    this.#local = local
    this.#changed = changed
  }

  /** Whether writing is allowed: from `resume` to `suspend`. */
  get active (): boolean {
    return this.#active
  }

  /** What should be stored by now and is not. */
  get problem (): string | undefined {
    return this.#repairing ? `not all members are stored yet${this.#failure === undefined ? '' : ` (${this.#failure.message})`}` : undefined
  }

  /** Resolves when the membership is stored as it is by then. */
  async sync (group: string, connectionId: string): Promise<void> {
    if (this.#closed) return
    if (!this.#link.up || !this.#active) {
      this.#markDirty(group)
      throw this.#suspended()
    }
    const change = this.#changes.get(group) ?? newChange()
    this.#changes.set(group, change)
    change.ids.add(connectionId)
    this.#flushSoon()
    await within(change.done, this.#link.deadlineMs)
  }

  /** The lease is renewed: writing may go on. `lost`: nothing of what was stored can be relied on. */
  resume (lost: boolean): void {
    this.#active = true
    this.#setRepairing(true)
    this.#markAllDirty(lost ? 'members' : 'number')
  }

  /** No lease, no writing: others may have removed this instance's members. */
  suspend (): void {
    this.#active = false
    const changes = this.#changes
    this.#changes = new Map()
    for (const [group, change] of changes) this.#failed(group, change, this.#suspended())
  }

  /** Rewrites all memberships, which also renews the safety TTL of their keys. */
  refresh (): void {
    if (this.#active) this.#markAllDirty('members')
  }

  /** Stops writing; waits for a write in flight. */
  async close (): Promise<void> {
    this.#closed = true
    clearTimeout(this.#retryTimer)
    this.#pace.close()
    for (const { resolve } of this.#changes.values()) resolve()
    await this.#flushing
  }

  #suspended (): WebsocketGroupsError {
    return new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', this.#link.problem ?? 'this instance has no lease now')
  }

  #markDirty (group: string): void {
    this.#setRepairing(true)
    if (this.#dirty.size < maxRemembered || this.#dirty.has(group)) this.#dirty.set(group, 'members')
    else this.#allDirty = 'members'
  }

  #markAllDirty (doubt: Check): void {
    if (this.#allDirty !== 'members') this.#allDirty = doubt
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
      await new Promise<void>(resolve => this.#pace.soon(resolve, this.#changes.size >= groupsPerStep || this.#mayRepair()))
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
    this.#flushing = undefined                                  // in the same turn as the look at what is left: a change a moment later starts anew
    if (!this.#isDirty()) this.#setRepairing(false)
  }

  #mayWork (): boolean {
    return this.#active && !this.#closed && (this.#changes.size > 0 || this.#mayRepair())
  }

  #isDirty (): boolean {
    return this.#allDirty !== undefined || this.#dirty.size > 0
  }

  #mayRepair (): boolean {
    return this.#retryTimer === undefined && this.#isDirty()
  }

  /** A server that refuses is asked again later and later. */
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
    const some = [...firstOf(this.#changes, groupsPerStep)]
    for (const [group] of some) this.#changes.delete(group)
    try {
      await this.#store.write(some.map(([group, { ids }]) => [group, ids]))
    } catch (error) {
      for (const [group, change] of some) this.#failed(group, change, error as Error)
      throw error
    }
    for (const [, { resolve }] of some) resolve()
  }

  /** How far it came is unknown. */
  #failed (group: string, change: Change, error: Error): void {
    this.#markDirty(group)
    change.reject(error)
  }

  /** One step at a time, so that callers need not wait for the repair of thousands of groups. */
  async #repairSome (): Promise<void> {
    const all = this.#allDirty
    if (all !== undefined) {
      this.#allDirty = undefined
      try {
        for (const group of [...await this.#store.groups(), ...this.#local.groups()]) {
          if (this.#dirty.get(group) !== 'members') this.#dirty.set(group, all)
        }
      } catch (error) {
        if (this.#allDirty !== 'members') this.#allDirty = all
        throw error
      }
    }
    const groups = [...firstOf(this.#dirty, groupsPerStep)]
    for (const [group] of groups) this.#dirty.delete(group)
    try {
      const different = await this.#store.groupsWithOtherCount(groups.filter(([, doubt]) => doubt === 'number').map(([group]) => group))
      const repaired = groups.filter(([group, doubt]) => doubt === 'members' || different.has(group))
      await this.#store.rewrite(repaired.map(([group]) => group))
    } catch (error) {
      for (const [group] of groups) this.#dirty.set(group, 'members')
      throw error
    }
  }
}

function newChange (): Change {
  let resolve = (): void => {}
  let reject: Change['reject'] = () => {}
  const done = new Promise<void>((_resolve, _reject) => { resolve = _resolve; reject = _reject })
  done.catch(() => {})                                          // it may fail when nobody waits any more: the group is in doubt then
  return { ids: new Set(), done, resolve, reject }
}

async function within (done: Promise<void>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new WebsocketGroupsError('WSG_TIMEOUT', `not stored within ${ms} ms`)), ms)
  })
  try {
    await Promise.race([done, late])
  } finally {
    clearTimeout(timer)
  }
}

function * firstOf<Value> (values: Iterable<Value>, count: number): Iterable<Value> {
  if (count === 0) return
  for (const value of values) {
    yield value
    if (--count === 0) return
  }
}
