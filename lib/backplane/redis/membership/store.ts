import { hasCode } from '../../../errors.ts'
import type { Member } from '../../../types.ts'
import type { LocalInstance } from '../../backplane.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { hashes, mending } from '../link/mending.ts'
import { encodeMember } from './records.ts'
import { reap, safetyTtlMs, syncMembers } from './scripts.ts'

const changesPerCall = 500
const groupsPerCall = 100
/**
 * A call ends after about this many bytes of records. Calls that are under way together (`callsAtOnce`) share a slow link, and each is sent
 * twice if Redis does not know the script yet: over 10 Mbit/s that takes some 210 ms.
 */
const bytesPerCall = 32_768
const groupsPerReap = 200
/** No more calls than this are under way together: a deadline limits the wait for Redis, not for other calls of this process. */
const callsAtOnce = 4

interface Removed {
  groups: number
  members: number
  /** Whether the list of the instance's groups was complete. */
  whole: boolean
}

interface GroupChange {
  readonly group: string
  /** The id and the record of each new member, in turn. */
  readonly additions: string[]
  readonly removals: string[]
}

/** Writes the memberships of this instance to Redis: as absolute state, under a generation that fences off late writes. */
export class MemberStore {
  readonly #link: Link
  readonly #keys: Keys
  readonly #local: LocalInstance
  #answeredAt = -Infinity
  /** The write that may still be on its way, although its deadline is over. */
  #unsettled: { readonly connection: number, readonly generation: number } | undefined

  constructor (link: Link, keys: Keys, local: LocalInstance) {
    this.#link = link
    this.#keys = keys
    this.#local = local
  }

  /**
   * Whether a write of this generation may still arrive from a connection that was given up. Such a write could undo what the present
   * connection writes, unless that comes from a newer generation.
   */
  hasLateWrite (generation: number): boolean {
    return this.#unsettled?.generation === generation && this.#unsettled.connection !== this.#link.connection
  }

  /** When Redis last answered a call about this instance's memberships (`performance.now()`): deadlines of later writes start from then. */
  get answeredAt (): number {
    return this.#answeredAt
  }

  /** The groups in which Redis has members of this instance. */
  async groups (): Promise<string[]> {
    const index = this.#keys.index(this.#local.instanceId)
    const names = await this.#mending(this.#local.instanceId, [], async () => {
      return await this.#link.bulk.read(async () => await this.#link.runBulk(async redis => await redis.smembers(index)), sizeOf, true)
    })
    return names.filter(name => name !== '')
  }

  /** The groups, among these, for which Redis stores another number of members than this instance has. */
  async groupsWithOtherCount (groups: readonly string[]): Promise<Set<string>> {
    if (groups.length === 0) return new Set()
    const { instanceId } = this.#local
    const stored = await this.#mending(instanceId, groups, async () => await this.#link.run(async redis => {
      return await Promise.all(groups.map(async group => await redis.hget(this.#keys.counts(group), instanceId)))
    }))
    return new Set(groups.filter((group, index) => Number(stored[index] ?? 0) !== [...this.#local.memberIds(group)].length))
  }

  /**
   * Writes the present state of these connections in their groups. Resolves with the groups of which Redis had lost members of this
   * instance, or with `undefined` when it knows a newer generation of the instance: then not everything was written.
   */
  async write (generation: number, changes: ReadonlyArray<readonly [group: string, ids: Iterable<string>]>): Promise<string[] | undefined> {
    const calls = this.#calls(changes)
    const lost: string[] = []
    let all = true
    const work = async (): Promise<void> => {
      for (const groups of calls) {
        const found = await this.#call(generation, groups)
        if (found === undefined) all = false
        else lost.push(...found)
      }
    }
    // Rejects as Promise.all does, but only when all calls are settled: one that is left behind could overtake the write that repairs it.
    for (const result of await Promise.allSettled(Array.from({ length: callsAtOnce }, work))) {
      if (result.status === 'rejected') throw result.reason
    }
    return all ? lost : undefined
  }

  /** As `write`, for all connections of these groups: those here, and those that Redis still has although they left. */
  async rewrite (generation: number, groups: readonly string[]): Promise<string[] | undefined> {
    const { instanceId } = this.#local
    const { bulk } = this.#link
    const stored = await this.#mending(instanceId, groups, async () => await Promise.all(groups.map(async group => {
      const key = this.#keys.members(group, instanceId)
      return await bulk.read(async () => await this.#link.runBulk(async redis => await redis.hkeys(key)), sizeOf)
    })))
    const ids = (group: string, index: number): Set<string> => new Set([...stored[index] ?? [], ...this.#local.memberIds(group)])
    return await this.write(generation, groups.map((group, index) => [group, ids(group, index)]))
  }

  /** Removes all memberships of an instance, this one or a dead one. Resolves with `undefined` when that instance is alive again. */
  async removeAll (instanceId: string, generation: number): Promise<Removed | undefined> {
    const removed = { groups: 0, members: 0, whole: false }
    const index = this.#keys.index(instanceId)
    let cursor = '0'
    for (;;) {
      const [next, names] = await this.#mending(instanceId, [], async () => {
        return await this.#link.run(async redis => await redis.sscan(index, cursor, 'COUNT', groupsPerReap))
      })
      if (instanceId === this.#local.instanceId) this.#answeredAt = performance.now()
      cursor = next
      const listed = names.filter(name => name !== '')
      const hashes = listed.flatMap(group => [this.#keys.counts(group), this.#keys.members(group, instanceId)])
      const [left = 0, members = 0, groups = 0, whole = 0] = await this.#mending(instanceId, listed, async () => await this.#link.script(
        reap, [index, this.#keys.generations, ...hashes], [instanceId, generation, ...listed]
      )) as number[]
      if (instanceId === this.#local.instanceId) this.#answeredAt = performance.now()
      removed.groups += groups
      removed.members += members
      removed.whole ||= whole === 1
      if (left < 0) return undefined
      if (left === 0) return removed
    }
  }

  /**
   * As `removeAll`, for an instance whose index was lost: walks through all keys of the database. Does not find members of which only the
   * count is left: the audit of an instance with members in the same group does.
   */
  async removeUnlisted (instanceId: string, generation: number): Promise<Removed | undefined> {
    const [start, end] = [`${this.#keys.base}m:`, `:${instanceId}`]
    const pattern = `${start.replace(/[*?[\]\\^]/g, '\\$&')}*${end}`
    let cursor = '0'
    do {
      const [next, found] = await this.#link.run(async redis => await redis.scan(cursor, 'MATCH', pattern, 'COUNT', 1_000))
      cursor = next
      const groups = found.map(key => key.slice(start.length, -end.length))
      if (groups.length > 0) {
        const index = this.#keys.index(instanceId)
        await this.#link.run(async redis => await Promise.all([redis.sadd(index, ...groups), redis.pexpire(index, safetyTtlMs)]))
      }
    } while (cursor !== '0')
    return await this.removeAll(instanceId, generation)
  }

  /** Divides changes into calls that do not hold up Redis for long. */
  * #calls (changes: ReadonlyArray<readonly [group: string, ids: Iterable<string>]>): Generator<GroupChange[]> {
    let call = new Call()
    for (const [group, ids] of changes) {
      if (call.groups.length === groupsPerCall) {
        yield call.groups
        call = new Call()
      }
      let change = call.begin(group)
      for (const id of ids) {
        if (call.full) {
          yield call.groups
          call = new Call()
          change = call.begin(group)
        }
        call.add(change, id, this.#local.member(group, id))
      }
    }
    if (call.groups.length > 0) yield call.groups
  }

  async #call (generation: number, changed: readonly GroupChange[]): Promise<string[] | undefined> {
    const { instanceId } = this.#local
    const groups = changed.length === 1 ? changed : additionsFirst(changed)
    const hashes = groups.flatMap(({ group }) => [this.#keys.members(group, instanceId), this.#keys.counts(group)])
    const keys = [this.#keys.index(instanceId), this.#keys.generations, ...hashes]
    const changes = groups.flatMap(({ group, additions, removals }) => {
      return [group, additions.length / 2, removals.length, ...additions, ...removals]
    })
    const { connection } = this.#link
    let stored: unknown
    try {
      stored = await this.#mending(instanceId, groups.map(({ group }) => group), async () => {
        return await this.#link.script(syncMembers, keys, [instanceId, generation, safetyTtlMs, ...changes])
      })
    } catch (error) {
      if (hasCode(error, 'WSG_TIMEOUT')) this.#unsettled = { connection, generation }
      throw error
    }
    this.#answeredAt = performance.now()
    // Redis did everything that was sent earlier on the same connection before this call.
    if (this.#unsettled?.connection === connection) this.#unsettled = undefined
    if (stored === -1) return undefined
    return Array.isArray(stored) ? stored.flatMap(number => groups[Number(number) - 1]?.group ?? []) : []
  }

  /** Runs `call`, which uses the keys of that instance in these groups: see `mending`. */
  async #mending<Answer> (instanceId: string, groups: readonly string[], call: () => Promise<Answer>): Promise<Answer> {
    return await mending(this.#link, () => [
      [this.#keys.index(instanceId), 'SCARD'], [this.#keys.generations, 'HLEN'],
      ...hashes(groups.flatMap(group => [this.#keys.members(group, instanceId), this.#keys.counts(group)]))
    ], call)
  }
}

function additionsFirst (groups: readonly GroupChange[]): GroupChange[] {
  return [...groups.filter(({ additions }) => additions.length > 0), ...groups.filter(({ additions }) => additions.length === 0)]
}

/** The changes that go to Redis in one call. */
class Call {
  readonly groups: GroupChange[] = []
  #changes = 0
  #bytes = 0

  get full (): boolean {
    return this.#changes === changesPerCall || this.#bytes >= bytesPerCall
  }

  begin (group: string): GroupChange {
    const change: GroupChange = { group, additions: [], removals: [] }
    this.groups.push(change)
    return change
  }

  /** Adds a connection to the change of its group: as a member, or as one that left. */
  add (change: GroupChange, id: string, member: Member | undefined): void {
    this.#changes++
    if (member === undefined) {
      change.removals.push(id)
    } else {
      const record = encodeMember(member)
      this.#bytes += Buffer.byteLength(record)
      change.additions.push(id, record)
    }
  }
}

function sizeOf (names: readonly string[]): { readonly bytes: number, readonly full: boolean } {
  return { bytes: names.reduce((sum, { length }) => sum + length, 0), full: false }
}
