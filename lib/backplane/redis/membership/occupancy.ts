import type { Presences, PresenceChange } from '../../backplane.ts'
import { chunks } from '../batching.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { mending } from '../link/mending.ts'
import { luaInteger, luaNow, Script } from '../link/script.ts'
import { safetyTtlMs } from './scripts.ts'

/** Names per call: a call of the script holds up everything else in Redis. */
const batchSize = 128

/**
 * Compares which groups have members with what the hooks of the application were told, and records the changes as told: of several
 * concurrent callers, one gets each change.
 * KEYS 1 set of the groups that are recorded as having members, then the counts of each group.  ARGV 1 safety TTL (ms), then each name
 * Returns 1 where a group has members now, -1 where it has none any more, 0 where nothing changed.
 */
export const settleGroups = new Script(`${luaInteger}
if #ARGV ~= #KEYS then error('expected ' .. #KEYS .. ' arguments, got ' .. #ARGV) end
local ttl, changes = integer(1, 1), {}
for k = 2, #KEYS do
  local total = tonumber(redis.call('HGET', KEYS[k], '#')) or 0
  if total > 0 then changes[k - 1] = redis.call('SADD', KEYS[1], ARGV[k])
  else changes[k - 1] = -redis.call('SREM', KEYS[1], ARGV[k]) end
end
redis.call('PEXPIRE', KEYS[1], ttl)
return changes
`)

/**
 * Does the same for users that have connections on living instances.
 * KEYS 1 set of the users that are recorded as online  2 leases  3 instances, then the counts of each user
 * ARGV 1 safety TTL (ms)  2, 3 not used, so that each user id has the number of its key, then each user id
 */
export const settleUsers = new Script(`${luaInteger}
if #ARGV ~= #KEYS then error('expected ' .. #KEYS .. ' arguments, got ' .. #ARGV) end
local ttl, changes = integer(1, 1), {}${luaNow}
for k = 4, #KEYS do
  local sum, counts = 0, redis.call('HGETALL', KEYS[k])
  for i = 1, #counts, 2 do
    local ends = redis.call('ZSCORE', KEYS[2], counts[i])
    if ends and tonumber(ends) > now and string.sub(redis.call('HGET', KEYS[3], counts[i]) or 'A', 1, 1) == 'A' then
      sum = sum + tonumber(counts[i + 1])
    end
  end
  if sum > 0 then changes[k - 3] = redis.call('SADD', KEYS[1], ARGV[k])
  else changes[k - 3] = -redis.call('SREM', KEYS[1], ARGV[k]) end
end
redis.call('PEXPIRE', KEYS[1], ttl)
return changes
`)

/** Records which groups have members and which users are online, so that hooks are told each change once in the whole cluster. */
export class OccupancyStore {
  readonly #link: Link
  readonly #keys: Keys
  /** Changes that Redis has recorded and no call has returned yet, as those that found them failed later. */
  readonly #changes: Record<Presences, PresenceChange[]> = { group: [], user: [] }

  constructor (link: Link, keys: Keys) {
    this.#link = link
    this.#keys = keys
  }

  /** As `Backplane.settle`. What was found before a call failed comes with the next one. */
  async settle (kind: Presences, names: readonly string[] | undefined): Promise<readonly PresenceChange[]> {
    const changes = this.#changes[kind]
    for await (const batch of names === undefined ? this.#told(kind) : chunks(names, batchSize)) {
      const settled = await this.#settle(kind, batch)
      batch.forEach((name, index) => {
        const change = settled[index] ?? 0
        if (change !== 0) changes.push({ name, present: change > 0 })
      })
    }
    return changes.splice(0)
  }

  async #settle (kind: Presences, names: readonly string[]): Promise<readonly number[]> {
    if (names.length === 0) return []
    const { leases, instances } = this.#keys
    const told = this.#keys.told(kind)
    const counts = names.map(name => kind === 'group' ? this.#keys.counts(name) : this.#keys.user(name))
    return await mending(this.#link, () => [[told, 'SCARD']], async () => kind === 'group'
      ? await this.#link.script(settleGroups, [told, ...counts], [safetyTtlMs, ...names])
      : await this.#link.script(settleUsers, [told, leases, instances, ...counts], [safetyTtlMs, '', '', ...names])) as number[]
  }

  /** All names that are recorded, some at a time. */
  async * #told (kind: Presences): AsyncIterable<readonly string[]> {
    const told = this.#keys.told(kind)
    let cursor = '0'
    do {
      const [next, names] = await mending(this.#link, () => [[told, 'SCARD']], async () => {
        return await this.#link.run(async redis => await redis.sscan(told, cursor, 'COUNT', batchSize))
      })
      yield * chunks(names, batchSize)
      cursor = next
    } while (cursor !== '0')
  }
}
