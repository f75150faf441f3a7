import { logEvent } from '../../../logging.ts'
import type { LocalInstance } from '../../backplane.ts'
import { chunks } from '../batching.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { Script } from '../link/script.ts'
import { perStep } from './round.ts'
import { luaUncount } from './scripts.ts'

/** Groups where others are looked for together: a script reads all instances that have members there. */
const perHunt = 32

/**
 * Compares what is stored of groups with what this instance has, and looks for members of instances that have neither a record nor a lease.
 * KEYS 1 instances  2 leases  3 index, then this instance's members and the counts of each group
 * ARGV 1 id of this instance  2 whether to look for others (1 or 0), then the name of each group, then how many members each has here
 *      ('': that is just changing)
 * Returns number (from 1) and instance of what was found: an unknown instance with members there, or '' where this instance's differ.
 */
const inspect = new Script(`
local found, known, hunts = {}, {['#'] = true, [ARGV[1]] = true}, ARGV[2] == '1'
local function read (...)
  local reply = redis.pcall(...)
  -- Another program wrote a value of another type: it holds nothing that is looked for.
  if type(reply) == 'table' and reply.err then
    if not string.find(reply.err, 'WRONGTYPE', 1, true) then error(reply.err) end
    return {}
  end
  return reply
end
local groups = (#KEYS - 3) / 2
local listed = read('SMISMEMBER', KEYS[3], unpack(ARGV, 3, groups + 2))
for group = 1, groups do
  local counts, held = KEYS[2 * group + 3], ARGV[groups + group + 2]
  if held ~= '' and (
    read('HLEN', KEYS[2 * group + 2]) ~= tonumber(held) or (read('HGET', counts, ARGV[1]) or '0') ~= held or
    held ~= '0' and listed[group] ~= 1
  ) then
    found[#found + 1] = group
    found[#found + 1] = ''
  end
  local ids = hunts and read('HKEYS', counts) or {}
  for i = 1, #ids do
    local id = ids[i]
    if known[id] == nil then known[id] = redis.call('HGET', KEYS[1], id) or redis.call('ZSCORE', KEYS[2], id) end
    if not known[id] then
      found[#found + 1] = group
      found[#found + 1] = id
    end
  end
end
return found
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

export type GroupTest = (group: string) => boolean

/**
 * Compares groups with what is stored of them, and removes ghosts: members of instances that nobody knows, whose records, leases and lists
 * of groups were all lost. They go when they are found again after a lease, unless their instance registered meanwhile.
 */
export class Inspector {
  readonly #link: Link
  readonly #keys: Keys
  readonly #local: LocalInstance
  readonly #leaseMs: number
  /** When the ghosts of each group were found first: group -> instance -> time. */
  readonly #ghosts = new Map<string, ReadonlyMap<string, number>>()
  #closed = false

  constructor (link: Link, keys: Keys, local: LocalInstance, leaseMs: number) {
    this.#link = link
    this.#keys = keys
    this.#local = local
    this.#leaseMs = leaseMs
  }

  /** The groups with ghosts that may go now, if they are found again. */
  get haunted (): string[] {
    const now = performance.now()
    return [...this.#ghosts].filter(([, noted]) => [...noted.values()].some(at => now - at >= this.#leaseMs)).map(([group]) => group)
  }

  /** An inspection that is under way ends with the answer that it waits for. */
  close (): void {
    this.#closed = true
  }

  /**
   * Resolves with the groups, among these, of which other members are stored than this instance has, but for those that are just changing.
   * @throws {WebsocketGroupsError} WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT
   */
  async compare (groups: readonly string[], changing: GroupTest): Promise<string[]> {
    const differing: string[] = []
    for (const some of chunks(groups, perStep)) {
      if (this.#closed) break
      for (const [at] of await this.#ask(some, changing, false)) differing.push(some[at - 1] ?? '')
    }
    return differing
  }

  /** As `compare`, and removes ghosts. It costs Redis more, the more instances have members of a group. */
  async inspect (groups: readonly string[], changing: GroupTest): Promise<string[]> {
    const differing: string[] = []
    let removed = 0
    for (const some of chunks(groups, perHunt)) {
      if (this.#closed) break
      const ghosts = new Map<string, string[]>()
      for (const [at, instance] of await this.#ask(some, changing, true)) {
        const group = some[at - 1] ?? ''
        if (instance === '') differing.push(group)
        else ghosts.set(group, [...ghosts.get(group) ?? [], instance])
      }
      for (const group of some) removed += await this.#exorcise(group, ghosts.get(group) ?? [])
    }
    if (removed > 0) {
      logEvent(this.#local.log, 'stale_members_removed', { members: removed })
      this.#local.membersLost?.()
    }
    return differing
  }

  async #ask (groups: readonly string[], changing: GroupTest, hunts: boolean): Promise<Array<[at: number, instance: string]>> {
    const { instanceId } = this.#local
    const { instances, leases } = this.#keys
    const keys = groups.flatMap(group => [this.#keys.members(group, instanceId), this.#keys.counts(group)])
    const held = groups.map(group => changing(group) ? '' : [...this.#local.memberIds(group)].length)
    const args = [instanceId, hunts ? 1 : 0, ...groups, ...held]
    const reply = await this.#link.script(inspect, [instances, leases, this.#keys.index(instanceId), ...keys], args)
    return [...chunks(reply as Array<number | string>, 2)].map(([at, instance]) => [Number(at), String(instance)])
  }

  /** Notes the ghosts that were found in a group, removes those that were noted a lease ago, and resolves with how many these were. */
  async #exorcise (group: string, ghosts: readonly string[]): Promise<number> {
    const [noted, now, since] = [this.#ghosts.get(group), performance.now(), new Map<string, number>()]
    let removed = 0
    for (const instance of ghosts) {
      const at = noted?.get(instance) ?? now
      if (now - at < this.#leaseMs) since.set(instance, at)
      else if (!this.#closed) removed += await this.#remove(group, instance)
    }
    if (since.size > 0) this.#ghosts.set(group, since)
    else this.#ghosts.delete(group)
    return removed
  }

  /** Never rejects: a ghost that stays must not keep others from being found. */
  async #remove (group: string, instance: string): Promise<number> {
    const { instances, leases } = this.#keys
    const keys = [this.#keys.members(group, instance), this.#keys.counts(group), instances, leases]
    try {
      return Number(await this.#link.script(removeGhost, keys, [instance]))
    } catch (error) {
      this.#local.log.debug({ err: error, group, instance }, 'members of an unknown instance could not be removed')
      return 0
    }
  }
}
