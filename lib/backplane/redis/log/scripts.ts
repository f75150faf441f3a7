import { luaPlaceHead } from '../envelope-extensions.ts'
import { luaInteger, luaPermit, luaPermitPublish, Script } from '../link/script.ts'
import { longLog, longMetaMs, luaFindResent, luaHead, luaPermitWrites, luaSettle, luaStore } from './append-lua.ts'
import { luaFindEnd } from './find-end.ts'
import { luaDiffering } from './settings.ts'

/** How long an idempotency key is remembered. */
export const idempotencyMs = 300_000

/**
 * Appends messages to the log of one group and publishes them there, in one step. Does the same as `append` at less cost, because by far
 * the most messages go to one group.
 * KEYS 1 meta  2 list[  3 idempotency record of the only message]
 * ARGV 1 publisher  2 channel  3 settings (u32 messages to keep, u48 bytes to keep, u48 TTL in ms), epoch if the log is new (8 bytes),
 *      u48 sequence of the last message, u48 bytes of all messages, u48 bytes of the largest
 *      4 nonces (4 bytes each), then of each message: what follows the header of a log
 * Returns as `append`.
 */
export const appendToOne = new Script(`${luaHead}
local count, nonces, key = #ARGV - 4, ARGV[4], KEYS[3]
if #KEYS < 2 or #KEYS > 3 or count < 1 then error('expected 2 or 3 keys, and 5 arguments or more') end
if #ARGV[3] ~= 42 then error('argument 3 must be settings, an epoch and three numbers, of 42 bytes') end
if key and count > 1 then error('expected one message with a record') end
if #nonces ~= 4 * count then error('argument 4 must be a nonce of 4 bytes for each message') end
local fresh, last, added, widest = unpacked('>c8I6I6I6', ARGV[3], 17)
if last < 1 or widest < 1 or added < widest then error('argument 3 must have a sequence and bytes from 1') end
local meta, list, channel, publisher, mine = KEYS[1], KEYS[2], ARGV[2], 'p' .. ARGV[1], sub(ARGV[3], 1, 16)
local now = tonumber(call('TIME')[1])
local fields = call('HMGET', meta, 'e', 's', 'n', 'b', 'g', 'c', 'd', publisher)
local epoch, offset, nonce, used, earlier, sent = fields[1], tonumber(fields[2]) or 0, fields[3], fields[6], fields[7], fields[8]
${luaSettle}
${luaFindEnd('list')}
${luaFindResent('meta', 'list', 'own = sub(nonces, -4)')}
-- Checked before the idempotency record, which may be of this very message if its reply was lost.
if there then return {epoch, there, nonce, 0, differ, 0} end
if key then
  local known = call('GET', key)
  if known then return {sub(known, 1, 8), (unpacked('>I6', known, 9)), sub(known, 15, 18), 1, differ, 0} end
end
local new
if not epoch then epoch, new, offset, nonce = fresh, fresh, 0, '\\0\\0\\0\\0' end
if redis.acl_check_cmd then
  ${luaPermitPublish('channel')}
  if key and not redis.acl_check_cmd('SET', key, '') then error('NOPERM this user may not run SET ' .. key) end
  if not sent then
    ${luaPermit}
    ${luaPermitWrites}
  end
end
local header, batch, size, largest = '\\209\\1' .. epoch, {}, tonumber(fields[4]), tonumber(fields[5]) or 0
local before = nonce
for n = 1, count do
  local own = sub(nonces, 4 * n - 3, 4 * n)
  batch[n] = header .. pack('>I6', offset + n) .. own .. nonce .. ARGV[n + 4]
  nonce = own
end
${luaStore}
if key then call('SET', key, epoch .. pack('>I6', offset) .. nonce, 'PX', '${idempotencyMs}') end
for n = 1, count do call('PUBLISH', channel, batch[n]) end
return {epoch, offset, nonce, 0, differ, length}
`)

/** Leaves the nonce of the last message to log `g` of a call of `append` in `own`. */
const luaFindLastNonce = `for m = 1, messages do
      for i = 1, #targets[m] do
        if targets[m][i] == g then own = sub(ARGV[start + perMessage * (m - 1)], 1, 4) end
      end
    end`

/**
 * Appends messages to the logs of some groups and publishes them there, and as volatile copies to further channels, in one step: no message
 * of anyone else comes between the copies. A batch is stored whole or not at all, and a publisher has one batch under way per group, so the
 * sequence of its last message tells whether a batch that is sent again is in the logs already. Of different settings for one log the
 * larger count.
 * KEYS of each log: meta, list[, idempotency record]
 * ARGV 1 number of logs  2 number of further channels  3 publisher  4 TTL of the idempotency records (ms), 0 without a key
 *      5 1 if each message names its targets and places itself, 0 if all go everywhere
 *      6 names of the places of all messages, '' where copies do not carry them, then
 *      of each log: channel, target, settings (u32 messages to keep, u48 bytes to keep, u48 TTL in ms), epoch if the log is new
 *      (8 bytes), sequence of the last message to it
 *      of each further channel: channel, target
 *      of each message: nonce (4 bytes; where the message has names of places, followed by the u16 number of its `except` entries),
 *      prefix, rest[, u16 for each of its targets: which log or, after these, which channel, and names of its places]
 * Returns for each log: epoch, offset and nonce of the last message, 1 if the log had a message with this key already, '' or two settings
 * that differ, and how many messages the log holds now, 0 if this call stored nothing there.
 */
export const append = new Script(`${luaHead}${luaInteger}${luaPermit}
local logCount, others, keyTtl, mixed = integer(1, 1), integer(2, 0), integer(4, 0), integer(5, 0) == 1
local keyed = keyTtl > 0
local perLog, perMessage = keyed and 3 or 2, mixed and 5 or 3
local further = 7 + 5 * logCount
local start = further + 2 * others
local messages = (#ARGV + 1 - start) / perMessage
if messages < 1 or messages % 1 ~= 0 or (keyed and messages > 1) then error('expected ' .. perMessage .. ' arguments of each message') end
if #KEYS ~= perLog * logCount then error('expected ' .. perLog .. ' keys of each log') end
local everywhere, targets = {}, {}
for t = 1, logCount + others do everywhere[t] = t end
for m = 1, messages do
  local at = start + perMessage * (m - 1)
  local named = (mixed and ARGV[at + 4] or ARGV[6]) ~= ''
  if #ARGV[at] ~= (named and 6 or 4) then error('argument ' .. at .. ' must be a nonce of 4 bytes, with a number where there are names') end
  targets[m] = everywhere
  if mixed then
    local own, packed = {}, ARGV[at + 3]
    if #packed < 2 or #packed % 2 == 1 then error('argument ' .. at + 3 .. ' must be numbers of targets') end
    for i = 1, #packed / 2 do
      own[i] = unpacked('>I2', packed, 2 * i - 1)
      if own[i] < 1 or own[i] > logCount + others then error('argument ' .. at + 3 .. ' must be numbers of targets') end
    end
    targets[m] = own
  end
end
local now, publisher = tonumber(call('TIME')[1]), 'p' .. ARGV[3]

local logs, fresh, stored = {}, {}, false
for g = 1, logCount do
  local at, key = 7 + 5 * (g - 1), perLog * (g - 1)
  local last = integer(at + 4, 1)
  local mine = ARGV[at + 2]
  if #mine ~= 16 then error('argument ' .. at + 2 .. ' must be settings of 16 bytes') end
  if #ARGV[at + 3] ~= 8 then error('argument ' .. at + 3 .. ' must be an epoch of 8 bytes') end
  local meta = call('HMGET', KEYS[key + 1], 'e', 's', 'n', 'b', 'g', 'c', 'd', publisher)
  local used, earlier = meta[6], meta[7]
  ${luaSettle}
  local epoch, offset, nonce, sent = meta[1], tonumber(meta[2]) or 0, meta[3], meta[8]
  ${luaFindEnd('KEYS[key + 2]')}
  ${luaFindResent('KEYS[key + 1]', 'KEYS[key + 2]', luaFindLastNonce)}
  if there then stored = true end
  if not epoch then offset, nonce = 0, '\\0\\0\\0\\0' end
  local known = keyed and call('GET', KEYS[key + 3])
  local log = {
    at = at, key = key, new = not epoch, epoch = epoch or ARGV[at + 3], offset = offset, nonce = nonce, size = tonumber(meta[4]),
    largest = tonumber(meta[5]) or 0,
    keep = keep, most = most, ttl = ttl, settings = settings, before = nonce,
    smaller = smaller, differ = differ, sent = sent, tail = tail, stored = there, known = known, last = last,
    batch = {}, added = 0, widest = 0, published = 0
  }
  -- Fails here if the key holds no list: a failure of the write would come when earlier logs have the message already.
  if logCount > 1 then call('LRANGE', KEYS[key + 2], 1, 0) end
  if not known then fresh[#fresh + 1] = log end
  logs[g] = log
end

local function reply ()
  local out = {}
  for g = 1, logCount do
    local log, at = logs[g], 6 * (g - 1)
    if log.known and not log.stored then
      out[at + 1], out[at + 2], out[at + 3], out[at + 4] = sub(log.known, 1, 8), (unpacked('>I6', log.known, 9)), sub(log.known, 15, 18), 1
    else
      out[at + 1], out[at + 2], out[at + 3], out[at + 4] = log.epoch, log.stored or log.offset, log.nonce, 0
    end
    out[at + 5], out[at + 6] = log.differ, log.length or 0
  end
  return out
end
-- Checked before the idempotency records, which may be of this very batch if its reply was lost.
if stored or #fresh == 0 then return reply() end

if permitted then
  for g = 1, #fresh do
    local log = fresh[g]
    local meta, list = KEYS[log.key + 1], KEYS[log.key + 2]
    permit('PUBLISH', ARGV[log.at], '')
    if keyed then permit('SET', KEYS[log.key + 3], '') end
    if not log.sent then
      ${luaPermitWrites}
    end
  end
  for i = further, start - 1, 2 do permit('PUBLISH', ARGV[i], '') end
end

local places = {}
for m = 1, messages do
  local at, own = start + perMessage * (m - 1), targets[m]
  local names, freshNonce = mixed and ARGV[at + 4] or ARGV[6], sub(ARGV[at], 1, 4)
  if names ~= '' then
    local offsets = {sub(ARGV[at], 5), names}
    for i = 1, #own do
      local log = logs[own[i]]
      if log then offsets[#offsets + 1] = ${luaPlaceHead} .. log.epoch .. pack('>I6', log.known and 0 or log.offset + #log.batch + 1) end
    end
    names = table.concat(offsets)
  end
  places[m] = names
  for i = 1, #own do
    local log = logs[own[i]]
    if log and not log.known then
      local batch = log.batch
      local n = #batch + 1
      local message = '\\209\\1' .. log.epoch .. pack('>I6', log.offset + n) .. freshNonce .. log.nonce ..
        ARGV[at + 1] .. ARGV[log.at + 1] .. names .. ARGV[at + 2]
      batch[n], log.nonce, log.added, log.widest = message, freshNonce, log.added + #message, math.max(log.widest, #message)
    end
  end
end

for g = 1, #fresh do
  local log = fresh[g]
  local meta, list, batch, count, added, widest = KEYS[log.key + 1], KEYS[log.key + 2], log.batch, #log.batch, log.added, log.widest
  local new, offset, nonce, size, largest, last = log.new and log.epoch, log.offset, log.nonce, log.size, log.largest, log.last
  local keep, most, ttl, settings, smaller = log.keep, log.most, log.ttl, log.settings, log.smaller
  local before, sent, tail = log.before, log.sent, log.tail
  ${luaStore}
  log.offset, log.length = offset, length
  if keyed then call('SET', KEYS[log.key + 3], log.epoch .. pack('>I6', log.offset) .. log.nonce, 'PX', keyTtl) end
end
for m = 1, messages do
  local at, own = start + perMessage * (m - 1), targets[m]
  for i = 1, #own do
    local log = logs[own[i]]
    if not log then
      local channel = further + 2 * (own[i] - logCount - 1)
      call('PUBLISH', ARGV[channel], '\\209\\1' .. string.rep('\\0', 22) .. ARGV[at + 1] .. ARGV[channel + 1] .. places[m] .. ARGV[at + 2])
    elseif not log.known then
      log.published = log.published + 1
      call('PUBLISH', ARGV[log.at], log.batch[log.published])
    end
  end
end
return reply()
`)

/**
 * Reads where logs end.
 * KEYS the meta of each log, then the list of each.  ARGV 1 how long the metas are kept at least (ms), 0 to leave their TTL as it is
 * Returns null for a log that is not there, which most users and new groups have, and for any other log: epoch, last offset, last nonce,
 * and '' or two settings that differ.
 */
export const readEnds = new Script(`${luaInteger}${luaDiffering}
local keep, ends, count, logs = integer(1, 0), {}, 0, #KEYS / 2
local metas, lists = {}, {}
for k = 1, logs do
  -- Null where another program has the key, so that the other logs of this call get their answers. New groups have no log, so the epoch
  -- is asked for alone first; logs that are kept are known to be there.
  metas[k] = keep > 0 and redis.pcall('HMGET', KEYS[k], 'e', 's', 'n', 'c', 'd') or redis.pcall('HMGET', KEYS[k], 'e')
  if metas[k][1] == false then lists[#lists + 1] = KEYS[logs + k] end
end
local metaLost = #lists > 0 and redis.call('EXISTS', unpack(lists)) > 0
for k = 1, logs do
  local meta = metas[k]
  local epoch, offset, nonce = meta[1], meta[2], meta[3]
  if epoch and keep == 0 then
    meta = redis.call('HMGET', KEYS[k], 'e', 's', 'n', 'c', 'd')
    offset, nonce = meta[2], meta[3]
  elseif epoch == false and metaLost then
    ${luaFindEnd('KEYS[logs + k]')}
    -- Put back as long as the list is there to tell. Redis may refuse writes now; then a later call does.
    if tail and keep > 0 then
      local put = redis.pcall('HSET', KEYS[k], 'e', epoch, 's', offset, 'n', nonce, 'r', redis.call('TIME')[1])
      if type(put) == 'number' then redis.call('PEXPIRE', KEYS[k], offset >= ${longLog} and math.max(keep, ${longMetaMs}) or keep) end
    end
    offset = tail and string.format('%.0f', offset)
  end
  count = count + 1
  ends[count] = epoch or false
  if epoch then
    ends[count + 1], ends[count + 2], ends[count + 3] = offset, nonce, differing(meta[4], meta[5])
    count = count + 3
    local left = keep > 0 and redis.call('PTTL', KEYS[k])
    if left and left ~= -2 and left < keep / 2 then redis.call('PEXPIRE', KEYS[k], keep) end
  end
end
return ends
`)
