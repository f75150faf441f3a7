import { BoundedMap } from '../../../bounded-map.ts'
import { deferred, type Deferred } from '../../../deadline.ts'
import { WebsocketGroupsError } from '../../../errors.ts'
import type { LocalInstance } from '../../backplane.ts'
import { Throttle } from '../batching.ts'
import type { Keys } from '../keys.ts'
import type { Lease } from './lease.ts'
import type { Link } from '../link/port.ts'
import { luaInteger, luaNow, Script } from '../link/script.ts'

/** Users per call: a call of the script holds up everything else in Redis. */
const batchSize = 128
/** The most users that one look compares; the next look goes on with the others. */
const usersPerBeat = 256
/** TTL of the counts of a user (milliseconds). Instances store theirs again once an hour, and remove those of dead instances then, too. */
const ttlMs = 7_500_000
/** How long (milliseconds), and of how many users, it is remembered that they left: a replica is rarely further behind. */
const leftMs = 60_000
const maxLeft = 10_000

/**
 * Stores how many connections users have on this instance, and adds up those on the other living ones. An instance whose lease is over, or
 * was claimed for cleaning up, does not live: its counts are removed.
 * KEYS 1 leases  2 instances, then the counts of each user
 * ARGV 1 instance id  2 TTL (ms), then this instance's count of each user
 * Returns how many connections each has elsewhere.
 */
export const storeUsers = new Script(`${luaInteger}
if #ARGV ~= #KEYS then error('expected ' .. #KEYS .. ' arguments, got ' .. #ARGV) end
integer(2, 1)
for k = 3, #KEYS do integer(k, 0) end${luaNow}
local elsewhere = {}
for k = 3, #KEYS do
  if ARGV[k] == '0' then redis.call('HDEL', KEYS[k], ARGV[1])
  else
    redis.call('HSET', KEYS[k], ARGV[1], ARGV[k])
    redis.call('PEXPIRE', KEYS[k], ARGV[2])
  end
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
return elsewhere
`)

/** What the counts need of this instance. */
type CountedInstance = Pick<LocalInstance, 'instanceId' | 'connectionsOf' | 'log'>

/**
 * Finds users without a count of this instance.
 * KEYS the counts of each user.  ARGV 1 instance id
 * Returns their numbers (from 1).
 */
const findLost = new Script(`
local lost = {}
for k = 1, #KEYS do
  if not redis.call('HGET', KEYS[k], ARGV[1]) then lost[#lost + 1] = k end
end
return lost
`)

/**
 * Stores how many connections each user has on this instance, and tells how many on others. Stored numbers are absolute, and are read from
 * the instance when they are sent, so an outage or a lost reply leaves nothing wrong once it is over. Changes during a call go together in
 * the next one. What Redis lost by itself (keys that were evicted or deleted) is found beside a beat.
 */
export class UserCounts {
  readonly #link: Pick<Link, 'script'>
  readonly #keys: Keys
  readonly #local: CountedInstance
  readonly #beatsPerLook: number
  #beats: number
  /** The users that are still to be compared in this round. */
  #unseen: string[] = []
  /** Users for whom Redis has, or may have, a count of this instance. */
  readonly #stored = new Set<string>()
  /** Users whose last connection here closed lately: a server that lacks the latest writes still has their count. */
  readonly #left = new BoundedMap<string, true>({ maxWeight: maxLeft, maxAgeMs: leftMs })
  /** Users whose count in Redis is out of date, and the callers that wait for it. */
  readonly #dirty = new Map<string, Deferred<number> | undefined>()
  readonly #pace: Pick<Throttle, 'soon' | 'close'>
  #flushing = false
  #closed = false

  /** Tests inject `pace`. */
  constructor (
    link: Pick<Link, 'script'>, keys: Keys, lease: Pick<Lease, 'on'>, local: CountedInstance, beatsPerLook: number,
    pace: Pick<Throttle, 'soon' | 'close'> = new Throttle()
  ) {
    this.#link = link
    this.#pace = pace
    this.#keys = keys
    this.#local = local
    this.#beatsPerLook = beatsPerLook
    // At random, so that the partitions do not all look at the same beat.
    this.#beats = Math.floor(Math.random() * beatsPerLook)
    lease.on({ resumed: lost => this.#resume(lost), renewed: () => { void this.#look() } })
  }

  /** As `Backplane.syncUser`. */
  async sync (userId: string): Promise<number> {
    if (this.#closed) throw new WebsocketGroupsError('WSG_CLOSED')
    const waiting = this.#dirty.get(userId) ?? deferred<number>()
    this.#dirty.set(userId, waiting)
    this.#schedule()
    return await waiting.promise
  }

  /** This instance is registered and its link works. `lost`: what was stored before may be gone. */
  #resume (lost: boolean): void {
    if (lost) this.refresh()
    else this.#schedule()
  }

  /** Stores all counts again, and removes those of users that left lately once more. */
  refresh (): void {
    for (const userId of this.#stored) this.#refreshOne(userId)
    for (const [userId] of this.#left) this.#refreshOne(userId)
    this.#schedule()
  }

  /**
   * Stores the counts that Redis refused before. Compares the counts of the next users, and stores those again that Redis lost. Never
   * rejects: a later look finds them, too.
   */
  async #look (): Promise<void> {
    if (this.#dirty.size > 0) this.#schedule()
    if (this.#closed || this.#beats++ % this.#beatsPerLook !== 0) return
    if (this.#unseen.length === 0) this.#unseen = [...this.#stored]
    const users = this.#unseen.splice(0, usersPerBeat).filter(userId => this.#stored.has(userId) && !this.#dirty.has(userId))
    if (users.length === 0) return
    try {
      const lost = await this.#link.script(findLost, users.map(userId => this.#keys.user(userId)), [this.#local.instanceId]) as number[]
      for (const number of lost) this.#refreshOne(users[number - 1] ?? '')
      if (lost.length > 0) this.#schedule()
    } catch (error) {
      this.#local.log.debug({ err: error }, 'counts of users could not be compared with what is stored')
    }
  }

  #refreshOne (userId: string): void {
    if (!this.#dirty.has(userId)) this.#dirty.set(userId, undefined)
  }

  /** Removes this instance's counts from Redis. */
  async close (): Promise<void> {
    this.#closed = true
    this.#pace.close()
    for (const waiting of this.#dirty.values()) waiting?.reject(new WebsocketGroupsError('WSG_CLOSED'))
    this.#dirty.clear()
    const users = [...this.#stored]
    for (let start = 0; start < users.length; start += batchSize) {
      await this.#store(users.slice(start, start + batchSize).map(userId => [userId, 0] as const))
    }
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
      const batch = [...this.#dirty].slice(0, batchSize)
      for (const [userId] of batch) this.#dirty.delete(userId)
      try {
        const elsewhere = await this.#store(batch.map(([userId]) => [userId, this.#local.connectionsOf(userId)] as const))
        batch.forEach(([, waiting], index) => waiting?.resolve(elsewhere[index] ?? 0))
      } catch (error) {
        for (const [userId, waiting] of batch) {
          this.#refreshOne(userId)
          waiting?.reject(error as Error)
        }
        // Callers that came meanwhile get the error as well: the link is down, or Redis refuses.
        for (const [userId, waiting] of this.#dirty) {
          this.#dirty.set(userId, undefined)
          waiting?.reject(error as Error)
        }
        break
      }
    }
    this.#flushing = false
  }

  async #store (counts: ReadonlyArray<readonly [userId: string, count: number]>): Promise<readonly number[]> {
    for (const [userId, count] of counts) if (count > 0) this.#stored.add(userId)
    const elsewhere = await this.#link.script(
      storeUsers,
      [this.#keys.leases, this.#keys.instances, ...counts.map(([userId]) => this.#keys.user(userId))],
      [this.#local.instanceId, ttlMs, ...counts.map(([, count]) => count)]
    ) as number[]
    for (const [userId, count] of counts) if (count === 0 && this.#stored.delete(userId)) this.#left.set(userId, true)
    return elsewhere
  }
}
