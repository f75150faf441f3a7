import { logEvent } from '../../../logging.ts'
import type { LocalInstance } from '../../backplane.ts'
import { chunks } from '../batching.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { isWrongType } from '../link/reply-errors.ts'
import { luaInteger, Script } from '../link/script.ts'
import { luaUncount, safetyTtlMs } from './scripts.ts'

/** The most groups that one look covers; the next look goes on with the others. */
const groupsPerBeat = 10_000
/** How many groups are looked at together: what others ask of Redis, and what this process has to do, comes between. */
const groupsPerStep = 256
/** Every how many looks the next groups have their turn, and how many these are: a part of all, but no fewer than this. */
const looksPerTurn = 4
const turnsPerRound = 16
const groupsPerTurn = 16
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
  local ids = redis.pcall('HKEYS', KEYS[k])
  -- Another program may have written a value of another type: that is found and removed elsewhere.
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

type Changing = (group: string) => boolean

/**
 * Finds memberships that Redis lost by itself: keys that were evicted or deleted, or that another program overwrote. Each look asks whether
 * all keys exist, which costs Redis a small part of reading them. A key that was lost and written anew by a change exists, and lacks what
 * nobody changed: whoever writes a key anew moves a mark, and all instances compare all their groups. What neither shows is found in turns.
 */
export class Audit {
  readonly #link: Link
  readonly #keys: Keys
  readonly #local: LocalInstance
  readonly #leaseMs: number
  readonly #beatsPerLook: number
  #beats: number
  /** The groups of this round that are still to be looked at. */
  #left: string[] = []
  /** The mark of the last look, and how many groups are still to be compared because it moved. */
  #mark: string | null | undefined
  #unsure = 0
  #looks = 0
  /** The groups that still have their turn in this round, and how many turns are for all groups. */
  #waiting: string[] = []
  #wholeTurns = 0
  /**
   * Members of unknown instances that the last hunt found: `<instance>:<group>` -> group. The next hunt removes them, unless their instance
   * registered meanwhile.
   */
  #suspects = new Map<string, string>()
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
  async next (generation: number, changing: Changing): Promise<string[]> {
    if (this.#beats++ % this.#beatsPerLook !== 0) return []
    if (this.#left.length === 0) this.#left = [...this.#local.groups()]
    const groups = this.#left.splice(0, groupsPerBeat)
    try {
      const first = await this.#look(groups, generation, changing)
      if (first.length === 0 || this.#closed) return []
      // A connection is in its group in the hub a moment before its membership is handed over to be written.
      await new Promise<void>(resolve => { setTimeout(resolve, secondLookMs) })
      const index = await this.#index(generation)
      return index === undefined ? [] : await this.#differing(first, changing, index.whole)
    } catch (error) {
      // Whatever was found out about the mark may not have been compared.
      this.#mark = undefined
      this.#local.log.debug({ err: error }, 'memberships could not be compared with what is stored')
      return []
    }
  }

  /** Redis lost what it knew of the instances, those that died among them: the next turns are for all groups. */
  lost (): void {
    this.#wholeTurns = 2
    this.#looks = 0
  }

  /** A look that is under way ends with the answer that it waits for. */
  close (): void {
    this.#closed = true
  }

  async #look (groups: readonly string[], generation: number, changing: Changing): Promise<string[]> {
    const turn = this.#looks++ % looksPerTurn === 0 ? this.#nextTurn() : []
    const [index, missing, differing] = await Promise.all([
      this.#index(generation),
      this.#unsure > 0 ? [] : this.#missing(groups, changing),
      this.#differing(turn, changing),
      this.#hunt(turn)
    ])
    if (index === undefined) return []
    if (index.mark !== this.#mark) {
      this.#mark = index.mark
      this.#unsure = groups.length + this.#left.length
    }
    const unsure = this.#unsure > 0 || !index.whole ? groups : missing
    this.#unsure = Math.max(0, this.#unsure - groups.length)
    return [...new Set([...differing, ...await this.#differing(unsure, changing, index.whole)])]
  }

  #nextTurn (): string[] {
    const groups = [...this.#local.groups()]
    if (this.#wholeTurns > 0) {
      this.#wholeTurns--
      return groups
    }
    if (this.#waiting.length === 0) this.#waiting = groups
    const size = Math.max(groupsPerTurn, Math.ceil(groups.length / turnsPerRound))
    return [...new Set([...this.#suspects.values(), ...this.#waiting.splice(0, size)])]
  }

  /**
   * Reads what belongs to no single group, and repairs its marks. Resolves with `undefined` when a newer generation writes, or nobody is to
   * know any more; else with the mark of keys that were written anew, and with whether the index has all groups.
   */
  async #index (generation: number): Promise<{ readonly mark: string | null, readonly whole: boolean } | undefined> {
    const { instanceId } = this.#local
    const { instances, generations, leases } = this.#keys
    const index = this.#keys.index(instanceId)
    const total = [...this.#local.groups()].length
    try {
      const [[newest, mark = null], listed, marked, known, leased] = await this.#link.run(async redis => await Promise.all([
        redis.hmget(generations, instanceId, ''), redis.scard(index), redis.sismember(index, ''), redis.hlen(instances), redis.zcard(leases)
      ]))
      if (this.#closed || Number(newest) !== generation) return undefined
      const marks = total === 0 ? 0 : 1
      if (marked !== marks || known > leased) {
        const keys = [index, instances, generations, leases]
        await this.#link.script(renewMarks, keys, [instanceId, generation, safetyTtlMs, this.#leaseMs, marks])
      }
      // Where the index has as many groups as this instance, it has each of them.
      return { mark, whole: listed === total + marked }
    } catch (error) {
      if (!isWrongType(error)) throw error
      return { mark: null, whole: false }
    }
  }

  /** Resolves with the groups, among these, of which a key may be missing: all of a step with one that is. */
  async #missing (groups: readonly string[], changing: Changing): Promise<string[]> {
    return await this.#inSteps(groups, changing, async steady => {
      const keys = steady.flatMap(group => [this.#keys.members(group, this.#local.instanceId), this.#keys.counts(group)])
      return await this.#link.run(async redis => await redis.exists(keys)) === keys.length ? [] : steady
    })
  }

  /**
   * Resolves with the groups, among these, of which other members are stored than this instance has. With plain commands, which all
   * leave in one write: handing so many keys to a script takes Redis longer than reading them. What changes between two of them is found
   * again by the second look.
   */
  async #differing (groups: readonly string[], changing: Changing, indexed = true): Promise<string[]> {
    const { instanceId } = this.#local
    return await this.#inSteps(groups, changing, async steady => {
      const held = steady.map(group => [...this.#local.memberIds(group)].length)
      try {
        const [members, counts, listed] = await this.#link.run(async redis => await Promise.all([
          Promise.all(steady.map(async group => await redis.hlen(this.#keys.members(group, instanceId)))),
          Promise.all(steady.map(async group => await redis.hget(this.#keys.counts(group), instanceId))),
          indexed ? [] : Promise.all(steady.map(async group => await redis.sismember(this.#keys.index(instanceId), group)))
        ]))
        return steady.filter((_, at) => members[at] !== held[at] || Number(counts[at] ?? 0) !== held[at] || listed[at] === 0)
      } catch (error) {
        if (!isWrongType(error)) throw error
        // Another program wrote one of their keys: whoever writes them anew finds which.
        return steady
      }
    })
  }

  /** Looks at a step of groups after another, except those that are about to be written, and resolves with all that `look` finds. */
  async #inSteps (groups: readonly string[], changing: Changing, look: (steady: string[]) => Promise<string[]>): Promise<string[]> {
    const found: string[] = []
    for (const some of chunks(groups, groupsPerStep)) {
      if (this.#closed) break
      const steady = some.filter(group => !changing(group))
      if (steady.length > 0) found.push(...await look(steady))
    }
    return found
  }

  /** Notes members of unknown instances, and removes those that the last hunt noted. */
  async #hunt (groups: readonly string[]): Promise<void> {
    if (groups.length === 0) return
    const { instances, leases } = this.#keys
    const found = new Map<string, string>()
    let removed = 0
    for (const some of chunks(groups, groupsPerStep)) {
      const counts = some.map(group => this.#keys.counts(group))
      const ghosts = await this.#link.script(hunt, [instances, leases, ...counts], [this.#local.instanceId]) as Array<number | string>
      for (let at = 0; at + 1 < ghosts.length; at += 2) {
        const [group, ghost] = [some[Number(ghosts[at]) - 1] ?? '', String(ghosts[at + 1])]
        const name = `${ghost}:${group}`
        if (!this.#suspects.has(name)) {
          found.set(name, group)
          continue
        }
        if (this.#closed) return
        const keys = [this.#keys.members(group, ghost), this.#keys.counts(group), instances, leases]
        removed += Number(await this.#link.script(removeGhost, keys, [ghost]))
      }
    }
    this.#suspects = found
    if (removed === 0) return
    logEvent(this.#local.log, 'stale_members_removed', { members: removed })
    this.#local.membersLost?.()
  }
}
