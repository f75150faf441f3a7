import { drawId } from '../../../ids.ts'
import type { Presences, PresenceChange } from '../../backplane.ts'
import { chunks } from '../batching.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { hashes, mending } from '../link/mending.ts'
import { luaInteger, luaNow, luaPermitted, Script } from '../link/script.ts'
import { safetyTtlMs } from './scripts.ts'

/** Names per call: a call of the script holds up everything else in Redis. */
const batchSize = 128
/** How long Redis remembers its latest answer to a process (milliseconds). A call that is made again after that may tell of nothing. */
const answerMs = 300_000

/**
 * Lua: returns what this call, by its name `ARGV[2]`, was answered before. Its reply may have been lost; what it recorded as told would be
 * told to nobody.
 */
const luaAnswered = `
local id, changes = string.match(redis.call('GET', KEYS[2]) or '', '^(%S+) (.*)$')
if id == ARGV[2] then
  local answer = {}
  for change in string.gmatch(changes, '%S+') do answer[#answer + 1] = tonumber(change) end
  return answer
end`

/**
 * Lua: records what changed of the names from `ARGV[first]` on, of which those in `present` are there now, and returns the changes. All
 * reads come before it: a key of another type must not end the script when some changes are recorded already.
 */
const luaRecord = `
${luaPermitted("'SADD', KEYS[1], ''", "'SREM', KEYS[1], ''", "'SET', KEYS[2], ''")}
local changes, any = {}, false
for k = first, #ARGV do
  local change = present[k] and redis.call('SADD', KEYS[1], ARGV[k]) or -redis.call('SREM', KEYS[1], ARGV[k])
  changes[k - first + 1], any = change, any or change ~= 0
end
redis.pcall('PEXPIRE', KEYS[1], ttl)
if any then redis.pcall('SET', KEYS[2], ARGV[2] .. ' ' .. table.concat(changes, ' '), 'PX', ${answerMs}) end
return changes`

/**
 * Compares which groups have members with what the hooks of the application were told, and records the changes as told: of several
 * concurrent callers, one gets each change.
 * KEYS 1 set of the groups that are recorded as having members  2 the latest answer to this process, then the counts of each group
 * ARGV 1 safety TTL (ms)  2 name of this call, then each name
 * Returns 1 where a group has members now, -1 where it has none any more, 0 where nothing changed.
 */
export const settleGroups = new Script(`${luaInteger}
if #ARGV ~= #KEYS then error('expected ' .. #KEYS .. ' arguments, got ' .. #ARGV) end
local ttl, first, present = integer(1, 1), 3, {}${luaAnswered}
for k = first, #KEYS do present[k] = (tonumber(redis.call('HGET', KEYS[k], '#')) or 0) > 0 end
${luaRecord}
`)

/**
 * Does the same for users that have connections on living instances.
 * KEYS 1 set of the users that are recorded as online  2 the latest answer to this process  3 leases  4 instances, then the counts of each
 * user
 * ARGV 1 safety TTL (ms)  2 name of this call  3, 4 not used, so that each user id has the number of its key, then each user id
 */
export const settleUsers = new Script(`${luaInteger}
if #ARGV ~= #KEYS then error('expected ' .. #KEYS .. ' arguments, got ' .. #ARGV) end
local ttl, first, present = integer(1, 1), 5, {}${luaAnswered}${luaNow}
for k = first, #KEYS do
  local sum, counts = 0, redis.call('HGETALL', KEYS[k])
  for i = 1, #counts, 2 do
    local ends = redis.call('ZSCORE', KEYS[3], counts[i])
    if ends and tonumber(ends) > now and string.sub(redis.call('HGET', KEYS[4], counts[i]) or 'A', 1, 1) == 'A' then
      sum = sum + tonumber(counts[i + 1])
    end
  end
  present[k] = sum > 0
end
${luaRecord}
`)

interface Call {
  readonly kind: Presences
  readonly names: readonly string[]
  readonly id: string
}

/** Records which groups have members and which users are online, so that hooks are told each change once in the whole cluster. */
export class OccupancyStore {
  readonly #link: Link
  readonly #keys: Keys
  readonly #answerKey: string
  /** Changes that Redis has recorded and no call has returned yet, as those that found them failed later. */
  readonly #changes: Record<Presences, PresenceChange[]> = { group: [], user: [] }
  /** The call that failed: it is made again before all others, as Redis may have carried it out. */
  #failed: Call | undefined

  constructor (link: Link, keys: Keys) {
    this.#link = link
    this.#keys = keys
    this.#answerKey = keys.answer(drawId())
  }

  /** As `Backplane.settle`; one call at a time. What was found before a call failed comes with the next one. */
  async settle (kind: Presences, names: readonly string[] | undefined): Promise<readonly PresenceChange[]> {
    if (this.#failed !== undefined) await this.#settle(this.#failed)
    for await (const batch of names === undefined ? this.#told(kind) : chunks(names, batchSize)) {
      if (batch.length > 0) await this.#settle({ kind, names: batch, id: drawId() })
    }
    return this.#changes[kind].splice(0)
  }

  async #settle (call: Call): Promise<void> {
    const { kind, names } = call
    this.#failed = call
    const settled = await this.#ask(call)
    this.#failed = undefined
    names.forEach((name, index) => {
      const change = settled[index] ?? 0
      if (change !== 0) this.#changes[kind].push({ name, present: change > 0 })
    })
  }

  async #ask ({ kind, names, id }: Call): Promise<readonly number[]> {
    const { leases, instances } = this.#keys
    const told = this.#keys.told(kind)
    const counts = names.map(name => kind === 'group' ? this.#keys.counts(name) : this.#keys.user(name))
    return await mending(this.#link, () => [[told, 'SCARD'], [this.#answerKey, 'STRLEN'], ...hashes(counts)], async () => kind === 'group'
      ? await this.#link.script(settleGroups, [told, this.#answerKey, ...counts], [safetyTtlMs, id, ...names])
      : await this.#link.script(
        settleUsers, [told, this.#answerKey, leases, instances, ...counts], [safetyTtlMs, id, '', '', ...names]
      )) as number[]
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
