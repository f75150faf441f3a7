import { remembered, repeatMs } from './follower.ts'

/** A log with this many messages is a long one. */
export const longLog = 16
/** By how much the meta of a shorter log outlives its messages (milliseconds). */
export const shortMetaMs = 1_800_000
/** How long the meta of a long log is kept at least: a week (milliseconds). */
export const longMetaMs = 604_800_000
/** How long the larger settings of a process count after its last append (seconds). */
const settingsHoldS = 86_400
/** How long a publisher is remembered after its last append (seconds). No retry takes that long. */
const publisherHoldS = 600

/*
 * Pieces of Lua that both append scripts are made of. They are not functions, because creating functions at each call costs Redis more than
 * running them. Each takes and leaves its values in the locals that it names.
 */

/** The beginning of a script. */
export const luaHead = 'local call, pack, unpacked, sub = redis.call, struct.pack, struct.unpack, string.sub'

/**
 * Takes the larger of the log's settings and those of this call.
 * Takes `mine`, `now`, and of the meta `used` and `earlier`, the smaller settings that another process had before. Leaves what to keep in
 * `keep`, `most` (bytes) and `ttl`; `settings` and `smaller`, if the meta has to store them from now on; and `differ` for the reply.
 */
export const luaSettle = `
local keep, most, ttl = unpacked('>I4I6I6', mine)
if keep < 1 or most < 1 or ttl < 1 then error('settings must not be 0') end
local settings, smaller, differ = nil, nil, ''
if not used or #used ~= 22 then
  settings = mine
elseif sub(used, 1, 16) == mine then
  if now - unpacked('>I6', used, 17) >= 60 then settings = mine end
elseif now - unpacked('>I6', used, 17) > ${settingsHoldS} then
  settings = mine
else
  local k, m, t = unpacked('>I4I6I6', used)
  if keep >= k and most >= m and ttl >= t then
    settings = mine
  else
    keep, most, ttl, smaller = math.max(keep, k), math.max(most, m), math.max(ttl, t), mine .. pack('>I6', now)
    local merged = pack('>I4I6I6', keep, most, ttl)
    if merged ~= sub(used, 1, 16) then settings = merged end
  end
end
-- Somebody would keep less: those with the larger settings learn it, too.
local other = smaller or earlier
if other and #other == 22 and now - unpacked('>I6', other, 17) <= 600 then
  differ = pack('>I4I6I6', keep, most, ttl) .. sub(other, 1, 16)
end`

/**
 * Finds out whether a batch that is sent again is in the log already. `meta` and `list` are Lua for the keys; `findOwn` is Lua
 * that leaves the nonce of the last message in `own`.
 * Takes of the meta `epoch` and `sent`, the record of the publisher; `last`, the sequence of the last message; `now`; and what luaFindEnd
 * leaves. Leaves where that message stands in `there`, nil where it is not in the log.
 */
export function luaFindResent (meta: string, list: string, findOwn: string): string {
  return `
local there
if epoch and sent and #sent == 18 then
  local sequence, stored = unpacked('>I6I6', sent)
  if sequence >= last then there = stored end
elseif epoch then
  -- The record may be lost, with the meta, which was written anew then: look for the message itself.
  local restored = tail and now or tonumber(call('HMGET', ${meta}, 'r')[1])
  if restored and now - restored <= ${repeatMs / 1_000} then
    local own
    ${findOwn}
    for _, message in ipairs(call('LRANGE', ${list}, -${remembered}, -1)) do
      if sub(message, 17, 20) == own then there = unpacked('>I6', message, 11) end
    end
  end
end`
}

/**
 * Ends the script when the Redis user lacks the right to one of the writes. The right to publish is checked at each call, these at the
 * first call of a publisher. Takes `permit`, `meta` and `list`.
 */
export const luaPermitWrites = `
permit('HSET', meta, '', '')
permit('PEXPIRE', meta, 1)
permit('HGETALL', meta)
permit('HDEL', meta, '')
permit('PEXPIRE', list, 1)
permit('LPOP', list, 1)
permit('LTRIM', list, 0, -1)
permit('LRANGE', list, 0, -1)`

/**
 * Writes to one log. The first write fails when Redis is full. It is taken back when the second one fails: because a right was lost since
 * the first message of the publisher, or because the key of the list belongs to another program. The commands that follow keep the log
 * small; their failure is no reason to refuse a message.
 * Takes `meta` and `list`; `batch`, `count` messages of `added` bytes together, the largest of `widest`, whose last one has `nonce`, after
 * the nonce `before`; `new`, the epoch of a log that is new; `tail`, if the meta is lost; of the meta `offset`, `size`, `largest` and
 * `sent`, the record of the publisher; what luaSettle leaves; `publisher`, `last` and `now`. Leaves the offset of the last message in
 * `offset`, and how many messages the log holds in `length`.
 */
export const luaStore = `
local try, record = redis.pcall, pack('>I6I6I6', last, offset + count, now)
if new then
  call('HSET', meta, 's', offset + count, 'n', nonce, publisher, record, 'e', new)
elseif tail then
  call('HSET', meta, 's', offset + count, 'n', nonce, publisher, record, 'e', sub(tail, 3, 10), 'r', now)
else
  call('HSET', meta, 's', offset + count, 'n', nonce, publisher, record)
end
local length = count == 1 and try('RPUSH', list, batch[1]) or try('RPUSH', list, unpack(batch))
if type(length) == 'table' then
  if new or tail then call('HDEL', meta, 's', 'n', 'e', 'r') else call('HSET', meta, 's', offset, 'n', before) end
  if sent then call('HSET', meta, publisher, sent) else call('HDEL', meta, publisher) end
  do return length end
end
if new and length > count then
  try('LTRIM', list, -count, -1)
  length = count
end
offset = offset + count
if largest == 0 and length > count then
  -- The meta was lost. Its list was not.
  for _, message in ipairs(try('LRANGE', list, 0, -1)) do widest = math.max(widest, #message) end
end
if widest > largest then
  largest = widest
  try('HSET', meta, 'g', largest)
end
-- While as many messages of the largest size seen so far would fit, only their number has to be limited. Otherwise the size of all messages
-- is kept from here on.
if not size and largest * keep <= most then
  if length > keep then
    if length == keep + 1 then try('LPOP', list) else try('LTRIM', list, -keep, -1) end
    length = keep
  end
else
  if length > count and added >= most then
    -- None of the older messages stays: no need to read their sizes.
    try('LTRIM', list, -count, -1)
    length = count
  end
  if length == count then
    size = added
  elseif size then
    size = size + added
  else
    size = 0
    for _, message in ipairs(try('LRANGE', list, 0, -1)) do size = size + #message end
  end
  -- The latest message stays, however large it is.
  while length > keep or (size > most and length > 1) do
    size, length = size - #(try('LPOP', list) or ''), length - 1
  end
  try('HSET', meta, 'b', size)
end
if settings then try('HSET', meta, 'c', settings .. pack('>I6', now)) end
if smaller then try('HSET', meta, 'd', smaller) end
try('PEXPIRE', list, ttl)
-- Without the meta the next message would look like a loss. A busy log renews the meta now and then, and a log at each message if its
-- messages are rarer than its TTL, or if 16 of them may take longer than the meta lasts.
local metaTtl = ttl + ${shortMetaMs}
if offset >= ${longLog} then metaTtl = math.max(${longMetaMs}, 2 * ttl) end
if tail or offset < ${longLog} + count or offset % 16 < count or length == count or 16 * ttl > metaTtl then
  try('PEXPIRE', meta, metaTtl)
end
if offset % 256 < count then
  local fields = try('HGETALL', meta)
  for i = 1, #fields, 2 do
    if sub(fields[i], 1, 1) == 'p' and #fields[i + 1] == 18 and unpacked('>I6', fields[i + 1], 13) < now - ${publisherHoldS} then
      try('HDEL', meta, fields[i])
    end
  end
end`
