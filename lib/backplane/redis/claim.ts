import { WebsocketGroupsError } from '../../errors.ts'
import type { Link } from './link/port.ts'
import { Script } from './link/script.ts'

/** Long enough to outlive any pause of all instances that is shorter than that of their memberships. */
const ttlMs = 86_400_000
const schema = 1

/**
 * Says how names are made here, or reads how they are.
 * KEYS 1 the claim.  ARGV 1 what this process would claim  2 TTL (ms)
 * Returns what is claimed.
 */
const claimNames = new Script(`
local claimed = redis.call('GET', KEYS[1])
if claimed and claimed ~= ARGV[1] then return claimed end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
`)

/** The key of the claim and its hash tag, the same for every number of partitions. */
export const claimTag = '0'

export function claimKey (prefix: string): string {
  return `${prefix}{${claimTag}}:names`
}

/**
 * All processes have to agree on where the names of a group are: claims this process's way, and renews the claim, or finds that another one
 * is in use.
 * @throws {WebsocketGroupsError} WSG_REDIS_UNSUPPORTED on a difference, and as `Link.run`
 */
export async function claim (link: Link, prefix: string, partitions: number): Promise<void> {
  const mine = `schema ${schema}, ${partitions} partitions`
  const claimed = String(await link.script(claimNames, [claimKey(prefix)], [mine, ttlMs]))
  if (claimed === mine) return
  const detail = `others that use the keys '${prefix}*' divide them otherwise (${claimed}, this process: ${mine}); ` +
    'stop them first, or give this process another keyPrefix'
  throw new WebsocketGroupsError('WSG_REDIS_UNSUPPORTED', detail)
}
