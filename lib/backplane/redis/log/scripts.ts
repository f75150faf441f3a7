import { luaInteger, Script } from '../link/script.ts'
import { luaDiffering } from './settings.ts'

/** How many messages make a log a long one: its meta outlives the messages for a week, that of a shorter one for half an hour. */
const longLog = 16
export const shortMetaMs = 1_800_000
const longMetaMs = 604_800_000
/** How long the larger settings of a process count after its last append (seconds). */
const settingsHoldS = 86_400
/** Publishers that appended nothing for so long are forgotten (seconds): no retry of theirs can still be under way. */
const publisherHoldS = 600

/**
 * Appends messages to the logs of some groups and publishes them there, and as volatile copies to further channels, in one step: nothing of
 * anyone else comes between the copies of a message. A batch is stored whole or not at all, and a publisher has one batch under way per
 * group, so the sequence of its last message tells whether a batch that is sent again is in the logs already. Of two settings of one log
 * the larger counts.
 * KEYS of each log: meta, list[, idempotency record]
 * ARGV 1 number of logs  2 number of further channels  3 publisher  4 TTL of the idempotency records (ms), 0 without a key
 *      5 1 if each message names its targets and places itself, 0 if all go everywhere
 *      6 names of the places of all messages, '' where copies do not carry them, then
 *      of each log: channel, target, settings (u32 messages to keep, u48 bytes to keep, u48 TTL in ms), epoch if the log is new
 *      (8 bytes), sequence of the last message to it
 *      of each further channel: channel, target
 *      of each message: nonce (4 bytes), prefix, rest[, u16 for each of its targets: which log or, after these, which channel,
 *      and names of its places]
 * Returns of each log: epoch, offset and nonce of the last message, 1 if it was there already by its key, and '' or two settings that
 * differ.
 */
export const append = new Script(`${luaInteger}
local call, pack, unpacked, sub = redis.call, struct.pack, struct.unpack, string.sub
local count, others, keyTtl, mixed = integer(1, 1), integer(2, 0), integer(4, 0), integer(5, 0) == 1
local keyed = keyTtl > 0
local perLog, perMessage = keyed and 3 or 2, mixed and 5 or 3
local further = 7 + 5 * count
local start = further + 2 * others
local messages = (#ARGV + 1 - start) / perMessage
if messages < 1 or messages % 1 ~= 0 or (keyed and messages > 1) then error('expected ' .. perMessage .. ' arguments of each message') end
if #KEYS ~= perLog * count then error('expected ' .. perLog .. ' keys of each log') end
local everywhere, targets = {}, {}
for t = 1, count + others do everywhere[t] = t end
for m = 1, messages do
  local at = start + perMessage * (m - 1)
  if #ARGV[at] ~= 4 then error('argument ' .. at .. ' must be a nonce of 4 bytes') end
  targets[m] = everywhere
  if mixed then
    local own, packed = {}, ARGV[at + 3]
    if #packed < 2 or #packed % 2 == 1 then error('argument ' .. at + 3 .. ' must be numbers of targets') end
    for i = 1, #packed / 2 do
      own[i] = unpacked('>I2', packed, 2 * i - 1)
      if own[i] < 1 or own[i] > count + others then error('argument ' .. at + 3 .. ' must be numbers of targets') end
    end
    targets[m] = own
  end
end
local now, publisher = tonumber(call('TIME')[1]), 'p' .. ARGV[3]

local logs, fresh, stored = {}, {}, false
for g = 1, count do
  local at, key = 7 + 5 * (g - 1), perLog * (g - 1)
  local last = integer(at + 4, 1)
  local mine = ARGV[at + 2]
  if #mine ~= 16 then error('argument ' .. at + 2 .. ' must be settings of 16 bytes') end
  if #ARGV[at + 3] ~= 8 then error('argument ' .. at + 3 .. ' must be an epoch of 8 bytes') end
  local keep, most, ttl = unpacked('>I4I6I6', mine)
  if keep < 1 or most < 1 or ttl < 1 then error('settings must not be 0') end
  local meta = call('HMGET', KEYS[key + 1], 'e', 's', 'n', 'b', 'g', 'c', 'd', publisher)
  local used, settings, smaller = meta[6]
  if not used or #used ~= 22 then
    settings = mine
  else
    local seen = unpacked('>I6', used, 17)
    if sub(used, 1, 16) == mine then
      if now - seen >= 60 then settings = mine end
    elseif now - seen > ${settingsHoldS} then
      settings = mine
    else
      local k, m, t = unpacked('>I4I6I6', used)
      if keep >= k and most >= m and ttl >= t then
        settings = mine
      else
        keep, most, ttl, smaller = math.max(keep, k), math.max(most, m), math.max(ttl, t), mine
        local merged = pack('>I4I6I6', keep, most, ttl)
        if merged ~= sub(used, 1, 16) then settings = merged end
      end
    end
  end
  if smaller then smaller = smaller .. pack('>I6', now) end
  -- Somebody would keep less: those with the larger settings learn it, too.
  local other = smaller or meta[7]
  local differ = ''
  if other and #other == 22 and now - unpacked('>I6', other, 17) <= 600 then
    differ = pack('>I4I6I6', keep, most, ttl) .. sub(other, 1, 16)
  end
  local epoch, offset, nonce, record, there = meta[1], tonumber(meta[2]) or 0, meta[3], meta[8]
  if not epoch then
    offset, nonce = 0, '\\0\\0\\0\\0'
  elseif record and #record == 18 then
    local sequence, at = unpacked('>I6I6', record)
    if sequence >= last then there, stored = at, true end
  end
  local known = keyed and call('GET', KEYS[key + 3])
  local log = {
    at = at, key = key, new = not epoch, epoch = epoch or ARGV[at + 3], offset = offset, nonce = nonce, size = tonumber(meta[4]),
    largest = tonumber(meta[5]) or 0,
    keep = keep, most = most, ttl = ttl, settings = settings,
    smaller = smaller, differ = differ, unheard = not record, stored = there, known = known, last = last, batch = {}, added = 0, sent = 0
  }
  if not known then fresh[#fresh + 1] = log end
  logs[g] = log
end

local function reply ()
  local out = {}
  for g = 1, count do
    local log, at = logs[g], 5 * (g - 1)
    if log.known and not log.stored then
      out[at + 1], out[at + 2], out[at + 3], out[at + 4] = sub(log.known, 1, 8), (unpacked('>I6', log.known, 9)), sub(log.known, 15, 18), 1
    else
      out[at + 1], out[at + 2], out[at + 3], out[at + 4] = log.epoch, log.stored or log.offset, log.nonce, 0
    end
    out[at + 5] = log.differ
  end
  return out
end
-- Before the idempotency records: they may be of this very batch, whose reply was lost.
if stored or #fresh == 0 then return reply() end

-- The right to publish is asked for at each call, the others at the first of a publisher. Redis older than 7.0 cannot tell.
local permitted = redis.acl_check_cmd
local function permit (...)
  if not permitted(...) then error('NOPERM this user may not run ' .. table.concat({...}, ' ', 1, 2)) end
end
if permitted then
  for g = 1, #fresh do
    local log = fresh[g]
    local meta, list = KEYS[log.key + 1], KEYS[log.key + 2]
    permit('PUBLISH', ARGV[log.at], '')
    if log.unheard then
      permit('HSET', meta, '', '')
      permit('PEXPIRE', meta, 1)
      permit('HGETALL', meta)
      permit('HDEL', meta, '')
      permit('PEXPIRE', list, 1)
      permit('LPOP', list, 1)
      permit('LTRIM', list, 0, -1)
      permit('LRANGE', list, 0, -1)
      if keyed then permit('SET', KEYS[log.key + 3], '', 'PX', 1) end
    end
  end
  for i = further, start - 1, 2 do permit('PUBLISH', ARGV[i], '') end
end

local places = {}
for m = 1, messages do
  local at, own = start + perMessage * (m - 1), targets[m]
  local names = mixed and ARGV[at + 4] or ARGV[6]
  if names ~= '' then
    local offsets = {names}
    for i = 1, #own do
      local log = logs[own[i]]
      if log then offsets[#offsets + 1] = log.epoch .. pack('>I6', log.known and 0 or log.offset + #log.batch + 1) end
    end
    names = table.concat(offsets)
  end
  places[m] = names
  for i = 1, #own do
    local log = logs[own[i]]
    if log and not log.known then
      local batch = log.batch
      local n = #batch + 1
      local message = '\\209\\1' .. log.epoch .. pack('>I6', log.offset + n) .. ARGV[at] .. log.nonce .. ARGV[at + 1] .. ARGV[log.at + 1] ..
        names .. ARGV[at + 2]
      batch[n], log.nonce, log.added = message, ARGV[at], log.added + #message
    end
  end
end

-- The first write is one that a full Redis refuses.
for g = 1, #fresh do
  local log = fresh[g]
  local meta, list, batch, added, nonce = KEYS[log.key + 1], KEYS[log.key + 2], log.batch, log.added, log.nonce
  local messages = #batch
  local offset = log.offset
  local length, size = call('RPUSH', list, unpack(batch)), log.size
  if log.new and length > messages then
    call('LTRIM', list, -messages, -1)
    length = messages
  end
  offset = offset + messages
  local largest = log.largest
  for i = 1, messages do largest = math.max(largest, #batch[i]) end
  if largest > log.largest then call('HSET', meta, 'g', largest) end
  -- As many messages of the largest size that was seen may fit: then their number is all that has to be limited. Else the size of all is
  -- known from here on.
  if not size and largest * log.keep <= log.most then
    if length > log.keep then
      call('LTRIM', list, -log.keep, -1)
      length = log.keep
    end
  else
    if length > messages and added >= log.most then
      -- None of the older ones stays: no need to look at them.
      call('LTRIM', list, -messages, -1)
      length = messages
    end
    if length == messages then
      size = added
    elseif size then
      size = size + added
    else
      size = 0
      for _, message in ipairs(call('LRANGE', list, 0, -1)) do size = size + #message end
    end
    -- At least the latest message stays.
    while length > log.keep or (size > log.most and length > 1) do
      size, length = size - #(call('LPOP', list) or ''), length - 1
    end
    call('HSET', meta, 'b', size)
  end
  call('HSET', meta, 's', offset, 'n', nonce, publisher, pack('>I6I6I6', log.last, offset, now))
  if log.new then call('HSET', meta, 'e', log.epoch) end
  if log.settings then call('HSET', meta, 'c', log.settings .. pack('>I6', now)) end
  if log.smaller then call('HSET', meta, 'd', log.smaller) end
  call('PEXPIRE', list, log.ttl)
  -- Without the meta the next message would look like a loss. In a busy log its end is put off now and then; always in one where messages
  -- are rarer than the log's TTL, or where 16 of them may take longer than the meta lasts.
  local metaTtl = math.max(${longMetaMs}, 2 * log.ttl)
  if offset < ${longLog} then metaTtl = log.ttl + ${shortMetaMs} end
  if offset < ${longLog} + messages or offset % 16 < messages or length == messages or 16 * log.ttl > metaTtl then
    call('PEXPIRE', meta, metaTtl)
  end
  if offset % 256 < messages then
    local fields = call('HGETALL', meta)
    for i = 1, #fields, 2 do
      if sub(fields[i], 1, 1) == 'p' and #fields[i + 1] == 18 and unpacked('>I6', fields[i + 1], 13) < now - ${publisherHoldS} then
        call('HDEL', meta, fields[i])
      end
    end
  end
  if keyed then call('SET', KEYS[log.key + 3], log.epoch .. pack('>I6', offset) .. nonce, 'PX', keyTtl) end
  log.offset = offset
end
for m = 1, messages do
  local at, own = start + perMessage * (m - 1), targets[m]
  for i = 1, #own do
    local log = logs[own[i]]
    if not log then
      local channel = further + 2 * (own[i] - count - 1)
      call('PUBLISH', ARGV[channel], '\\209\\1' .. string.rep('\\0', 22) .. ARGV[at + 1] .. ARGV[channel + 1] .. places[m] .. ARGV[at + 2])
    elseif not log.known then
      log.sent = log.sent + 1
      call('PUBLISH', ARGV[log.at], log.batch[log.sent])
    end
  end
end
return reply()
`)

/**
 * Reads where logs end.
 * KEYS the meta of each log.  ARGV 1 how long the metas are kept at least (ms), 0 to leave them as they are
 * Returns epoch, last offset and last nonce of each, and '' or two settings that differ; nulls where there is no log.
 */
export const readEnds = new Script(`${luaInteger}${luaDiffering}
local keep, ends = integer(1, 0), {}
for k = 1, #KEYS do
  local meta = redis.call('HMGET', KEYS[k], 'e', 's', 'n', 'c', 'd')
  for i = 1, 3 do ends[4 * k - 4 + i] = meta[i] end
  ends[4 * k] = differing(meta[4], meta[5])
  if keep > 0 and meta[1] and redis.call('PTTL', KEYS[k]) < keep / 2 then redis.call('PEXPIRE', KEYS[k], keep) end
end
return ends
`)
