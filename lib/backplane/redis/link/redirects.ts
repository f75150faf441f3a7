import { WebsocketGroupsError } from '../../../errors.ts'
import { Script } from './script.ts'

/**
 * How a server of a cluster says that it did not carry a call out. `moved`: another master has the slot. `later`: the slot is being moved,
 * and the keys of this call are not all in one place, or not yet where they may be asked for.
 */
export type Redirect = 'moved' | 'later'

/** What a script is told that publishes to a channel of another master, or touches a key there. */
const notHere = /non local key/

export function redirectOf (error: unknown): Redirect | undefined {
  const cause = error instanceof WebsocketGroupsError ? error.cause : undefined
  if (!(cause instanceof Error)) return undefined
  const { message } = cause
  if (message.startsWith('MOVED ') || notHere.test(message)) return 'moved'
  return message.startsWith('ASK ') || message.startsWith('TRYAGAIN') ? 'later' : undefined
}

/** Whether the master that answered so, or did not answer, may have been replaced. */
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
