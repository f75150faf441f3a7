import { WebsocketGroupsError } from '../../../errors.ts'
import type { Link } from './port.ts'

/** Sharded pub/sub came with 7.0. */
const oldest = { single: { major: 6, minor: 2 }, cluster: { major: 7, minor: 0 } } as const
const finalErrors = /WRONGPASS|NOAUTH|NOPERM|invalid password|invalid username-password/i

/** The server is one of a cluster, and was taken for a single one. */
export class ClusterModeError extends WebsocketGroupsError {
  constructor () {
    super('WSG_REDIS_UNSUPPORTED', 'it is a node of a Redis Cluster: pass { cluster: [nodes] }')
  }
}

/**
 * Resolves with what tells this server from another one, or from itself after a restart; with nothing when it does not say who it is.
 * @throws {WebsocketGroupsError} WSG_REDIS_UNSUPPORTED, and as `Link.run`
 */
export async function checkServer (link: Link): Promise<string | undefined> {
  const info = await serverInfo(link)
  if (info === undefined) return undefined
  const [, version = '', major = '0', minor = '0'] = /^redis_version:((\d+)\.(\d+)\S*)/m.exec(info) ?? []
  const least = oldest[link.sharded ? 'cluster' : 'single']
  if (Number(major) < least.major || (Number(major) === least.major && Number(minor) < least.minor)) {
    const needed = `${least.major}.${least.minor} or newer is needed${link.sharded ? ' for a cluster' : ''}`
    throw new WebsocketGroupsError('WSG_REDIS_UNSUPPORTED', `Redis is version ${version || 'unknown'}; ${needed}`)
  }
  if (!link.sharded && /^redis_mode:cluster/m.test(info)) throw new ClusterModeError()
  return /^run_id:(\w+)/m.exec(info)?.[1]
}

/** INFO is among the commands that careful operators forbid (the ACL category `@dangerous`); nothing else here needs it. */
async function serverInfo (link: Link): Promise<string | undefined> {
  try {
    return await link.run(async redis => await redis.info('server'))
  } catch (error) {
    if (error instanceof Error && error.message.includes('NOPERM')) return undefined
    throw error
  }
}

/** Whether the server's refusal is one that waiting does not heal. */
export function isFinal (error: Error): boolean {
  return finalErrors.test(error.message)
}

/** Wrong password, missing right: the same for every connection of these options. */
export function refused (error: Error): WebsocketGroupsError {
  return new WebsocketGroupsError('WSG_REDIS_REFUSED', error.message, { cause: error })
}
