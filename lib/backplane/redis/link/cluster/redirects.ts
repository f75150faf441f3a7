import { Command, type Redis } from 'ioredis'
import { WebsocketGroupsError } from '../../../../errors.ts'
import { Script } from '../script.ts'

/**
 * How a server of a cluster says that it did not carry a call out. `moved`: another master has the slot. `later`: the slot is being moved,
 * and the keys of this call are not all in one place, or not yet where they may be asked for.
 */
type Redirect = 'moved' | 'later'

/** The error of a script that publishes to a channel, or uses a key, of another master. */
const notHere = /non local key/

export function redirectOf (error: unknown): Redirect | undefined {
  const message = replyOf(error)
  if (message === undefined) return undefined
  if (message.startsWith('MOVED ') || notHere.test(message)) return 'moved'
  return message.startsWith('ASK ') || message.startsWith('TRYAGAIN') ? 'later' : undefined
}

/** `host:port` of the master that gets the slot, where the keys of the call are already; `undefined` for other errors. */
export function importerOf (error: unknown): string | undefined {
  return /^ASK \d+ (\S+)/.exec(replyOf(error) ?? '')?.[1]
}

/** The text of the server's reply. */
function replyOf (error: unknown): string | undefined {
  return error instanceof WebsocketGroupsError && error.cause instanceof Error ? error.cause.message : undefined
}

export type RedisCall<Answer> = (redis: Redis, settled: () => boolean) => Promise<Answer>

/** The call, allowed to use keys of a slot that is on its way to the server. */
export function asking<Answer> (call: RedisCall<Answer>): RedisCall<Answer> {
  return async (redis, settled) => await call(askingClient(redis), settled)
}

/** Sends ASKING before each of its commands. */
function askingClient (redis: Redis): Redis {
  return new Proxy(redis, {
    get (client, name) {
      const method: unknown = Reflect.get(client, name)
      if (typeof method !== 'function') return method
      return async (...args: unknown[]): Promise<unknown> => {
        // Send both in one turn of the event loop: nothing may come between them.
        const allowed = name === 'sendCommand' ? client.sendCommand(new Command('asking', [])) : client.asking()
        const [, answer] = await Promise.all([allowed, method.apply(client, args)])
        return answer
      }
    }
  })
}

/** Whether the master with this error, or without an answer, may have been replaced. */
export function isSuspicious (error: unknown): boolean {
  if (!(error instanceof WebsocketGroupsError)) return false
  return error.code === 'WSG_TIMEOUT' || (error.cause instanceof Error && error.cause.message.startsWith('CLUSTERDOWN'))
}

const shardedScripts = new WeakMap<Script, Script>()

/** The script as it is on a cluster, where messages go by sharded pub/sub. */
export function shardedScript (script: Script): Script {
  const known = shardedScripts.get(script)
  if (known !== undefined) return known
  const sharded = new Script(script.lua.replaceAll("'PUBLISH'", "'SPUBLISH'"))
  shardedScripts.set(script, sharded)
  return sharded
}
