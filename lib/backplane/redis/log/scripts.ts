import { luaInteger, luaPermit, Script } from '../link/script.ts'

/**
 * Appends messages to a group's log and publishes them, in one step. A batch is stored whole or not at all, and a publisher has one batch under way per group,
 * so the sequence of its last message tells whether a batch that is sent again is in the log already.
 * KEYS 1 log meta  2 log  [3 idempotency record]
 * ARGV 1 channel  2 messages to keep  3 TTL of the log (ms)  4 TTL of the meta (ms)  5 epoch if the log is new (8 bytes)  6 publisher
 *      7 sequence of the last message  8 TTL of the idempotency record (ms), then nonce (4 bytes) and body of each
 * Returns {epoch, offset of the last message, nonce of the last message, 1 if it was there already by its key}.
 */
export const append = new Script(`${luaInteger}${luaPermit}
local keep, ttl, metaTtl, last, keyTtl = integer(2, 1), integer(3, 1), integer(4, 1), integer(7, 1), integer(8, 1)
if #ARGV < 10 or #ARGV % 2 == 1 then error('expected a nonce and a body of each message') end
for i = 9, #ARGV, 2 do
  if #ARGV[i] ~= 4 then error('argument ' .. i .. ' must be a nonce of 4 bytes') end
end
if #ARGV[5] ~= 8 then error('argument 5 must be an epoch of 8 bytes') end
local now = tonumber(redis.call('TIME')[1])
local publisher = 'p' .. ARGV[6]
local meta = redis.call('HMGET', KEYS[1], 'e', 's', 'n', publisher)
local epoch, offset, previous = meta[1], tonumber(meta[2] or '0'), meta[3] or '\\0\\0\\0\\0'
if epoch and meta[4] then
  -- Before the idempotency record: that may be of this very batch, whose reply was lost.
  local sequence, stored = struct.unpack('>I6I6', meta[4])
  if sequence >= last then return {epoch, stored, ARGV[#ARGV - 1], 0} end
end
if KEYS[3] then
  local known = redis.call('GET', KEYS[3])
  if known then return {string.sub(known, 1, 8), (struct.unpack('>I6', string.sub(known, 9, 14))), string.sub(known, 15, 18), 1} end
end
permit('PUBLISH', ARGV[1], '')
permit('RPUSH', KEYS[2], '')
permit('LTRIM', KEYS[2], 0, -1)
permit('HSET', KEYS[1], 'e', '')
permit('HDEL', KEYS[1], 'e')
permit('HGETALL', KEYS[1])
permit('PEXPIRE', KEYS[1], 1)
permit('DEL', KEYS[2])
if KEYS[3] then permit('SET', KEYS[3], '', 'PX', 1) end
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
if length > keep then redis.call('LTRIM', KEYS[2], -keep, -1) end
redis.call('HSET', KEYS[1], 'e', epoch, 's', offset, 'n', previous, publisher, struct.pack('>I6I6I6', last, offset, now))
redis.call('PEXPIRE', KEYS[2], ttl)
-- Now and then in a busy group; always in one where messages are rarer than the log's TTL, or where 16 of them may take longer than the meta lasts.
if offset % 16 < #messages or length == #messages or 16 * ttl > metaTtl then redis.call('PEXPIRE', KEYS[1], metaTtl) end
if offset % 256 < #messages then
  -- Publishers that are long gone: no retry of theirs can still be under way.
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 1) == 'p' and #fields[i + 1] == 18 then
      local _, _, at = struct.unpack('>I6I6I6', fields[i + 1])
      if at < now - 600 then redis.call('HDEL', KEYS[1], fields[i]) end
    end
  end
end
if KEYS[3] then redis.call('SET', KEYS[3], epoch .. struct.pack('>I6', offset) .. previous, 'PX', keyTtl) end
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
