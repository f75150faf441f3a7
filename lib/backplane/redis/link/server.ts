import { WebsocketGroupsError } from '../../../errors.ts'
import type { Keys } from '../keys.ts'
import type { Link } from './port.ts'
import { isForbidden } from './reply-errors.ts'
import { missingRights } from './rights.ts'

/** The oldest versions that are supported. Sharded pub/sub came with 7.0. */
const oldest = { single: { major: 6, minor: 2 }, cluster: { major: 7, minor: 0 } } as const
const finalErrors = new RegExp([
  'WRONGPASS', 'NOAUTH', 'NOPERM', 'invalid password', 'invalid username-password',
  'database \\d+ cannot be used: (?!LOADING|BUSY|MASTERDOWN)',
  // NOPERM of a command in a script, from Redis 7.2 on and in Valkey.
  'ACL failure in script',
  // A command that was renamed, or that a script may not run.
  'ERR unknown command', "can't run this command", 'Unknown Redis command'
].join('|'), 'i')

export interface Server {
  /** Tells this server from another one, or from itself after a restart; `undefined` when the server does not identify itself. */
  readonly id: string | undefined
  /** As `missingRights` resolves. */
  readonly missing: readonly string[]
}

/** The server belongs to a cluster, although it was given as a single one. */
export class ClusterModeError extends WebsocketGroupsError {
  constructor () {
    super('WSG_REDIS_UNSUPPORTED', 'the server is a node of a Redis Cluster: pass { cluster: [nodes] }')
  }
}

/**
 * Checks the server and the rights of the user there.
 * @throws {WebsocketGroupsError} WSG_REDIS_UNSUPPORTED, and as `Link.run`
 */
export async function checkServer (link: Link, keys: Keys, role: 'instance' | 'publisher'): Promise<Server> {
  const { master } = link
  const known = looks.get(master)
  if (known?.connection === master.connection) return await known.look
  const look = lookAt(link, keys, role)
  // Many partitions share a master.
  if (link.sharded) looks.set(master, { connection: master.connection, look })
  // Rights may be given at any time: only a server with which all is well is not looked at again.
  look.then(({ missing }) => { if (missing.length > 0) looks.delete(master) }, () => looks.delete(master))
  return await look
}

/** The check of each master on its present connection. */
const looks = new WeakMap<object, { readonly connection: number, readonly look: Promise<Server> }>()

async function lookAt (link: Link, keys: Keys, role: 'instance' | 'publisher'): Promise<Server> {
  const info = await readInfo(link)
  if (info !== undefined) assertSupported(info, link.sharded)
  else if (!link.sharded && await isClusterNode(link)) throw new ClusterModeError()
  return {
    id: /^run_id:(\w+)/m.exec(info ?? '')?.[1],
    missing: await missingRights(link, keys, role)
  }
}

function assertSupported (info: string, sharded: boolean): void {
  const [, version = '', major = '0', minor = '0'] = /^redis_version:((\d+)\.(\d+)\S*)/m.exec(info) ?? []
  const least = oldest[sharded ? 'cluster' : 'single']
  if (Number(major) < least.major || (Number(major) === least.major && Number(minor) < least.minor)) {
    const needed = `${least.major}.${least.minor} or newer is needed${sharded ? ' for a cluster' : ''}`
    throw new WebsocketGroupsError('WSG_REDIS_UNSUPPORTED', `Redis is version ${version || 'unknown'}; ${needed}`)
  }
  // Valkey says server_mode.
  if (!sharded && /^(redis|server)_mode:cluster/m.test(info)) throw new ClusterModeError()
}

/** Reads INFO, a command that careful operators forbid (the ACL category `@dangerous`) or rename: all works without it. */
async function readInfo (link: Link): Promise<string | undefined> {
  try {
    return await link.run(async redis => await redis.info('server'))
  } catch (error) {
    if (isForbidden(error)) return undefined
    throw error
  }
}

/** Asks a server that does not answer INFO. A server that is not a node of a cluster, or forbids CLUSTER as well, refuses the question. */
async function isClusterNode (link: Link): Promise<boolean> {
  try {
    await link.run(async redis => await redis.cluster('INFO'))
    return true
  } catch (error) {
    if (isForbidden(error) || (error instanceof Error && /cluster support disabled/i.test(error.message))) return false
    throw error
  }
}

/** Whether the server refuses for a reason that waiting does not heal. */
export function isFinal (error: Error): boolean {
  return finalErrors.test(error.message)
}

/** The error for a wrong password, a missing right or database: every connection with these options ends in it. */
export function refused (error: Error): WebsocketGroupsError {
  return new WebsocketGroupsError('WSG_REDIS_REFUSED', error.message, { cause: error })
}

/** As `refused`, for missing rights, which the error names. */
export function refusedRights (missing: readonly string[]): WebsocketGroupsError {
  return new WebsocketGroupsError('WSG_REDIS_REFUSED', `NOPERM this user may not run, or the server does not know: ${missing.join('; ')}`)
}
