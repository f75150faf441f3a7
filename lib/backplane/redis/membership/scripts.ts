import { luaInteger, luaNow, luaReadInteger, Script } from '../link/script.ts'

/** TTL of the keys of memberships (milliseconds), so that they go when all instances died; living ones refresh it long before. */
export const safetyTtlMs = 86_400_000

/**
 * Lua: takes an instance out of the counts of a group, in which `total` members are left. The sum and its own count change together: if
 * what follows is refused, a repetition subtracts nothing again.
 */
export function luaUncount (counts: string, id: string): string {
  return `if total <= 0 then redis.call('DEL', ${counts})
    else
      redis.call('HSET', ${counts}, ${id}, 0, '#', total)
      redis.call('HDEL', ${counts}, ${id})
    end`
}

/**
 * Lua: runs a command that a full Redis may refuse: then `refused` is its error, for the script to return once it has removed what it
 * should remove. Any other error ends the script.
 */
export function luaAdd (words: string): string {
  return `local reply = redis.pcall(${words})
    refused = type(reply) == 'table' and reply
    if refused and not string.find(refused.err, 'OOM', 1, true) then return refused end`
}

/**
 * Stores changes of the members that one instance has in some groups, and corrects the total of each group by the difference. Idempotent:
 * what it leaves behind depends on the members alone, not on how often or in which order it ran. A full Redis takes no additions, which
 * the call then fails with; removals are made all the same. Where entries were lost, and before it writes a key anew, of which others may
 * have lost entries, it changes the mark that audit.ts watches (an empty id in `generations`): the reply may not arrive.
 * KEYS 1 index  2 generations, then members and counts of each group; those with additions come first, as a full Redis may refuse the first
 *      write of a script, but none after it
 * ARGV 1 instance id  2 generation  3 safety TTL (ms), then of each group:
 *      its name, number of additions, number of removals, connection id and record of each addition,
 *      connection id of each removal
 * Returns -1 when this instance may not write: a newer generation of it does, or Redis knows none, because others cleaned up after it or
 * the data was lost; else 0, or the numbers (from 1) of the groups of which entries of this instance were lost.
 */
export const syncMembers = new Script(`
local call, keys, args, toNumber = redis.call, KEYS, ARGV, tonumber
${luaReadInteger('mine', '2', '1')}
${luaReadInteger('ttl', '3', '1')}
local last = 3
for _ = 3, #keys, 2 do
  ${luaReadInteger('additions', 'last + 2', '0')}
  ${luaReadInteger('removals', 'last + 3', '0')}
  last = last + 3 + 2 * additions + removals
end
if last ~= #args then error('expected ' .. last .. ' arguments, got ' .. #args) end
local me, newest = args[1], toNumber(call('HGET', keys[2], args[1]) or '0')
if newest == 0 or newest > mine then return -1 end
if newest < mine then call('HSET', keys[2], me, mine) end
local at, present, absent, losses, extended, anew, refused = 4, {}, {}, {}, false, false, false
-- Redis writes numbers out slowly: what it is given often goes as a string.
local decimal = string.format
ttl = args[3]
for k = 3, #keys, 2 do
  local members, counts = keys[k], keys[k + 1]
  local group, additions, removals, changed = args[at], toNumber(args[at + 1]), toNumber(args[at + 2]), 0
  at = at + 3
  if additions > 0 and not refused then
    ${luaAdd("'HSET', members, unpack(args, at, at + 2 * additions - 1)")}
    if not refused then changed = reply end
  end
  at = at + 2 * additions
  if removals > 0 then changed = changed - call('HDEL', members, unpack(args, at, at + removals - 1)) end
  at = at + removals
  local now = call('HLEN', members)
  local stored = call('HMGET', counts, me, '#')
  local before = toNumber(stored[1]) or 0
  local total, lost = (toNumber(stored[2]) or 0) + now - before, now ~= before + changed
  -- Otherwise nothing of this group was changed.
  if not refused or removals > 0 then
    if not anew and (lost or now > 0 and not stored[2]) then
      anew = true
      -- A full Redis may refuse the first write of a script.
      if now == 0 then call('HDEL', members, '') end
      call('HINCRBY', keys[2], '', '1')
    end
    if lost then losses[#losses + 1] = (k - 1) / 2 end
    if now > 0 then
      present[#present + 1] = group
      if now ~= before then call('HSET', counts, me, decimal('%d', now), '#', decimal('%d', total)) end
      if lost or before == 0 or before == now then
        call('PEXPIRE', members, ttl)
        call('PEXPIRE', counts, ttl)
        extended = true
      end
    else
      absent[#absent + 1] = group
      ${luaUncount('counts', 'me')}
    end
  end
end
if #present > 0 then call('SADD', keys[1], unpack(present)) end
if #absent > 0 then
  call('SREM', keys[1], unpack(absent))
  -- The mark that audit.ts sets goes with the last group.
  if call('SCARD', keys[1]) == 1 then call('SREM', keys[1], '') end
end
if extended then call('PEXPIRE', keys[1], ttl) end
return refused or #losses > 0 and losses or 0
`)

/** An instance expects the leases of others to be at most this many times as long as its own. */
const longestLeases = 4
/** Leases up to this long are expected in any case (milliseconds): reaped instances hold one of a minute. */
const longestMs = 90_000

/** Lua: `add` claims an instance whose lease is over, for `claim` milliseconds from `now` on, and adds id and generation to `out`. */
const luaClaim = `
local function add (id)
  -- Without a record (evicted) the generation is unknown: whichever wrote the memberships, its lease is over.
  local state, generation, nonce = string.match(redis.call('HGET', KEYS[2], id) or '', '^(%u)(%d+):(.*)$')
  if not state then generation = '9007199254740991' end
  -- Begins with a write that needs no memory, and that changes nothing: a full Redis may refuse the first write of a script, but none
  -- after it.
  redis.call('ZREM', KEYS[1], '')
  if state == 'A' then redis.call('HSET', KEYS[2], id, 'X' .. generation .. ':' .. nonce) end
  redis.call('ZADD', KEYS[1], now + claim, id)
  out[#out + 1] = id
  out[#out + 1] = generation
end`

/**
 * Renews an instance's lease, and claims for it the instances whose lease ran out. A claim is itself a lease: if the claimer
 * dies, the next beat of someone else hands the dead instance out again.
 * KEYS 1 leases  2 instances  3 generations
 * ARGV 1 instance id  2 generation  3 boot nonce  4 lease (ms)  5 claim (ms)  6 how many claims at most  7 safety TTL (ms)
 *      8 the time that the instance expects (ms), 0 if it cannot tell
 * Returns {status, the time (ms), then id and generation of each claim}; status 1 renewed, 2 registered (no record: first beat, or Redis
 * lost its data), 0 declared dead meanwhile, -1 another process has this id.
 */
export const beat = new Script(`${luaInteger}
if #ARGV ~= 8 then error('expected 8 arguments, got ' .. #ARGV) end
local mine, lease, claim, most = integer(2, 1), integer(4, 1), integer(5, 1), integer(6, 0)
integer(7, 1)
local expected = integer(8, 0)${luaNow}
local record, status = redis.call('HGET', KEYS[2], ARGV[1]), 2
if record then
  local state, generation, nonce = string.match(record, '^(%u)(%d+):(.*)$')
  if nonce ~= ARGV[3] then status = -1
  elseif tonumber(generation) == mine then status = (state == 'A') and 1 or 0
  elseif tonumber(generation) > mine then status = 0 end
end
local function extend () for k = 1, 3 do redis.call('PEXPIRE', KEYS[k], ARGV[7]) end end
-- A renewal begins with a write that needs no memory: a full Redis may refuse the first write of a script, but none after it.
if status == 1 then extend() end
if status > 0 then
  redis.call('ZADD', KEYS[1], now + lease, ARGV[1])
  if status == 2 then
    redis.call('HSET', KEYS[2], ARGV[1], 'A' .. ARGV[2] .. ':' .. ARGV[3])
  end
  -- Raised here, not with the first membership, as there may be none: a late write of an older generation must not get in. Without a
  -- generation nothing may be written at all.
  if status == 2 or not redis.call('HGET', KEYS[3], ARGV[1]) then
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
    -- If the mark that audit.ts watches was lost, too, it goes on with a number that it never had.
    redis.call('HINCRBY', KEYS[3], '', now)
  end
  if status == 2 then extend() end
end
local out = {status, now}
if status <= 0 then return out end${luaClaim}
-- After the clock went back, leases of the dead would last until it is where it was: cut down those that no instance can have.
if status == 2 or expected - now > lease then
  local far = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now + math.max(${longestMs}, ${longestLeases} * lease), '+inf')
  for i = 1, #far do redis.call('ZADD', KEYS[1], now + lease, far[i]) end
end
-- A clock that went ahead ends all leases at once: claim nobody until the living have renewed theirs.
if expected > 0 and now - expected > lease then most = 0 end
local ended = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, most)
for i = 1, #ended do add(ended[i]) end
return out
`)

/**
 * Claims instances that are known to be dead as soon as their leases in this partition are over. For a caller without a lease in it.
 * KEYS 1 leases  2 instances.  ARGV 1 claim (ms), then ids
 * Returns {how many of them are still known here, then id and generation of each claim}.
 */
export const claimDead = new Script(`${luaInteger}
local claim, out = integer(1, 1), {0}${luaNow}${luaClaim}
for i = 2, #ARGV do
  local till = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if till then
    out[1] = out[1] + 1
    if tonumber(till) <= now then add(ARGV[i]) end
  end
end
return out
`)

/**
 * Removes memberships of a dead (or leaving) instance in some of its groups.
 * KEYS 1 its index  2 generations, then counts and members of each group
 * ARGV 1 instance id  2 its generation, then the name of each group
 * Returns {groups left, members removed, groups removed, 1 if the mark of a whole index was there}; groups left is -1 when the instance
 * came back with a newer generation.
 */
export const reap = new Script(`${luaInteger}
if 2 * (#ARGV - 1) ~= #KEYS then error('expected ' .. #KEYS / 2 + 1 .. ' arguments, got ' .. #ARGV) end
local mine = integer(2, 0)
local generation = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if generation > mine then return {-1, 0, 0} end
local whole, removed, groups = redis.call('SREM', KEYS[1], ''), 0, 0
for k = 3, #KEYS, 2 do
  local counts = KEYS[k]
  local stored = redis.call('HMGET', counts, ARGV[1], '#')
  if stored[1] then
    local members = tonumber(stored[1]) or 0
    local total = (tonumber(stored[2]) or 0) - members
    ${luaUncount('counts', 'ARGV[1]')}
    removed = removed + members
  end
  redis.call('UNLINK', KEYS[k + 1])
end
if #KEYS > 2 then groups = redis.call('SREM', KEYS[1], unpack(ARGV, 3)) end
local left = redis.call('SCARD', KEYS[1])
if left == 0 then
  redis.call('HDEL', KEYS[2], ARGV[1])
  -- The mark that audit.ts watches goes with the last instance.
  if redis.call('HLEN', KEYS[2]) == 1 then redis.call('HDEL', KEYS[2], '') end
end
return {left, removed, groups, whole}
`)

/**
 * Notes that a dead instance was reaped. The first time it is kept to be reaped once more, because a write of its last moments may still
 * arrive; the second time it is forgotten.
 * KEYS 1 leases  2 instances.  ARGV 1 dead instance's id  2 its generation  3 when to look again (ms)
 * Returns 0 when the instance is not dead (any longer), 1 to look again later, 2 when it is forgotten, 3 when its
 * record was lost.
 */
export const markReaped = new Script(`${luaInteger}
if #ARGV ~= 3 then error('expected 3 arguments, got ' .. #ARGV) end
local again = integer(3, 1)${luaNow}
local record = redis.call('HGET', KEYS[2], ARGV[1])
if not record then redis.call('ZREM', KEYS[1], ARGV[1]) return 3 end
local state, generation, nonce = string.match(record, '^(%u)(%d+):(.*)$')
if state == 'A' or generation ~= ARGV[2] then return 0 end
if state == 'X' then
  -- As in a claim.
  redis.call('ZREM', KEYS[1], '')
  redis.call('HSET', KEYS[2], ARGV[1], 'F' .. generation .. ':' .. nonce)
  redis.call('ZADD', KEYS[1], now + again, ARGV[1])
  return 1
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 2
`)

/**
 * Removes an instance that leaves for good, after its memberships. If only reaped instances remain, they go too: nobody is left to do that.
 * KEYS 1 leases  2 instances.  ARGV 1 instance id  2 boot nonce
 * Returns 1 if no instance is left, else 0.
 */
export const unregister = new Script(`
if #ARGV ~= 2 then error('expected 2 arguments, got ' .. #ARGV) end
local record = redis.call('HGET', KEYS[2], ARGV[1])
if record and string.match(record, ':(.*)$') == ARGV[2] then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
end
local records = redis.call('HVALS', KEYS[2])
for i = 1, #records do
  if string.sub(records[i], 1, 1) ~= 'F' then return 0 end
end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
`)
