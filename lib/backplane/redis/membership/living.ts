import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'
import { luaNow, Script } from '../link/script.ts'

/**
 * Reads which instances live, and how many subscribers the inbox of each has.
 * KEYS 1 leases  2 instances.  ARGV 1 what the channel names of inboxes start with, '' not to count
 * Returns id and number of subscribers of each, or the ids.
 */
const readLiving = new Script(`${luaNow}
local held, living, channels = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf'), {}, {}
for from = 1, #held, 1000 do
  local ids = {unpack(held, from, math.min(from + 999, #held))}
  local records = redis.call('HMGET', KEYS[2], unpack(ids))
  for i = 1, #ids do
    -- The lease of an instance that was declared dead is held by whoever cleans up after it.
    if not records[i] or string.sub(records[i], 1, 1) == 'A' then
      living[#living + 1], channels[#channels + 1] = ids[i], ARGV[1] .. ids[i]
    end
  end
end
if ARGV[1] == '' then return living end
local out = {}
for from = 1, #living, 1000 do
  local counts = redis.call('PUBSUB', 'NUMSUB', unpack(channels, from, math.min(from + 999, #channels)))
  for i = 1, #counts, 2 do
    out[#out + 1] = living[from + (i - 1) / 2]
    out[#out + 1] = counts[i + 1]
  end
end
return out
`)

/** As `Backplane.instances`. */
export async function livingInstances (link: Link, keys: Keys): Promise<Map<string, boolean>> {
  const inboxes = keys.channel({ kind: 'instance', name: '' })
  const reply = await link.script(readLiving, [keys.leases, keys.instances], [inboxes]) as Array<string | number>
  return new Map(Array.from({ length: reply.length / 2 }, (_, index) => [String(reply[2 * index]), Number(reply[2 * index + 1]) > 0]))
}

/** The ids of the living instances. On a cluster the inboxes are in many partitions. */
export async function livingIds (link: Link, keys: Keys): Promise<string[]> {
  return await link.script(readLiving, [keys.leases, keys.instances], ['']) as string[]
}
