import type { LocalInstance } from '../../backplane.ts'
import { chunks, first } from '../batching.ts'
import type { Keys } from '../keys.ts'
import type { EvictionWatch } from '../link/evictions.ts'
import type { Link } from '../link/port.ts'
import { isWrongType } from '../link/reply-errors.ts'
import { luaInteger, Script } from '../link/script.ts'
import { Inspector, type GroupTest } from './inspector.ts'
import { perLook, perStep, Round } from './round.ts'
import { safetyTtlMs } from './scripts.ts'

/** Every how many looks the next groups have their turn, and how many these are. */
const looksPerTurn = 8
const perTurn = { parts: 32, least: 16, most: 10_000 } as const
/** Groups that differ are compared again after this many milliseconds. */
const secondLookMs = 100

/**
 * Sets the mark of the index, or removes it when this instance has no groups, and gives each instance a lease where leases were lost, so
 * that those that do not come back are found dead.
 * KEYS 1 index  2 instances  3 generations  4 leases
 * ARGV 1 instance id  2 generation  3 safety TTL (ms)  4 lease (ms)  5 the fewest groups that an index has to list to be whole: 0 removes
 *      the mark, -1 leaves it as it is
 */
const renewMarks = new Script(`${luaInteger}
local call, ttl, lease, groups = redis.call, integer(3, 1), integer(4, 1), integer(5, -1)
if toNumber(call('HGET', KEYS[3], ARGV[1]) or '0') ~= integer(2, 1) then return end
if groups == 0 then call('SREM', KEYS[1], '')
elseif groups > 0 and call('SCARD', KEYS[1]) >= groups and call('SADD', KEYS[1], '') == 1 then call('PEXPIRE', KEYS[1], ttl) end
if call('HLEN', KEYS[2]) > call('ZCARD', KEYS[4]) then
  local time, ids = call('TIME'), call('HKEYS', KEYS[2])
  for i = 1, #ids do call('ZADD', KEYS[4], 'NX', time[1] * 1000 + math.floor(time[2] / 1000) + lease, ids[i]) end
end
`)

/** What belongs to no single group. Where another program wrote a value of another type, nothing is known: the index may be gone. */
interface Marks {
  /** The newest generation of this instance. */
  readonly generation?: number
  /** Moves when a key is written anew. */
  readonly anew?: string | null
  /** Whether Redis lost nothing of the index. */
  readonly indexed: boolean
  /** How many instances are known, and how many have a lease, if they were to be counted. */
  readonly known: number
  readonly leased: number
}

/**
 * Finds memberships that Redis lost by itself: keys that were evicted or deleted, or that another program overwrote. Each look asks whether
 * the keys of the next groups exist, which costs Redis a small part of comparing them, and whether Redis evicted any key: then it asks for
 * all groups. A key that was lost and written anew by a change exists, and lacks what nobody changed: whoever writes a key anew moves a
 * mark, and all instances compare their groups. What neither shows is found in turns.
 */
export class Audit {
  readonly #link: Link
  readonly #keys: Keys
  readonly #local: LocalInstance
  readonly #evictions: Pick<EvictionWatch, 'look'>
  readonly #awaits: GroupTest
  readonly #inspector: Inspector
  readonly #leaseMs: number
  readonly #beatsPerLook: number
  readonly #groups: Round
  readonly #turns: Round
  #beats: number
  #looks = 0
  /** Whether the next turn is for all groups. */
  #wholeTurn = false
  /** The mark of the last look, and the groups that are to be compared: the mark moved, or they were just changing. */
  #anew: string | null | undefined
  #unsure = new Set<string>()
  /** How many keys Redis had evicted by the last look. */
  #evicted = 0
  #closed = false

  /** `awaits` tells whether the subscription to a group is not there yet: its new members are stored after it. */
  constructor (
    link: Link, keys: Keys, local: LocalInstance, evictions: Pick<EvictionWatch, 'look'>, awaits: GroupTest,
    leaseMs: number, beatsPerLook: number
  ) {
    this.#link = link
    this.#keys = keys
    this.#local = local
    this.#evictions = evictions
    this.#awaits = awaits
    this.#inspector = new Inspector(link, keys, local, leaseMs)
    this.#leaseMs = leaseMs
    this.#beatsPerLook = beatsPerLook
    this.#groups = new Round(() => local.groups(), perLook)
    this.#turns = new Round(() => local.groups(), perTurn)
    // At random, so that the partitions do not all look at the same beat.
    this.#beats = Math.floor(Math.random() * beatsPerLook)
  }

  /**
   * Called when a beat was sent: the first reads leave with it. Looks at the next groups and resolves with those that differ, except those
   * that `isChanging`, or that are to be repaired in any case (`isDirty`). Never rejects: a later look finds them again.
   */
  async next (generation: number, isChanging: GroupTest, isDirty: GroupTest): Promise<string[]> {
    if (this.#beats++ % this.#beatsPerLook !== 0) return []
    const pending: GroupTest = group => isChanging(group) || this.#awaits(group)
    // Compared by a later look: a change writes its own members, and not what else was lost of the group.
    const later: GroupTest = group => {
      const isLater = pending(group) || isDirty(group)
      if (isLater) this.#unsure.add(group)
      return isLater
    }
    try {
      const found = await this.#look(generation, pending, later)
      if (found.length === 0 || this.#closed) return []
      // A connection is in its group in the hub a moment before its membership is handed over to be written.
      await new Promise<void>(resolve => { setTimeout(resolve, secondLookMs) })
      if (this.#mayWrite(await this.#marks(), generation)) return await this.#inspector.compare(found, later)
      this.#anew = undefined
    } catch (error) {
      // Whatever was found out about the mark may not have been acted on.
      this.#anew = undefined
      if (this.#wholeTurn) this.#looks = 0
      this.#local.log.debug({ err: error }, 'memberships could not be compared with what is stored')
    }
    return []
  }

  /** Redis lost what it knew of the instances, those that died among them: the next look is a turn of all groups. */
  lost (): void {
    this.#wholeTurn = true
    this.#looks = 0
  }

  /** A look that is under way ends with the answer that it waits for. */
  close (): void {
    this.#closed = true
    this.#inspector.close()
  }

  async #look (generation: number, pending: GroupTest, later: GroupTest): Promise<string[]> {
    const groups = this.#groups.next()
    const isTurn = this.#looks++ % looksPerTurn === 0
    const isWhole = isTurn && this.#wholeTurn
    const turn = isWhole ? this.#local.groups() : isTurn ? this.#turns.next() : []
    const [marks, evicted, missing, differing] = await Promise.all([
      this.#marks(isTurn),
      this.#evictions.look(),
      this.#missing(groups, later),
      this.#inspector.inspect([...new Set([...this.#inspector.haunted, ...turn])], later)
    ])
    if (!this.#mayWrite(marks, generation)) return []
    if (isWhole) this.#wholeTurn = false
    const index = marks.indexed ? { lacks: [], lists: -1 } : await this.#readIndex(pending)
    if (marks.generation !== undefined && (!marks.indexed || marks.known > marks.leased)) await this.#renewMarks(generation, index.lists)
    // Those that wait longest come first.
    if (marks.anew !== this.#anew) this.#unsure = new Set([...this.#unsure, ...this.#local.groups()])
    this.#anew = marks.anew
    // Where Redis does not tell what it evicts, each look has to cover all groups.
    const covers = evicted === undefined || evicted !== this.#evicted
    const others = covers ? await this.#missing(this.#groups.others(), later) : []
    const suspects = new Set([...missing, ...others, ...index.lacks, ...this.#takeUnsure(covers)])
    const found = [...differing, ...await this.#inspector.compare([...suspects], later)]
    if (evicted !== undefined && evicted !== this.#evicted) {
      this.#evicted = evicted
      // Redis may have evicted what it knew of instances that died.
      this.#wholeTurn = true
    }
    return found
  }

  /** The next groups that are to be compared because the mark moved, or because they were just changing. */
  #takeUnsure (covers: boolean): string[] {
    if (this.#unsure.size === 0) return []
    const most = covers ? perLook.most : this.#groups.sizeOf([...this.#local.groups()].length)
    const next: string[] = []
    for (const group of this.#unsure) {
      this.#unsure.delete(group)
      if (this.#isHeld(group) && next.push(group) >= most) break
    }
    return next
  }

  #isHeld (group: string): boolean {
    return first(this.#local.memberIds(group), 1).length > 0
  }

  /** Not when a newer generation of this instance writes, or nobody is to know any more. */
  #mayWrite (marks: Marks, generation: number): boolean {
    return !this.#closed && (marks.generation === undefined || marks.generation === generation)
  }

  async #marks (counted = false): Promise<Marks> {
    const { instanceId } = this.#local
    const { instances, generations, leases } = this.#keys
    const hasGroups = first(this.#local.groups(), 1).length > 0
    try {
      const [[newest, anew = null], [marked], known, leased] = await this.#link.run(async redis => await Promise.all([
        redis.hmget(generations, instanceId, ''), redis.smismember(this.#keys.index(instanceId), ''),
        counted ? redis.hlen(instances) : 0, counted ? redis.zcard(leases) : 0
      ]))
      return { generation: Number(newest), anew, indexed: marked === Number(hasGroups), known, leased }
    } catch (error) {
      if (!isWrongType(error)) throw error
      return { indexed: false, known: 0, leased: 0 }
    }
  }

  async #renewMarks (generation: number, groups: number): Promise<void> {
    const { instanceId } = this.#local
    const { instances, generations, leases } = this.#keys
    const keys = [this.#keys.index(instanceId), instances, generations, leases]
    await this.#link.script(renewMarks, keys, [instanceId, generation, safetyTtlMs, this.#leaseMs, groups])
  }

  /**
   * Resolves with the groups that the index lacks, and how many it lists (-1 if it lacks any). An instance that has its first groups has no
   * mark there yet, and lacks none.
   */
  async #readIndex (pending: GroupTest): Promise<{ readonly lacks: readonly string[], readonly lists: number }> {
    const index = this.#keys.index(this.#local.instanceId)
    const lacks: string[] = []
    let lists = 0
    for (const some of chunks([...this.#local.groups()], perStep)) {
      if (this.#closed) return { lacks, lists: -1 }
      const listed = await this.#listed(index, some)
      lists += listed.filter(is => is === 1).length
      // Some were left meanwhile, and a change that is about to be written lists its group.
      lacks.push(...some.filter((group, at) => listed[at] !== 1 && !pending(group) && this.#isHeld(group)))
    }
    return { lacks, lists: lacks.length > 0 ? -1 : lists }
  }

  async #listed (index: string, groups: readonly string[]): Promise<number[]> {
    try {
      return await this.#link.run(async redis => await redis.smismember(index, ...groups))
    } catch (error) {
      if (!isWrongType(error)) throw error
      return []
    }
  }

  /** Resolves with the groups, among these, of which a key may be missing: all of a step with one that is. */
  async #missing (groups: readonly string[], later: GroupTest): Promise<string[]> {
    const found: string[] = []
    // Some may have been left since the round began; those that are to be compared need not be asked for.
    const held = groups.filter(group => !this.#unsure.has(group) && !later(group) && this.#isHeld(group))
    for (const some of chunks(held, perStep)) {
      if (this.#closed) break
      const keys = some.flatMap(group => [this.#keys.members(group, this.#local.instanceId), this.#keys.counts(group)])
      if (await this.#link.run(async redis => await redis.exists(keys)) !== keys.length) found.push(...some)
    }
    return found
  }
}
