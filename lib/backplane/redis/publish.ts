import type { Envelope, Target } from '../backplane.ts'
import { encode } from './envelope.ts'
import type { Keys } from './keys.ts'
import type { Link } from './link/port.ts'
import { shardedScript } from './link/redirects.ts'
import { bytesOf, Script } from './link/script.ts'

/**
 * Publishes copies of one envelope to several channels, with nothing of anyone else between them.
 * KEYS: none. ARGV: channel, bytes, channel, bytes, … Returns how many subscribers took the widest spread copy.
 */
const publishShared = new Script(`
local most = 0
for i = 1, #ARGV, 2 do
  local taken = redis.call('PUBLISH', ARGV[i], ARGV[i + 1])
  if taken > most then most = taken end
end
return most
`)

/** Publishes a copy to each target, all or none. Resolves with how many subscribers took the most widely spread copy. */
export async function publish (link: Link, keys: Keys, targets: readonly Target[], envelope: Envelope): Promise<number> {
  const [only] = targets
  if (only !== undefined && targets.length === 1) {
    const bytes = encode(envelope, only)
    const [command, channel] = [link.sharded ? 'spublish' : 'publish', keys.channel(only)] as const
    return Number(await link.runSized(bytes.length, async redis => await redis[command](channel, bytes)))
  }
  const copies = targets.flatMap(target => [keys.channel(target), encode(envelope, target)])
  // By its text, not by its hash: the second try after a NOSCRIPT would be overtaken by what is published after this.
  const { lua } = link.sharded ? shardedScript(publishShared) : publishShared
  return Number(await link.runSized(bytesOf(copies), async redis => await redis.eval(lua, 0, ...copies)))
}
