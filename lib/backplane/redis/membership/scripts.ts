import { createHash } from 'node:crypto'

/** A Lua script with its hash; called by EVALSHA, and by EVAL when Redis forgot it. */
export class Script {
  readonly lua: string
  readonly sha: string

  constructor (lua: string) {
    this.lua = lua
    this.sha = createHash('sha1').update(lua).digest('hex')
  }
}

/** What lets keys of a cluster that died as a whole disappear; living instances refresh it long before. */
export const safetyTtlMs = 86_400_000

/**
 * Publishes copies of one envelope to several channels, with nothing of anyone else between them.
 * KEYS: none. ARGV: channel, bytes, channel, bytes, … Returns how many subscribers took the widest spread copy.
 */
export const publishShared = new Script(`
local most = 0
for i = 1, #ARGV, 2 do
  local taken = redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
  if taken > most then most = taken end
end
return most
`)

/**
 * Stores changes of the members that one instance has in some groups, and corrects the total of each group by the difference. Idempotent: what it leaves behind
 * depends on the members alone, not on how often or in which order it ran.
 * KEYS 1 index  2 generations, then members and counts of each group
 * ARGV 1 instance id  2 generation  3 safety TTL (ms), then of each group: its name, number of additions, number of removals, connection id and record of each addition,
 *      connection id of each removal
 * Returns -1 when a newer generation of this instance writes already, else 0.
 */
export const syncMembers = new Script(`
local newest = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
local mine = tonumber(ARGV[2])
if newest > mine then return -1 end
if newest < mine then redis.call('HSET', KEYS[2], ARGV[1], mine) end
local at, present, absent, extended = 4, {}, {}, false
for k = 3, #KEYS, 2 do
  local members, counts = KEYS[k], KEYS[k + 1]
  local group, additions, removals = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  at = at + 3
  if additions > 0 then redis.call('HSET', members, unpack(ARGV, at, at + 2 * additions - 1)) end
  at = at + 2 * additions
  if removals > 0 then redis.call('HDEL', members, unpack(ARGV, at, at + removals - 1)) end
  at = at + removals
  local now = redis.call('HLEN', members)
  local stored = redis.call('HMGET', counts, ARGV[1], '#')
  local before = tonumber(stored[1] or '0')
  local total = tonumber(stored[2] or '0') + now - before
  if now > 0 then
    present[#present + 1] = group
    if now ~= before then redis.call('HSET', counts, ARGV[1], now, '#', total) end
    if before == 0 or before == now then
      redis.call('PEXPIRE', members, ARGV[3])
      redis.call('PEXPIRE', counts, ARGV[3])
      extended = true
    end
  else
    absent[#absent + 1] = group
    if total > 0 then
      redis.call('HSET', counts, '#', total)
      redis.call('HDEL', counts, ARGV[1])
    else
      redis.call('DEL', counts)
    end
  end
end
if #present > 0 then redis.call('SADD', KEYS[1], unpack(present)) end
if #absent > 0 then redis.call('SREM', KEYS[1], unpack(absent)) end
if extended then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return 0
`)

/**
 * Renews an instance's lease, and claims for it the instances whose lease ran out. A claim is itself a lease: if the claimer
 * dies, the next beat of someone else hands the dead instance out again.
 * KEYS 1 leases  2 instances  3 generations
 * ARGV 1 instance id  2 generation  3 boot nonce  4 lease (ms)  5 claim (ms)  6 how many claims at most  7 safety TTL (ms)
 * Returns {status, then id and generation of each claim}; status 1 renewed, 2 registered (no record: first beat, or Redis lost its data),
 * 0 declared dead meanwhile, -1 another process has this id.
 */
export const beat = new Script(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local record, status = redis.call('HGET', KEYS[2], ARGV[1]), 2
if record then
  local state, generation, nonce = string.match(record, '^(%u)(%d+):(.*)$')
  if nonce ~= ARGV[3] then status = -1
  elseif tonumber(generation) == tonumber(ARGV[2]) then status = (state == 'A') and 1 or 0
  elseif tonumber(generation) > tonumber(ARGV[2]) then status = 0 end
end
if status > 0 then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[4]), ARGV[1])
  if status == 2 then
    redis.call('HSET', KEYS[2], ARGV[1], 'A' .. ARGV[2] .. ':' .. ARGV[3])
    -- Raised before anything is written, as there may be nothing to write: a late write of an older generation must not get in.
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
  end
  for k = 1, 3 do redis.call('PEXPIRE', KEYS[k], ARGV[7]) end
end
local out = {status}
if status <= 0 then return out end
local ended = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[6])
for i = 1, #ended do
  -- Without a record (evicted) there is nothing to fence with: whatever generation wrote the memberships, its lease is over.
  local state, generation, nonce = string.match(redis.call('HGET', KEYS[2], ended[i]) or 'F9007199254740991:', '^(%u)(%d+):(.*)$')
  if state == 'A' then redis.call('HSET', KEYS[2], ended[i], 'X' .. generation .. ':' .. nonce) end
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[5]), ended[i])
  out[#out + 1] = ended[i]
  out[#out + 1] = generation
end
return out
`)

/**
 * Removes memberships of a dead (or leaving) instance, some groups per call.
 * KEYS 1 its index  2 generations
 * ARGV 1 instance id  2 its generation  3 groups per call  4 start of key names
 * Returns {groups left, members removed, groups removed}; groups left is -1 when the instance came back with a newer generation.
 */
export const reap = new Script(`
local generation = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if generation > tonumber(ARGV[2]) then return {-1, 0, 0} end
local groups, removed = redis.call('SPOP', KEYS[1], ARGV[3]), 0
for i = 1, #groups do
  local counts = ARGV[4] .. 'r:' .. groups[i]
  local members = tonumber(redis.call('HGET', counts, ARGV[1]) or '0')
  if members > 0 then
    if redis.call('HINCRBY', counts, '#', -members) <= 0 then redis.call('DEL', counts) else redis.call('HDEL', counts, ARGV[1]) end
    removed = removed + members
  end
  redis.call('UNLINK', ARGV[4] .. 'm:' .. groups[i] .. ':' .. ARGV[1])
end
local left = redis.call('SCARD', KEYS[1])
if left == 0 then redis.call('HDEL', KEYS[2], ARGV[1]) end
return {left, removed, #groups}
`)

/**
 * A dead instance was reaped. The first time it is kept to be looked at once more, because a write it made before it noticed may still arrive; the second
 * time it is forgotten.
 * KEYS 1 leases  2 instances.  ARGV 1 dead instance's id  2 its generation  3 when to look again (ms)
 * Returns 0 it is not dead (any more), 1 look again later, 2 forgotten.
 */
export const markReaped = new Script(`
local record = redis.call('HGET', KEYS[2], ARGV[1])
if not record then redis.call('ZREM', KEYS[1], ARGV[1]) return 2 end
local state, generation, nonce = string.match(record, '^(%u)(%d+):(.*)$')
if state == 'A' or generation ~= ARGV[2] then return 0 end
if state == 'X' then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[2], ARGV[1], 'F' .. generation .. ':' .. nonce)
  redis.call('ZADD', KEYS[1], time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3]), ARGV[1])
  return 1
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 2
`)

/**
 * An instance leaves for good, its memberships are gone. When only reaped ones remain, nobody is left to forget them: they go too.
 * KEYS 1 leases  2 instances.  ARGV 1 instance id  2 boot nonce
 */
export const unregister = new Script(`
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

/**
 * Appends messages to a group's log and publishes them, in one step. A batch is stored whole or not at all, and a publisher has one batch under way per group,
 * so the sequence of its last message tells whether a batch that is sent again is in the log already.
 * KEYS 1 log meta  2 log  [3 idempotency record]
 * ARGV 1 channel  2 messages to keep  3 TTL of the log (ms)  4 TTL of the meta (ms)  5 epoch if the log is new (8 bytes)  6 publisher
 *      7 sequence of the last message  8 TTL of the idempotency record (ms), then nonce (4 bytes) and body of each
 * Returns {epoch, offset of the last message, nonce of the last message, 1 if it was there already by its key}.
 */
export const append = new Script(`
local publisher = 'p' .. ARGV[6]
local meta = redis.call('HMGET', KEYS[1], 'e', 's', 'n', publisher)
local epoch, offset, previous = meta[1], tonumber(meta[2] or '0'), meta[3] or '\\0\\0\\0\\0'
if epoch and meta[4] then
  -- Before the idempotency record: that may be of this very batch, whose reply was lost.
  local sequence, stored = struct.unpack('>I6I6', meta[4])
  if sequence >= tonumber(ARGV[7]) then return {epoch, stored, ARGV[#ARGV - 1], 0} end
end
if KEYS[3] then
  local known = redis.call('GET', KEYS[3])
  if known then return {string.sub(known, 1, 8), (struct.unpack('>I6', string.sub(known, 9, 14))), string.sub(known, 15, 18), 1} end
end
if not epoch then
  epoch, offset, previous = ARGV[5], 0, '\\0\\0\\0\\0'
  redis.call('DEL', KEYS[2])
end
local messages = {}
for i = 9, #ARGV, 2 do
  offset = offset + 1
  messages[#messages + 1] = '\\209\\1' .. epoch .. struct.pack('>I6', offset) .. ARGV[i] .. previous .. ARGV[i + 1]
  previous = ARGV[i]
end
local length = redis.call('RPUSH', KEYS[2], unpack(messages))
local keep, now = tonumber(ARGV[2]), tonumber(redis.call('TIME')[1])
if length > keep then redis.call('LTRIM', KEYS[2], -keep, -1) end
redis.call('HSET', KEYS[1], 'e', epoch, 's', offset, 'n', previous, publisher, struct.pack('>I6I6I6', tonumber(ARGV[7]), offset, now))
redis.call('PEXPIRE', KEYS[2], ARGV[3])
-- Now and then in a busy group; always in one where messages are rarer than the log's TTL, or where 16 of them may take longer than the meta lasts.
if offset % 16 < #messages or length == #messages or 16 * tonumber(ARGV[3]) > tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
if offset % 256 < #messages then
  -- Publishers that are long gone: no retry of theirs can still be under way.
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 1) == 'p' then
      local _, _, at = struct.unpack('>I6I6I6', fields[i + 1])
      if at < now - 600 then redis.call('HDEL', KEYS[1], fields[i]) end
    end
  end
end
if KEYS[3] then redis.call('SET', KEYS[3], epoch .. struct.pack('>I6', offset) .. previous, 'PX', ARGV[8]) end
for i = 1, #messages do redis.call('PUBLISH', ARGV[1], messages[i]) end
return {epoch, offset, previous, 0}
`)

/**
 * Reads where logs end.
 * KEYS the meta of each log. Returns epoch, last offset, last nonce of each, one after another; nulls where there is no log.
 */
export const readEnds = new Script(`
local tops = {}
for k = 1, #KEYS do
  local meta = redis.call('HMGET', KEYS[k], 'e', 's', 'n')
  tops[3 * k - 2], tops[3 * k - 1], tops[3 * k] = meta[1], meta[2], meta[3]
end
return tops
`)

/**
 * Reads a group's log after a position.
 * KEYS 1 log meta  2 log
 * ARGV 1 epoch ('' from the earliest kept, '$' the latest ones)  2 offset  3 nonce (4 bytes)  4 how many at most
 * Returns {status, epoch, last offset, last nonce, messages}; status 0 what follows the position, 2 another epoch, 4 trimmed (with 2 and 4: messages from the
 * earliest kept), 3 rewound (no messages), 5 there is no log.
 */
export const readLog = new Script(`
local meta = redis.call('HMGET', KEYS[1], 'e', 's', 'n')
-- Only a master may say that messages are lost: a replica may just not have them yet, and refuses this write, which changes nothing.
local function assertMaster () redis.call('HDEL', KEYS[1], '') end
if not meta[1] then
  if ARGV[1] ~= '' and ARGV[1] ~= '$' then assertMaster() end
  return {5}
end
local top, offset, length = tonumber(meta[2]), tonumber(ARGV[2]), redis.call('LLEN', KEYS[2])
local function rewound ()
  assertMaster()
  return {3, meta[1], top, meta[3], {}}
end
local first = top - length + 1
local status = 0
if ARGV[1] == '$' then offset = math.max(first - 1, top - tonumber(ARGV[4]))
elseif ARGV[1] == '' then
  offset = first - 1
  if first > 1 then status = 4 end
elseif meta[1] ~= ARGV[1] then
  assertMaster()
  offset = first - 1
  status = 2
elseif offset > top then return rewound()
elseif offset == top then
  if meta[3] ~= ARGV[3] then return rewound() end
  return {0, meta[1], top, meta[3], {}}
elseif offset + 1 < first then offset = first - 1; status = 4 end
local messages = redis.call('LRANGE', KEYS[2], offset + 1 - first, offset - first + tonumber(ARGV[4]))
if status == 0 and ARGV[1] ~= '' and ARGV[1] ~= '$' and offset > 0 and messages[1] and string.sub(messages[1], 21, 24) ~= ARGV[3] then return rewound() end
return {status, meta[1], top, meta[3], messages}
`)
