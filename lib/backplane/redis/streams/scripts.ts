import { luaInteger, luaPermitted, Script } from '../link/script.ts'

/** Lua: `now()` is the time of Redis in milliseconds; a function, as most calls need no time. */
const luaNowWhenAsked = `
local function now ()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end`

/**
 * Adds to the text of a stream and tells the members of its group. Skips what a call with unknown outcome wrote already, so that the call
 * may be made again. All that can fail comes before the first write. A full Redis refuses that write, unless it removes streams that are
 * gone from the index to make room for a new one.
 * KEYS 1 text  2 head  3 index of the group
 * ARGV 1 epoch  2 head, '' to make nothing  3 where the text belongs (bytes)  4 text  5 state, '' while open  6 its JSON
 *      7 keep (ms)  8 '1' to renew  9 silent after (ms)  10 '1' only if silent  11 id  12 how many streams at most  13 channel  14 envelope
 * Returns a `StreamWritten`.
 */
export const writeStream = new Script(`${luaInteger}${luaNowWhenAsked}
if #ARGV ~= 14 then error('expected 14 arguments, got ' .. #ARGV) end
local text, head, index = KEYS[1], KEYS[2], KEYS[3]
local at, keep, silentAfter, most = integer(3, 0), integer(7, 1), integer(9, 0), integer(12, 1)
${luaPermitted("'PUBLISH', ARGV[13], ''")}
local known = redis.call('HMGET', head, 'epoch', 'state', 'beat')
local silent = function () return now() - tonumber(known[3]) > silentAfter end
local renew, isNew = ARGV[8] == '1', false
if known[1] ~= ARGV[1] then
  if ARGV[2] == '' then return known[1] and 'replaced' or 'lost' end
  if known[1] and known[2] == '' and not silent() then return 'taken' end
  if not redis.call('ZSCORE', index, ARGV[11]) and redis.call('ZCARD', index) >= most then
    redis.call('ZREMRANGEBYSCORE', index, '-inf', now())
    if redis.call('ZCARD', index) >= most then return 'full' end
  end
  renew, isNew = true, true
elseif known[2] ~= '' then
  return known[2] == ARGV[5] and 'written' or 'ended'
elseif ARGV[10] == '1' and not silent() then
  return 'lives'
end
local length = isNew and 0 or redis.call('STRLEN', text)
if length < at then return 'lost' end
local rest, beat = string.sub(ARGV[4], length - at + 1), renew and now()
-- Of a call that only appends, the append is the first write and the message the second.
if renew or length == 0 or ARGV[5] ~= '' then
  ${luaPermitted(
    "'HSET', head, '', ''", "'DEL', text", "'APPEND', text, ''", "'PEXPIRE', head, 1", "'PEXPIRE', text, 1", "'PEXPIRE', index, 1",
    "'PTTL', index", "'ZADD', index, 1, ''", "'ZREMRANGEBYSCORE', index, 0, 0"
  )}
end
if isNew then
  redis.call('HSET', head, 'epoch', ARGV[1], 'head', ARGV[2], 'state', '', 'end', '')
  redis.call('DEL', text)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', beat)
end
if rest ~= '' then redis.call('APPEND', text, rest) end
if renew then
  redis.call('HSET', head, 'beat', beat)
  redis.call('PEXPIRE', head, keep)
  redis.call('PEXPIRE', text, keep)
  redis.call('ZADD', index, beat + keep, ARGV[11])
  if redis.call('PTTL', index) < keep then redis.call('PEXPIRE', index, keep) end
elseif length == 0 and rest ~= '' then
  redis.call('PEXPIRE', text, keep)
end
if ARGV[5] ~= '' then redis.call('HSET', head, 'state', ARGV[5], 'end', ARGV[6]) end
redis.call('PUBLISH', ARGV[13], ARGV[14])
return 'written'
`)

/**
 * Reads a part of a stream.
 * KEYS 1 text  2 head.  ARGV 1 first byte  2 last byte  3 silent after (ms)
 * Returns {epoch, head, state, its JSON, bytes of the whole text, 1 if silent, the part of the text}, or nothing.
 */
export const readStream = new Script(`${luaNowWhenAsked}
local known = redis.call('HMGET', KEYS[2], 'epoch', 'head', 'state', 'end', 'beat')
if not known[1] then return {} end
local silent = known[3] == '' and now() - tonumber(known[5]) > tonumber(ARGV[3])
local bytes, part = redis.call('STRLEN', KEYS[1]), redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[2])
return {known[1], known[2], known[3], known[4], bytes, silent and 1 or 0, part}
`)

/**
 * Lists the streams of a group.
 * KEYS 1 index.  ARGV 1 how many at most
 * Returns their ids.
 */
export const listStreams = new Script(`${luaNowWhenAsked}
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now(), '+inf', 'LIMIT', 0, ARGV[1])
`)
