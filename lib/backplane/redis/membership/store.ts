import { hasCode, WebsocketGroupsError } from '../../../errors.ts'
import type { LocalInstance } from '../../backplane.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/link.ts'
import { encodeMember } from './records.ts'
import { reap, safetyTtlMs, syncMembers } from './scripts.ts'

const changesPerCall = 500
const groupsPerReap = 200

interface GroupChange {
  readonly group: string
  /** Id and record of each. */
  readonly additions: string[]
  readonly removals: string[]
}

/** The memberships of this instance as Redis has them: written as absolute state, under a generation that fences off late writes. */
export class MemberStore {
  readonly #link: Link
  readonly #keys: Keys
  readonly #local: LocalInstance
  readonly #fenced: () => void
  #generation = 1
  /** The connection on which a write may still be on its way, although its deadline is over. */
  #unsettledOn: number | undefined

  /** `fenced` is called when a newer generation of this instance is known. */
  constructor (link: Link, keys: Keys, local: LocalInstance, fenced: () => void) {
    this.#link = link
    this.#keys = keys
    this.#local = local
    this.#fenced = fenced
  }

  get generation (): number {
    return this.#generation
  }

  /**
   * Whether a write may arrive late, out of a connection that was given up: this connection's writes could be undone by it, unless they come
   * from a newer generation.
   */
  get needsFence (): boolean {
    return this.#unsettledOn !== undefined && this.#unsettledOn !== this.#link.connection
  }

  /** Everything written from now on fences off late writes of the generations before, and whoever cleans up after them. */
  nextGeneration (): number {
    this.#unsettledOn = undefined
    return ++this.#generation
  }

  /** The groups in which Redis has members of this instance. */
  async groups (): Promise<string[]> {
    return await this.#link.run(async redis => await redis.smembers(this.#keys.index(this.#local.instanceId)))
  }

  /** Those of the groups of which Redis has another number of members. */
  async groupsWithOtherCount (groups: readonly string[]): Promise<Set<string>> {
    if (groups.length === 0) return new Set()
    const stored = await this.#link.run(async redis => await Promise.all(groups.map(async group => await redis.hget(this.#keys.counts(group), this.#local.instanceId))))
    return new Set(groups.filter((group, index) => Number(stored[index] ?? 0) !== [...this.#local.memberIds(group)].length))
  }

  /** Writes what the instance says now of these connections in their groups. */
  async write (changes: ReadonlyArray<readonly [group: string, ids: Iterable<string>]>): Promise<void> {
    await allDone([...this.#calls(changes)].map(async groups => await this.#call(groups)))
  }

  /** The same of all connections of these groups: ours, and those that Redis holds although they are no longer ours. */
  async rewrite (groups: readonly string[]): Promise<void> {
    const stored = await this.#link.run(async redis => await Promise.all(groups.map(async group => await redis.hkeys(this.#keys.members(group, this.#local.instanceId)))))
    await this.write(groups.map((group, index) => [group, new Set([...stored[index] ?? [], ...this.#local.memberIds(group)])]))
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

  /** Divides changes into calls that do not hold up Redis for long. */
  * #calls (changes: ReadonlyArray<readonly [group: string, ids: Iterable<string>]>): Iterable<GroupChange[]> {
    let call: GroupChange[] = []
    let left = changesPerCall
    for (const [group, ids] of changes) {
      let change = newGroupChange(group)
      call.push(change)
      for (const id of ids) {
        if (left-- === 0) {
          yield call
          call = [change = newGroupChange(group)]
          left = changesPerCall - 1
        }
        const member = this.#local.member(group, id)
        if (member === undefined) change.removals.push(id)
        else change.additions.push(id, encodeMember(member))
      }
    }
    if (call.length > 0) yield call
  }

  async #call (groups: readonly GroupChange[]): Promise<void> {
    const { instanceId } = this.#local
    const keys = [this.#keys.index(instanceId), this.#keys.generations, ...groups.flatMap(({ group }) => [this.#keys.members(group, instanceId), this.#keys.counts(group)])]
    const args = [instanceId, this.#generation, safetyTtlMs, ...groups.flatMap(({ group, additions, removals }) => [group, additions.length / 2, removals.length, ...additions, ...removals])]
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
    this.#fenced()
    throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE', 'this instance was declared dead and registers anew')
  }
}

function newGroupChange (group: string): GroupChange {
  return { group, additions: [], removals: [] }
}

/** Rejects as Promise.all does, but not before all are settled: a write that is left behind could overtake the one that repairs it. */
async function allDone (work: Array<Promise<void>>): Promise<void> {
  for (const result of await Promise.allSettled(work)) {
    if (result.status === 'rejected') throw result.reason
  }
}
