import { logEvent } from '../../../logging.ts'
import type { LocalInstance } from '../../backplane.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { isWrongType } from '../link/reply-errors.ts'
import { luaInteger, Script } from '../link/script.ts'
import { safetyTtlMs } from './scripts.ts'

/** The most groups that one look compares; the next look goes on with the others. A group costs Redis some 3 us. */
const groupsPerBeat = 256
/** Every how many rounds members of unknown instances are looked for: that takes as long as all else together. */
const roundsPerGhostHunt = 2
/** Groups that differ are compared again after this many milliseconds. */
const secondLookMs = 100

/**
 * Compares what is stored of an instance in some groups with what it holds, and looks for members of instances that nobody knows.
 * KEYS 1 index  2 instances  3 generations  4 leases, then members and counts of each group
 * ARGV 1 instance id  2 generation  3 safety TTL (ms)  4 lease (ms)  5 whether to look for members of unknown instances (1 or 0),
 *      then of each group: its name, number of members
 * Returns the numbers (from 1) of the groups that differ, and in a second list number and instance of each group with members of an
 * instance that has neither a record nor a lease.
 */
const compare = new Script(`${luaInteger}
local call, keys, me = redis.call, KEYS, ARGV[1]
local mine, ttl, lease, hunt = integer(2, 1), integer(3, 1), integer(4, 1), integer(5, 0) == 1
if toNumber(call('HGET', keys[3], me) or '0') ~= mine then return {{}, {}} end
-- A mark stands in the index as long as there are members: it tells an index that was lost from an empty one.
if #keys == 4 then call('SREM', keys[1], '')
elseif call('SADD', keys[1], '') == 1 then call('PEXPIRE', keys[1], ttl) end
-- Leases were lost: gives each instance one, so that those that do not come back are found dead.
if call('HLEN', keys[2]) > call('ZCARD', keys[4]) then
  local time, ids = call('TIME'), call('HKEYS', keys[2])
  for i = 1, #ids do call('ZADD', keys[4], 'NX', time[1] * 1000 + math.floor(time[2] / 1000) + lease, ids[i]) end
end
local differing, ghosts, known = {}, {}, {['#'] = true, [me] = true}
for g = 1, (#keys - 4) / 2 do
  local members, counts, name, held = keys[3 + 2 * g], keys[4 + 2 * g], args[4 + 2 * g], args[5 + 2 * g]
  if (call('HGET', counts, me) or '0') ~= held or call('HLEN', members) ~= toNumber(held) or call('SISMEMBER', keys[1], name) == 0 then
    differing[#differing + 1] = g
  end
  if hunt then
    local ids = call('HKEYS', counts)
    for i = 1, #ids do
      local id = ids[i]
      if known[id] == nil then known[id] = call('HGET', keys[2], id) or call('ZSCORE', keys[4], id) end
      if not known[id] then
        ghosts[#ghosts + 1] = g
        ghosts[#ghosts + 1] = id
      end
    end
  end
end
return {differing, ghosts}
`)

/**
 * Removes the members of an instance from one group, once nobody knows the instance.
 * KEYS 1 members there  2 counts  3 instances  4 leases.  ARGV 1 that instance's id
 * Returns how many members were removed.
 */
const removeGhost = new Script(`
if redis.call('HGET', KEYS[3], ARGV[1]) or redis.call('ZSCORE', KEYS[4], ARGV[1]) then return 0 end
local members = tonumber(redis.call('HGET', KEYS[2], ARGV[1])) or 0
if members > 0 then
  if redis.call('HINCRBY', KEYS[2], '#', -members) <= 0 then redis.call('DEL', KEYS[2]) else redis.call('HDEL', KEYS[2], ARGV[1]) end
end
redis.call('UNLINK', KEYS[1])
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
   * Called beside each beat. Looks at the next groups and resolves with those that differ, except those that are about to be written, as
   * `changing` tells. Never rejects: a later look finds them again.
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
      const first = await this.#differing(groups, generation, changing)
      if (first.length === 0) return []
      // A connection is in its group in the hub a moment before its membership is handed over to be written.
      await new Promise<void>(resolve => { setTimeout(resolve, secondLookMs) })
      return await this.#differing(first, generation, changing)
    } catch (error) {
      // Another program wrote one of their keys: whoever writes them anew finds which.
      if (isWrongType(error)) return groups
      this.#local.log.debug({ err: error }, 'memberships could not be compared with what is stored')
      return []
    }
  }

  get #hunting (): boolean {
    return this.#rounds % roundsPerGhostHunt === 1
  }

  async #differing (groups: readonly string[], generation: number, changing: (group: string) => boolean): Promise<string[]> {
    const { instanceId } = this.#local
    const { instances, generations, leases } = this.#keys
    const steady = groups.filter(group => !changing(group))
    if (steady.length === 0 && groups.length > 0) return []
    const hashes = steady.flatMap(group => [this.#keys.members(group, instanceId), this.#keys.counts(group)])
    const held = steady.flatMap(group => [group, [...this.#local.memberIds(group)].length])
    const [differing, ghosts] = await this.#link.script(
      compare, [this.#keys.index(instanceId), instances, generations, leases, ...hashes],
      [instanceId, generation, safetyTtlMs, this.#leaseMs, this.#hunting ? 1 : 0, ...held]
    ) as [number[], Array<number | string>]
    await this.#removeGhosts(steady, ghosts)
    return differing.map(number => steady[number - 1] ?? '')
  }

  async #removeGhosts (groups: readonly string[], ghosts: ReadonlyArray<number | string>): Promise<void> {
    const { instances, leases } = this.#keys
    let removed = 0
    for (let at = 0; at + 1 < ghosts.length; at += 2) {
      const [group, ghost] = [groups[Number(ghosts[at]) - 1] ?? '', String(ghosts[at + 1])]
      const name = `${ghost}:${group}`
      if (!this.#suspects.has(name)) {
        this.#newSuspects.add(name)
        continue
      }
      const keys = [this.#keys.members(group, ghost), this.#keys.counts(group), instances, leases]
      removed += Number(await this.#link.script(removeGhost, keys, [ghost]))
    }
    if (removed === 0) return
    logEvent(this.#local.log, 'stale_members_removed', { members: removed })
    this.#local.membersLost?.()
  }
}
