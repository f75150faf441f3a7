import { logEvent } from '../../../logging.ts'
import type { LocalInstance } from '../../backplane.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { isWrongType } from '../link/reply-errors.ts'
import { luaInteger, Script } from '../link/script.ts'
import { luaUncount, safetyTtlMs } from './scripts.ts'

/** The most groups that one look compares; the next look goes on with the others. */
const groupsPerBeat = 10_000
/** How many groups are compared at once: what others ask of Redis, and what this process has to do, comes between. */
const groupsPerStep = 256
/** Every how many rounds members of unknown instances are looked for. */
const roundsPerGhostHunt = 2
/** Groups that differ are compared again after this many milliseconds. */
const secondLookMs = 100

/**
 * Sets the mark of the index, or removes it when this instance has no groups, and gives each instance a lease where leases were lost, so
 * that those that do not come back are found dead.
 * KEYS 1 index  2 instances  3 generations  4 leases
 * ARGV 1 instance id  2 generation  3 safety TTL (ms)  4 lease (ms)  5 whether this instance has groups (1 or 0)
 */
const renewMarks = new Script(`${luaInteger}
local call, ttl, lease, marked = redis.call, integer(3, 1), integer(4, 1), integer(5, 0) == 1
if toNumber(call('HGET', KEYS[3], ARGV[1]) or '0') ~= integer(2, 1) then return end
if not marked then call('SREM', KEYS[1], '')
elseif call('SADD', KEYS[1], '') == 1 then call('PEXPIRE', KEYS[1], ttl) end
if call('HLEN', KEYS[2]) > call('ZCARD', KEYS[4]) then
  local time, ids = call('TIME'), call('HKEYS', KEYS[2])
  for i = 1, #ids do call('ZADD', KEYS[4], 'NX', time[1] * 1000 + math.floor(time[2] / 1000) + lease, ids[i]) end
end
`)

/**
 * Looks for members of instances that have neither a record nor a lease. In a script, as a group of all instances has as many counts.
 * KEYS 1 instances  2 leases, then the counts of each group.  ARGV 1 id of the instance that looks
 * Returns number (from 1) and instance of each group with such members.
 */
const hunt = new Script(`
local call, known, ghosts = redis.call, {['#'] = true, [ARGV[1]] = true}, {}
for k = 3, #KEYS do
  local ids = call('HKEYS', KEYS[k])
  for i = 1, #ids do
    local id = ids[i]
    if known[id] == nil then known[id] = call('HGET', KEYS[1], id) or call('ZSCORE', KEYS[2], id) end
    if not known[id] then
      ghosts[#ghosts + 1] = k - 2
      ghosts[#ghosts + 1] = id
    end
  end
end
return ghosts
`)

/**
 * Removes the members of an instance from one group, once nobody knows the instance.
 * KEYS 1 members there  2 counts  3 instances  4 leases.  ARGV 1 that instance's id
 * Returns how many members were removed.
 */
export const removeGhost = new Script(`
if redis.call('HGET', KEYS[3], ARGV[1]) or redis.call('ZSCORE', KEYS[4], ARGV[1]) then return 0 end
local stored = redis.call('HMGET', KEYS[2], ARGV[1], '#')
local members = tonumber(stored[1]) or 0
redis.call('UNLINK', KEYS[1])
if stored[1] then
  local total = (tonumber(stored[2]) or 0) - members
    ${luaUncount('KEYS[2]', 'ARGV[1]')}
end
return members
`)

/** Finds memberships that Redis lost by itself: keys that were evicted or deleted, or that another program overwrote. */
export class Audit {
  readonly #link: Link
  readonly #keys: Keys
  readonly #local: LocalInstance
  readonly #leaseMs: number
  readonly #beatsPerLook: number
  #beats: number
  /** The groups that are still to be compared in this round. */
  #left: string[] = []
  #rounds = 0
  /** Unknown instances that the last hunt found, each with a group. They are removed in this one, unless they registered meanwhile. */
  #suspects = new Set<string>()
  /** Those that this hunt found. */
  #newSuspects = new Set<string>()
  #closed = false

  constructor (link: Link, keys: Keys, local: LocalInstance, leaseMs: number, beatsPerLook: number) {
    this.#link = link
    this.#keys = keys
    this.#local = local
    this.#leaseMs = leaseMs
    this.#beatsPerLook = beatsPerLook
    // At random, so that the partitions do not all look at the same beat.
    this.#beats = Math.floor(Math.random() * beatsPerLook)
  }

  /**
   * Called when a beat was sent: the first reads leave with it. Looks at the next groups and resolves with those that differ, except those
   * that are about to be written, as `changing` tells. Never rejects: a later look finds them again.
   */
  async next (generation: number, changing: (group: string) => boolean): Promise<string[]> {
    if (this.#beats++ % this.#beatsPerLook !== 0) return []
    if (this.#left.length === 0) {
      this.#left = [...this.#local.groups()]
      this.#rounds++
      if (this.#hunting) {
        this.#suspects = this.#newSuspects
        this.#newSuspects = new Set()
      }
    }
    const groups = this.#left.splice(0, groupsPerBeat)
    try {
      const first = await this.#compare(groups, generation, changing, this.#hunting)
      if (first.length === 0 || this.#closed) return []
      // A connection is in its group in the hub a moment before its membership is handed over to be written.
      await new Promise<void>(resolve => { setTimeout(resolve, secondLookMs) })
      if (this.#closed) return []
      return await this.#compare(first, generation, changing, false)
    } catch (error) {
      this.#local.log.debug({ err: error }, 'memberships could not be compared with what is stored')
      return []
    }
  }

  /** A look that is under way ends with the answer that it waits for. */
  close (): void {
    this.#closed = true
  }

  get #hunting (): boolean {
    return this.#rounds % roundsPerGhostHunt === 1
  }

  /** Resolves with the groups that differ, step after step. */
  async #compare (
    groups: readonly string[], generation: number, changing: (group: string) => boolean, hunting: boolean
  ): Promise<string[]> {
    const differing: string[] = []
    let at = 0
    do {
      const some = groups.slice(at, at += groupsPerStep)
      try {
        const [found] = await Promise.all([this.#differing(some, generation, changing), hunting ? this.#hunt(some) : undefined])
        differing.push(...found)
      } catch (error) {
        if (!isWrongType(error)) throw error
        // Another program wrote one of their keys: whoever writes them anew finds which.
        differing.push(...some)
      }
    } while (at < groups.length && !this.#closed)
    return differing
  }

  /**
   * Compares with plain commands, which all leave in one write: handing so many keys to a script takes Redis longer than reading them. What
   * changes between two of them is found again by the second look.
   */
  async #differing (groups: readonly string[], generation: number, changing: (group: string) => boolean): Promise<string[]> {
    const { instanceId } = this.#local
    const { instances, generations, leases } = this.#keys
    const index = this.#keys.index(instanceId)
    const steady = groups.filter(group => !changing(group))
    if (steady.length === 0 && groups.length > 0) return []
    const held = steady.map(group => [...this.#local.memberIds(group)].length)
    const total = [...this.#local.groups()].length
    const [newest, listed, marked, known, leased, members, counts] = await this.#link.run(async redis => await Promise.all([
      redis.hget(generations, instanceId), redis.scard(index), redis.sismember(index, ''), redis.hlen(instances), redis.zcard(leases),
      Promise.all(steady.map(async group => await redis.hlen(this.#keys.members(group, instanceId)))),
      Promise.all(steady.map(async group => await redis.hget(this.#keys.counts(group), instanceId)))
    ]))
    if (this.#closed || Number(newest) !== generation) return []
    const marks = total === 0 ? 0 : 1
    if (marked !== marks || known > leased) {
      const keys = [index, instances, generations, leases]
      await this.#link.script(renewMarks, keys, [instanceId, generation, safetyTtlMs, this.#leaseMs, marks])
    }
    // Where the index has as many groups as this instance, it has each of them.
    const unlisted = listed === total + marked ? new Set() : await this.#unlisted(index, steady)
    return steady.filter((group, at) => unlisted.has(group) || members[at] !== held[at] || Number(counts[at] ?? 0) !== held[at])
  }

  /** The groups, among these, that the index lacks. */
  async #unlisted (index: string, groups: readonly string[]): Promise<ReadonlySet<string>> {
    const listed = await this.#link.run(async redis => await Promise.all(groups.map(async group => await redis.sismember(index, group))))
    return new Set(groups.filter((_, at) => listed[at] === 0))
  }

  /** Notes members of unknown instances, and removes those that the last hunt noted. */
  async #hunt (groups: readonly string[]): Promise<void> {
    if (groups.length === 0) return
    const { instances, leases } = this.#keys
    const counts = groups.map(group => this.#keys.counts(group))
    const ghosts = await this.#link.script(hunt, [instances, leases, ...counts], [this.#local.instanceId]) as Array<number | string>
    let removed = 0
    for (let at = 0; at + 1 < ghosts.length; at += 2) {
      const [group, ghost] = [groups[Number(ghosts[at]) - 1] ?? '', String(ghosts[at + 1])]
      const name = `${ghost}:${group}`
      if (!this.#suspects.has(name)) {
        this.#newSuspects.add(name)
        continue
      }
      if (this.#closed) return
      const keys = [this.#keys.members(group, ghost), this.#keys.counts(group), instances, leases]
      removed += Number(await this.#link.script(removeGhost, keys, [ghost]))
    }
    if (removed === 0) return
    logEvent(this.#local.log, 'stale_members_removed', { members: removed })
    this.#local.membersLost?.()
  }
}
