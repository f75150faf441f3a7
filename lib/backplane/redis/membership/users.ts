import { BoundedMap } from '../../../bounded-map.ts'
import { deferred, type Deferred } from '../../../deadline.ts'
import { hasCode, WebsocketGroupsError } from '../../../errors.ts'
import type { LocalInstance } from '../../backplane.ts'
import { chunks, first, Throttle } from '../batching.ts'
import type { Keys } from '../keys.ts'
import type { Lease } from './lease.ts'
import { hashes, mending } from '../link/mending.ts'
import type { EvictionWatch } from '../link/evictions.ts'
import type { Link } from '../link/port.ts'
import { luaInteger, luaNow, luaPermitted, Script } from '../link/script.ts'
import { perLook, perStep, Round } from './round.ts'
import { luaAdd } from './scripts.ts'

/** Users per call: a call of the script holds up everything else in Redis. */
const batchSize = 128
/** TTL of the counts of a user (milliseconds). Instances store theirs again once an hour, and remove those of dead instances then, too. */
const ttlMs = 7_500_000
/** How long (milliseconds), and for how many users, a leave is remembered: a replica is rarely further behind. */
const leftMs = 60_000
const maxLeft = 10_000

/**
 * Stores how many connections users have on this instance, and adds up those on the other living ones. An instance whose lease is over, or
 * was claimed for cleaning up, does not live: its counts are removed. A full Redis takes no counts, which the call then fails with; those
 * of users that left are removed all the same.
 * KEYS 1 leases  2 instances, then the counts of each user
 * ARGV 1 instance id  2 TTL (ms), then this instance's count of each user
 * Returns how many connections each has elsewhere.
 */
export const storeUsers = new Script(`${luaInteger}
if #ARGV ~= #KEYS then error('expected ' .. #KEYS .. ' arguments, got ' .. #ARGV) end
integer(2, 1)
for k = 3, #KEYS do integer(k, 0) end${luaNow}
${luaPermitted("'PEXPIRE', KEYS[3], 1", "'HDEL', KEYS[3], ''")}
local elsewhere, refused = {}, nil
-- These come first: a full Redis may refuse the first write of a script, but none after it.
for k = 3, #KEYS do
  if ARGV[k] ~= '0' and not refused then
    ${luaAdd("'HSET', KEYS[k], ARGV[1], ARGV[k]")}
    if not refused then redis.call('PEXPIRE', KEYS[k], ARGV[2]) end
  end
end
for k = 3, #KEYS do
  if ARGV[k] == '0' then redis.call('HDEL', KEYS[k], ARGV[1]) end
  -- Most users are on one instance alone.
  local here = ARGV[k] == '0' and 0 or 1
  local sum, counts = 0, redis.call('HLEN', KEYS[k]) > here and redis.call('HGETALL', KEYS[k]) or {}
  for i = 1, #counts, 2 do
    if counts[i] ~= ARGV[1] then
      local ends = redis.call('ZSCORE', KEYS[1], counts[i])
      local alive = ends and tonumber(ends) > now and string.sub(redis.call('HGET', KEYS[2], counts[i]) or 'A', 1, 1) == 'A'
      if alive then sum = sum + tonumber(counts[i + 1])
      else redis.call('HDEL', KEYS[k], counts[i]) end
    end
  end
  elsewhere[k - 2] = sum
end
return refused or elsewhere
`)

/** What the counts need of this instance. */
type CountedInstance = Pick<LocalInstance, 'instanceId' | 'connectionsOf' | 'log'>

/**
 * Stores how many connections each user has on this instance, and tells how many on others. Stored numbers are absolute, and are read from
 * the instance when they are sent, so an outage or a lost reply leaves nothing wrong once it is over. Changes during a call go together in
 * the next one. What Redis lost by itself (keys that were evicted or deleted) is found beside a beat.
 */
export class UserCounts {
  readonly #link: Pick<Link, 'script' | 'run'>
  readonly #keys: Keys
  readonly #local: CountedInstance
  readonly #evictions: Pick<EvictionWatch, 'look'>
  readonly #beatsPerLook: number
  #beats: number
  #looking: Promise<void> | undefined
  /** How many keys Redis had evicted by the last look. */
  #evicted = 0
  /** Users for whom Redis has, or may have, a count of this instance. */
  readonly #stored = new Set<string>()
  readonly #users = new Round(() => this.#stored, perLook)
  /** Users whose last connection here closed lately: a server that lacks the latest writes still has their count. */
  readonly #left = new BoundedMap<string, true>({ maxWeight: maxLeft, maxAgeMs: leftMs })
  /** Users whose count in Redis is out of date. In an outage no others than those connected here and those in `#stored`. */
  readonly #dirty = new Set<string>()
  /** The callers that wait for a count. */
  readonly #waiting = new Map<string, Deferred<number>>()
  /** The call that is under way. */
  #storing: Promise<unknown> | undefined
  readonly #pace: Pick<Throttle, 'soon' | 'close'>
  #flushing = false
  #closed = false

  /** Tests inject `pace`. */
  constructor (
    link: Pick<Link, 'script' | 'run'>, keys: Keys, lease: Pick<Lease, 'on'>, local: CountedInstance,
    evictions: Pick<EvictionWatch, 'look'>, beatsPerLook: number, pace: Pick<Throttle, 'soon' | 'close'> = new Throttle()
  ) {
    this.#link = link
    this.#pace = pace
    this.#keys = keys
    this.#local = local
    this.#evictions = evictions
    this.#beatsPerLook = beatsPerLook
    // At random, so that the partitions do not all look at the same beat.
    this.#beats = Math.floor(Math.random() * beatsPerLook)
    lease.on({ resumed: lost => this.#resume(lost) })
    lease.on({ beating: () => { this.#looking ??= this.#look().finally(() => { this.#looking = undefined }) } })
  }

  /** As `Backplane.syncUser`. */
  async sync (userId: string): Promise<number> {
    if (this.#closed) throw new WebsocketGroupsError('WSG_CLOSED')
    const waiting = this.#waiting.get(userId) ?? deferred<number>()
    this.#waiting.set(userId, waiting)
    this.#dirty.add(userId)
    this.#schedule()
    return await waiting.promise
  }

  /**
   * Resolves when all counts are stored that are out of date now.
   * @throws WSG_BACKPLANE_UNAVAILABLE, WSG_TIMEOUT, WSG_CLOSED
   */
  async stored (): Promise<void> {
    let last: string | undefined
    for (const userId of this.#dirty) last = userId
    // One call follows the other, in this order.
    await (last === undefined ? this.#storing : this.sync(last))
  }

  /** This instance is registered and its link works. `lost`: what was stored before may be gone. */
  #resume (lost: boolean): void {
    if (lost) this.refresh()
    else this.#schedule()
  }

  /** Stores all counts again, and removes those of users that left lately once more. */
  refresh (): void {
    for (const userId of this.#stored) this.#dirty.add(userId)
    for (const [userId] of this.#left) this.#dirty.add(userId)
    this.#schedule()
  }

  /**
   * Stores the counts that Redis refused before. Compares the counts of the next users, and stores those again that Redis lost. Never
   * rejects: a later look finds them, too.
   */
  async #look (): Promise<void> {
    if (this.#dirty.size > 0) this.#schedule()
    if (this.#closed || this.#beats++ % this.#beatsPerLook !== 0) return
    try {
      const [evicted] = await Promise.all([this.#evictions.look(), this.#compareAll(this.#users.next())])
      // Where Redis does not tell what it evicts, each look has to cover all users.
      if (evicted === undefined || evicted !== this.#evicted) await this.#compareAll(this.#users.others())
      this.#evicted = evicted ?? this.#evicted
    } catch (error) {
      this.#local.log.debug({ err: error }, 'counts of users could not be compared with what is stored')
    }
  }

  async #compareAll (users: readonly string[]): Promise<void> {
    for (const some of chunks(users, perStep)) await this.#compare(some)
  }

  /** Stores the counts of these users again that Redis lost. */
  async #compare (some: readonly string[]): Promise<void> {
    const users = some.filter(userId => this.#stored.has(userId) && !this.#dirty.has(userId))
    if (users.length === 0 || this.#closed) return
    const keys = users.map(userId => this.#keys.user(userId))
    const counts = await mending(this.#link, () => hashes(keys), async () => await this.#link.run(async redis => {
      return await Promise.all(keys.map(async key => await redis.hget(key, this.#local.instanceId)))
    }))
    const lost = users.filter((_, at) => counts[at] === null)
    for (const userId of lost) this.#dirty.add(userId)
    if (lost.length > 0) this.#schedule()
  }

  /** Removes this instance's counts from Redis. */
  async close (): Promise<void> {
    this.#closed = true
    this.#pace.close()
    this.#rejectAll(new WebsocketGroupsError('WSG_CLOSED'))
    this.#dirty.clear()
    for (const users of chunks([...this.#stored], batchSize)) await this.#store(users.map(userId => [userId, 0]))
  }

  #schedule (): void {
    if (this.#flushing || this.#closed) return
    this.#flushing = true
    void this.#flush()
  }

  /** Never rejects. Counts that could not be stored stay dirty until the next beat; their callers are told. */
  async #flush (): Promise<void> {
    while (this.#dirty.size > 0 && !this.#closed) {
      await new Promise<void>(resolve => this.#pace.soon(resolve, this.#dirty.size >= batchSize))
      if (this.#closed) break
      const users = first(this.#dirty, batchSize)
      const callers = users.map(userId => this.#waiting.get(userId))
      for (const userId of users) {
        this.#dirty.delete(userId)
        this.#waiting.delete(userId)
      }
      const storing = this.#store(users.map(userId => [userId, this.#local.connectionsOf(userId)]))
      this.#storing = storing
      try {
        const elsewhere = await storing
        callers.forEach((waiting, index) => waiting?.resolve(elsewhere[index] ?? 0))
      } catch (error) {
        for (const waiting of callers) waiting?.reject(error as Error)
        this.#failed(users, error as Error)
        break
      } finally {
        this.#storing = undefined
      }
    }
    this.#flushing = false
  }

  /** Callers that came meanwhile get the error as well: the link is down, or Redis refuses. */
  #failed (users: readonly string[], error: Error): void {
    for (const userId of [...users, ...this.#waiting.keys()]) {
      if (this.#stored.has(userId) || this.#local.connectionsOf(userId) > 0) this.#dirty.add(userId)
      // Users who come and go in an outage have nothing in Redis that would have to be removed.
      else this.#dirty.delete(userId)
    }
    this.#rejectAll(error)
  }

  #rejectAll (error: Error): void {
    for (const waiting of this.#waiting.values()) waiting.reject(error)
    this.#waiting.clear()
  }

  async #store (counts: ReadonlyArray<readonly [userId: string, count: number]>): Promise<readonly number[]> {
    const added = counts.flatMap(([userId, count]) => count > 0 && !this.#stored.has(userId) ? [userId] : [])
    for (const userId of added) this.#stored.add(userId)
    try {
      const keys = counts.map(([userId]) => this.#keys.user(userId))
      const elsewhere = await mending(this.#link, () => hashes(keys), async () => await this.#link.script(
        storeUsers,
        [this.#keys.leases, this.#keys.instances, ...keys],
        [this.#local.instanceId, ttlMs, ...counts.map(([, count]) => count)]
      )) as number[]
      for (const [userId, count] of counts) if (count === 0 && this.#stored.delete(userId)) this.#left.set(userId, true)
      return elsewhere
    } catch (error) {
      if (hasCode(error, 'WSG_BACKPLANE_UNAVAILABLE')) for (const userId of added) this.#stored.delete(userId)
      throw error
    }
  }
}
