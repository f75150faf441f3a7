import { hasCode, WebsocketGroupsError } from '../../errors.ts'
import type { LocalInstance } from '../backplane.ts'
import type { Keys } from './keys.ts'
import type { Link } from './link.ts'
import { pack } from './read.ts'
import { reap, safetyTtlMs, syncMembers } from './scripts.ts'

const groupsPerStep = 100
const changesPerCall = 500
/** More groups than this are not remembered one by one while Redis is out: all are compared when it is back. */
const maxRemembered = 10_000
const groupsPerReap = 200
const minRetryMs = 250
const maxRetryMs = 2_000

/** How a group is compared with what is stored: by the number of its members, or one by one. */
type Doubt = 'number' | 'members'

/** Changes that callers wait for. */
interface Batch {
  /** Ids of connections whose membership changed, by group. */
  readonly changes: Map<string, Set<string>>
  readonly done: Promise<void>
  resolve (): void
  reject (error: Error): void
}

/**
 * Stores this instance's memberships in Redis as absolute state: what is written is what the instance holds at that moment, so an outage
 * piles nothing up, a repeated write changes nothing, and lost data is written anew. One step is under way at a time; what changes meanwhile
 * goes together in the next one. What could not be written, or may have been lost, is in doubt, and repaired between the changes that callers wait for.
 */
export class Members {
  readonly #link: Link
  readonly #keys: Keys
  readonly #local: LocalInstance
  readonly #changed: () => void
  readonly #fenced: () => void
  #generation = 1
  #batch = newBatch()
  readonly #doubtful = new Map<string, Doubt>()
  /** All groups are in this doubt; which they are is looked up first. */
  #allDoubtful: Doubt | undefined
  #flushing: Promise<void> | undefined
  #retryTimer: NodeJS.Timeout | undefined
  #retryMs = minRetryMs
  #active = false
  #repairing = false
  #failure: Error | undefined
  /** The connection on which a write may still be on its way, although its deadline is over. */
  #unsettledOn: number | undefined
  #closed = false

  /** `fenced` is called when a newer generation of this instance is known: the lease finds out what happened. */
  constructor (link: Link, keys: Keys, local: LocalInstance, changed: () => void, fenced: () => void) {
    this.#link = link
    this.#keys = keys
    this.#local = local
    this.#changed = changed
    this.#fenced = fenced
  }

  get generation (): number {
    return this.#generation
  }

  /** Whether writing is allowed: from `resume` to `suspend`. */
  get active (): boolean {
    return this.#active
  }

  /** What should be stored by now and is not. */
  get problem (): string | undefined {
    return this.#repairing ? `not all members are stored yet${this.#failure === undefined ? '' : ` (${this.#failure.message})`}` : undefined
  }

  /**
   * Whether a write may arrive late, out of a connection that was given up: this connection's writes could be undone by it, unless they come
   * from a newer generation.
   */
  get needsFence (): boolean {
    return this.#unsettledOn !== undefined && this.#unsettledOn !== this.#link.connection
  }

  /** Resolves when the membership is stored as it is by then. */
  async sync (group: string, connectionId: string): Promise<void> {
    if (this.#closed) return
    if (!this.#link.up || !this.#active) {
      this.#doubt(group)
      throw this.#suspended()
    }
    const { changes, done } = this.#batch
    const known = changes.get(group)
    if (known === undefined) changes.set(group, new Set([connectionId]))
    else known.add(connectionId)
    this.#flushSoon()
    await within(done, this.#link.deadlineMs)
  }

  /** The lease is renewed: writing may go on. `lost`: nothing of what was stored can be relied on. */
  resume (lost: boolean): void {
    this.#active = true
    this.#setRepairing(true)
    this.#doubtAll(lost ? 'members' : 'number')
  }

  /** No lease, no writing: others may have removed this instance's members. */
  suspend (): void {
    this.#active = false
    const batch = this.#batch
    this.#batch = newBatch()
    this.#failed(batch, this.#suspended())
  }

  /** Everything written from now on fences off late writes of the generations before, and whoever cleans up after them. */
  nextGeneration (): number {
    this.#unsettledOn = undefined
    return ++this.#generation
  }

  /** Rewrites all memberships, which also renews the safety TTL of their keys. */
  refresh (): void {
    if (this.#active) this.#doubtAll('members')
  }

  /** Removes all memberships of an instance, this one or a dead one. Resolves `undefined` when that instance is alive again. */
  async removeAll (instanceId: string, generation: number): Promise<{ groups: number, members: number } | undefined> {
    const removed = { groups: 0, members: 0 }
    for (;;) {
      const [left = 0, members = 0, groups = 0] = await this.#link.script(
        reap, [this.#keys.index(instanceId), this.#keys.generations], [instanceId, generation, groupsPerReap, this.#keys.base]
      ) as number[]
      removed.groups += groups
      removed.members += members
      if (left < 0) return undefined
      if (left === 0) return removed
    }
  }

  /** Stops writing; waits for a write in flight. */
  async close (): Promise<void> {
    this.#closed = true
    clearTimeout(this.#retryTimer)
    this.#batch.resolve()
    await this.#flushing
  }

  #suspended (): WebsocketGroupsError {
    return new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', this.#link.problem ?? 'this instance has no lease now')
  }

  #doubt (group: string): void {
    this.#setRepairing(true)
    if (this.#doubtful.size < maxRemembered || this.#doubtful.has(group)) this.#doubtful.set(group, 'members')
    else this.#allDoubtful = 'members'
  }

  #doubtAll (doubt: Doubt): void {
    if (this.#allDoubtful !== 'members') this.#allDoubtful = doubt
    this.#flushSoon()
  }

  #setRepairing (repairing: boolean): void {
    if (this.#repairing === repairing) return
    this.#repairing = repairing
    this.#changed()
  }

  #flushSoon (): void {
    if (this.#closed) return
    this.#flushing ??= this.#flush().finally(() => { this.#flushing = undefined })
  }

  /** Works until nothing is left to do, or nothing can be done now. Never rejects. */
  async #flush (): Promise<void> {
    await Promise.resolve()                                     // the rest of this tick's changes come along
    while (this.#active && !this.#closed && (this.#batch.changes.size > 0 || this.#mayRepair())) {
      try {
        if (this.#batch.changes.size > 0) {
          await this.#storeBatch()
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
    if (!this.#isDoubtful()) this.#setRepairing(false)
  }

  #isDoubtful (): boolean {
    return this.#allDoubtful !== undefined || this.#doubtful.size > 0
  }

  #mayRepair (): boolean {
    return this.#retryTimer === undefined && this.#isDoubtful()
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

  async #storeBatch (): Promise<void> {
    const batch = this.#batch
    this.#batch = newBatch()
    const groups = [...batch.changes]
    try {
      for (let start = 0; start < groups.length; start += groupsPerStep) {
        await allDone(groups.slice(start, start + groupsPerStep).map(async ([group, ids]) => await this.#store(group, ids)))
      }
      batch.resolve()
    } catch (error) {
      this.#failed(batch, error as Error)
      throw error
    }
  }

  /** How far it came is unknown. */
  #failed (batch: Batch, error: Error): void {
    for (const group of batch.changes.keys()) this.#doubt(group)
    batch.reject(error)
  }

  /** One step at a time, so that callers need not wait for the repair of thousands of groups. */
  async #repairSome (): Promise<void> {
    const all = this.#allDoubtful
    if (all !== undefined) {
      this.#allDoubtful = undefined
      try {
        for (const group of [...await this.#stored(), ...this.#local.groups()]) {
          if (this.#doubtful.get(group) !== 'members') this.#doubtful.set(group, all)
        }
      } catch (error) {
        if (this.#allDoubtful !== 'members') this.#allDoubtful = all
        throw error
      }
    }
    const groups = [...firstOf(this.#doubtful, groupsPerStep)]
    for (const [group] of groups) this.#doubtful.delete(group)
    try {
      const different = await this.#different(groups.filter(([, doubt]) => doubt === 'number').map(([group]) => group))
      const repaired = groups.filter(([group, doubt]) => doubt === 'members' || different.has(group))
      await allDone(repaired.map(async ([group]) => await this.#store(group, await this.#allIds(group))))
    } catch (error) {
      for (const [group] of groups) this.#doubtful.set(group, 'members')
      throw error
    }
  }

  /** Those of the groups of which Redis has another number of members. */
  async #different (groups: string[]): Promise<Set<string>> {
    if (groups.length === 0) return new Set()
    const stored = await this.#link.run(async redis => await Promise.all(groups.map(async group => await redis.hget(this.#keys.counts(group), this.#local.instanceId))))
    return new Set(groups.filter((group, index) => Number(stored[index] ?? 0) !== [...this.#local.memberIds(group)].length))
  }

  async #stored (): Promise<string[]> {
    return await this.#link.run(async redis => await redis.smembers(this.#keys.index(this.#local.instanceId)))
  }

  async #store (group: string, ids: Iterable<string>): Promise<void> {
    const additions: string[] = []
    const removals: string[] = []
    for (const id of ids) {
      const member = this.#local.member(group, id)
      if (member === undefined) removals.push(id)
      else additions.push(id, pack(member))
    }
    do {
      const add = additions.splice(0, 2 * changesPerCall)
      const remove = removals.splice(0, changesPerCall)
      await this.#write(group, add, remove)
    } while (additions.length > 0 || removals.length > 0)
  }

  async #write (group: string, additions: string[], removals: string[]): Promise<void> {
    const { instanceId } = this.#local
    const keys = [this.#keys.members(group, instanceId), this.#keys.counts(group), this.#keys.index(instanceId), this.#keys.generations]
    const args = [instanceId, this.#generation, group, safetyTtlMs, additions.length / 2, ...additions, ...removals]
    const { connection } = this.#link
    let stored: unknown
    try {
      stored = await this.#link.script(syncMembers, keys, args)
    } catch (error) {
      if (hasCode(error, 'WSG_TIMEOUT')) this.#unsettledOn = connection
      throw error
    }
    // What was sent before it on the same connection was done before it.
    if (this.#unsettledOn === connection) this.#unsettledOn = undefined
    if (stored !== -1) return
    this.suspend()
    this.#fenced()
    throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'this instance was declared dead and registers anew')
  }

  /** Ours, and those that Redis holds although they are no longer ours. */
  async #allIds (group: string): Promise<Set<string>> {
    const stored = await this.#link.run(async redis => await redis.hkeys(this.#keys.members(group, this.#local.instanceId)))
    return new Set([...stored, ...this.#local.memberIds(group)])
  }
}

function newBatch (): Batch {
  let resolve = (): void => {}
  let reject: Batch['reject'] = () => {}
  const done = new Promise<void>((_resolve, _reject) => { resolve = _resolve; reject = _reject })
  done.catch(() => {})                                          // a batch that nobody waits for may fail: its groups are in doubt
  return { changes: new Map(), done, resolve, reject }
}

/** Rejects as Promise.all does, but not before all are settled: a write that is left behind could overtake the one that repairs it. */
async function allDone (work: Array<Promise<void>>): Promise<void> {
  for (const result of await Promise.allSettled(work)) {
    if (result.status === 'rejected') throw result.reason
  }
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
