import type { Envelope, Target } from '../backplane.ts'
import { WebsocketGroupsError } from '../../errors.ts'
import { encode } from './envelope.ts'
import type { Keys } from './keys.ts'
import type { Link } from './link/port.ts'
import { shardedScript } from './link/cluster/redirects.ts'
import { bytesOf, Script } from './link/script.ts'

/**
 * Publishes copies of one envelope to several channels, with no message of anyone else between them. Checks the rights to all channels
 * before the first copy goes; Redis before 7.0 cannot tell.
 * ARGV channel, bytes, channel, bytes, …
 * Returns how many subscribers took the most widely spread copy, and '' or the error that kept back the rest of the copies.
 */
const publishShared = new Script(`
local most, permitted = 0, redis.acl_check_cmd
for i = 1, #ARGV, 2 do
  if permitted and not permitted('PUBLISH', ARGV[i], '') then
    return redis.error_reply('NOPERM this user may not publish to ' .. ARGV[i])
  end
end
for i = 1, #ARGV, 2 do
  local taken = redis.pcall('PUBLISH', ARGV[i], ARGV[i + 1])
  if type(taken) == 'table' then
    if i == 1 then return taken end
    return {most, taken.err}
  end
  if taken > most then most = taken end
end
return {most, ''}
`)

/**
 * Publishes a copy to each target, all or none. Resolves with how many subscribers took the most widely spread copy.
 * @throws {WebsocketGroupsError} as `Link.run`; WSG_TIMEOUT, too, when Redis refused some of the copies after it had sent others
 */
export async function publish (link: Link, keys: Keys, targets: readonly Target[], envelope: Envelope): Promise<number> {
  const [only] = targets
  if (only !== undefined && targets.length === 1) {
    const bytes = encode(envelope, only)
    const [command, channel] = [link.sharded ? 'spublish' : 'publish', keys.channel(only)] as const
    return Number(await link.runSized(bytes.length, async redis => await redis[command](channel, bytes), 'publish'))
  }
  const copies = targets.flatMap(target => [keys.channel(target), encode(envelope, target)])
  // Call the script by its text, not by its hash: later messages would overtake a second try after a NOSCRIPT.
  const { lua } = link.sharded ? shardedScript(publishShared) : publishShared
  const [most, refusal] = await link.runSized(bytesOf(copies), async redis => {
    return await redis.eval(lua, 0, ...copies)
  }, 'publish') as [number, string]
  if (refusal !== '') throw new WebsocketGroupsError('WSG_TIMEOUT', `some of the copies were sent, then Redis refused: ${refusal}`)
  return most
}
