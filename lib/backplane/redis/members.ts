import { WebsocketGroupsError } from '../../errors.ts'
import type { LocalInstance } from '../backplane.ts'
import type { Keys } from './keys.ts'
import type { Link } from './link.ts'
import { pack } from './read.ts'
import { reap, safetyTtlMs, syncMembers } from './scripts.ts'

const groupsPerFlush = 100
const changesPerCall = 500
/** More groups than this are not remembered one by one while Redis is out: all are compared when it is back. */
const maxRemembered = 10_000
const groupsPerReap = 200
const retryMs = 250

/** Connections of a group whose stored membership may be out of date; `all`: every one of them. */
type Changes = Set<string> | 'all'

interface Batch {
  readonly changes: Map<string, Changes>
  readonly done: Promise<void>
  resolve (): void
  reject (error: Error): void
}

/**
 * Stores this instance's memberships in Redis as absolute state: what is written is what the instance holds at that moment, so an outage
 * piles nothing up, a repeated write changes nothing, and lost data is written anew. One flush is in flight at a time; what changes meanwhile goes together in
 * the next one.
 */
export class Members {
  readonly #link: Link
  readonly #keys: Keys
  readonly #local: LocalInstance
  readonly #changed: () => void
  #generation = 1
  #batch = newBatch()
  #flushing: Promise<void> | undefined
  #retryTimer: NodeJS.Timeout | undefined
  #registered = false
  #repairing = false
  #overflowed = false
  #closed = false
  readonly #fenced: () => void

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

  /** Whether something that should be stored by now is not, because of a failure. */
  get repairing (): boolean {
    return this.#repairing
  }

  /** Resolves when the membership is stored as it is by then. */
  async sync (group: string, connectionId: string): Promise<void> {
    if (this.#closed) return
    const { changes, done } = this.#batch
    if (!this.#link.up || !this.#registered) {
      this.#repair(group)
      throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', this.#link.problem ?? 'this instance has no lease yet')
    }
    const known = changes.get(group)
    if (known === undefined) changes.set(group, new Set([connectionId]))
    else if (known !== 'all') known.add(connectionId)
    this.#flushSoon()
    await done
  }

  /** The lease is renewed: writing may go on. `lost`: nothing of what was stored can be relied on. */
  async resume (lost: boolean): Promise<void> {
    this.#registered = true
    if (lost || this.#overflowed) await this.#markEverything()
    else await this.#markDifferent()
    this.#repairing = this.#batch.changes.size > 0
    this.#flushSoon()
    await this.#flushing
  }

  /** No lease, no writing: others may have removed this instance's members. */
  suspend (): void {
    this.#registered = false
  }

  /** This instance was declared dead: it comes back as a newer generation, which fences off whoever still cleans up after the old one. */
  nextGeneration (): number {
    return ++this.#generation
  }

  /** Rewrites all memberships, which also renews the safety TTL of their keys. */
  async refresh (): Promise<void> {
    if (!this.#registered) return
    await this.#markEverything()
    this.#flushSoon()
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

  #repair (group: string): void {
    const { changes } = this.#batch
    this.#repairing = true
    if (changes.size < maxRemembered) changes.set(group, 'all')
    else this.#overflowed = true
  }

  async #markEverything (): Promise<void> {
    this.#overflowed = false
    for (const group of new Set([...this.#local.groups(), ...await this.#stored()])) this.#batch.changes.set(group, 'all')
  }

  /** Finds groups whose stored number differs from ours: an outage may have cost Redis its latest writes. */
  async #markDifferent (): Promise<void> {
    const groups = [...new Set([...this.#local.groups(), ...await this.#stored()])]
    for (let start = 0; start < groups.length; start += groupsPerFlush) {
      const some = groups.slice(start, start + groupsPerFlush)
      const stored = await this.#link.run(async redis => await Promise.all(some.map(async group => await redis.hget(this.#keys.counts(group), this.#local.instanceId))))
      for (const [index, group] of some.entries()) {
        if (Number(stored[index] ?? 0) !== [...this.#local.memberIds(group)].length) this.#batch.changes.set(group, 'all')
      }
    }
  }

  async #stored (): Promise<string[]> {
    return await this.#link.run(async redis => await redis.smembers(this.#keys.index(this.#local.instanceId)))
  }

  #flushSoon (): void {
    if (this.#flushing !== undefined || this.#closed) return
    this.#flushing = this.#flush().then(stored => {
      this.#flushing = undefined
      this.#changed()
      if (this.#batch.changes.size === 0 || !this.#link.up || !this.#registered) return
      if (stored) return this.#flushSoon()
      clearTimeout(this.#retryTimer)
      this.#retryTimer = setTimeout(() => this.#flushSoon(), retryMs).unref()
    })
  }

  /** Resolves `false` when something could not be stored; never rejects. */
  async #flush (): Promise<boolean> {
    await Promise.resolve()                                     // the rest of this tick's changes come along
    const batch = this.#batch
    this.#batch = newBatch()
    const groups = [...batch.changes]
    try {
      for (let start = 0; start < groups.length; start += groupsPerFlush) {
        await Promise.all(groups.slice(start, start + groupsPerFlush).map(async ([group, changes]) => await this.#store(group, changes)))
      }
      this.#repairing &&= [...this.#batch.changes.values()].includes('all')
      batch.resolve()
      return true
    } catch (error) {
      for (const [group] of groups) this.#repair(group)        // how far it came is unknown
      batch.reject(error as Error)
      return false
    }
  }

  async #store (group: string, changes: Changes): Promise<void> {
    const ids = changes === 'all' ? await this.#allIds(group) : changes
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
    const stored = await this.#link.script(
      syncMembers, keys, [instanceId, this.#generation, group, safetyTtlMs, additions.length / 2, ...additions, ...removals]
    )
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
  done.catch(() => {})                                          // a batch that nobody waits for may fail: its groups stay marked
  return { changes: new Map(), done, resolve, reject }
}
