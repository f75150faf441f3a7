import { Script } from '../link/script.ts'
import { luaFindEnd } from './find-end.ts'
import { luaDiffering } from './settings.ts'

/**
 * Reads one page of a group's log after a position. The list is walked in small pieces, so that neither the reply nor what the script holds
 * in memory is much larger than the page.
 * KEYS 1 log meta  2 log
 * ARGV 1 epoch ('' from the earliest kept, '$' the latest ones)  2 offset  3 nonce (4 bytes)  4 how many at most  5 bytes at most
 *      6 '1' for at least one message, however large it is  7 how many bytes of each message, 0 for all
 * Returns {status, epoch, last offset, last nonce, messages, 1 if more follow, '' or two settings that differ}. Status: 0 the messages
 * follow the position, 2 another epoch, 3 rewound (no messages), 4 trimmed, 5 no log; with 2 and 4 messages from the earliest kept.
 */
export const readLog = new Script(`${luaDiffering}
local meta = redis.call('HMGET', KEYS[1], 'e', 's', 'n', 'c', 'd')
-- Only a master may say that messages are lost: a replica may not have them yet. This write changes nothing, and a replica refuses it.
local function assertMaster () redis.call('HDEL', KEYS[1], '') end
local epoch, offset, nonce = meta[1], tonumber(meta[2]), meta[3]
${luaFindEnd('KEYS[2]')}
if not epoch then
  if ARGV[1] ~= '' and ARGV[1] ~= '$' then assertMaster() end
  return {5}
end
local top, offset, length = offset, tonumber(ARGV[2]), redis.call('LLEN', KEYS[2])
local count, most, cut = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[7])
local function rewound ()
  assertMaster()
  return {3, epoch, top, nonce, {}, 0, ''}
end
local first = top - length + 1
local status = 0
if ARGV[1] == '$' then offset = math.max(first - 1, top - count)
elseif ARGV[1] == '' then
  offset = first - 1
  if first > 1 then status = 4 end
elseif epoch ~= ARGV[1] then
  assertMaster()
  offset = first - 1
  status = 2
elseif offset > top then return rewound()
elseif offset == top then
  if nonce ~= ARGV[3] then return rewound() end
  return {0, epoch, top, nonce, {}, 0, differing(meta[4], meta[5])}
elseif offset + 1 < first then offset = first - 1; status = 4 end
local at, last = offset + 1 - first, math.min(length - 1, offset - first + count)
local messages, size, piece, full = {}, 0, 1, false
while at <= last and not full do
  local some = redis.call('LRANGE', KEYS[2], at, math.min(last, at + piece - 1))
  if #some == 0 then break end
  for i = 1, #some do
    size = size + #some[i]
    full = size > most and (#messages > 0 or ARGV[6] ~= '1')
    if full then break end
    messages[#messages + 1] = cut > 0 and string.sub(some[i], 1, cut) or some[i]
  end
  at = at + #some
  -- Next, as many messages as fit if they are as large as those so far.
  piece = math.max(1, math.min(4 * piece, 64, math.floor((most - size) * #messages / size)))
end
local fromPosition = status == 0 and ARGV[1] ~= '' and ARGV[1] ~= '$' and offset > 0
if fromPosition and messages[1] and string.sub(messages[1], 21, 24) ~= ARGV[3] then return rewound() end
local more = offset + #messages < top and 1 or 0
return {status, epoch, top, nonce, messages, more, differing(meta[4], meta[5])}
`)
