import { WebsocketGroupsError } from '../../../errors.ts'
import type { Link } from './link.ts'

const oldest = { major: 6, minor: 2 }
const finalErrors = /WRONGPASS|NOAUTH|NOPERM|invalid password|invalid username-password/i

/**
 * Resolves with what tells this server from another one, or from itself after a restart; with nothing when it does not say who it is.
 * @throws {WebsocketGroupsError} WSG_REDIS_UNSUPPORTED, and as `Link.run`
 */
export async function checkServer (link: Link): Promise<string | undefined> {
  const info = await serverInfo(link)
  if (info === undefined) return undefined
  const [, version = '', major = '0', minor = '0'] = /^redis_version:((\d+)\.(\d+)\S*)/m.exec(info) ?? []
  const tooOld = Number(major) < oldest.major || (Number(major) === oldest.major && Number(minor) < oldest.minor)
  if (tooOld) throw new WebsocketGroupsError('WSG_REDIS_UNSUPPORTED', `Redis is version ${version || 'unknown'}; 6.2 or newer is needed`)
  if (/^redis_mode:cluster/m.test(info)) {
    const detail = 'it runs in cluster mode; use a single master, with Sentinel if it must fail over'
    throw new WebsocketGroupsError('WSG_REDIS_UNSUPPORTED', detail)
  }
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
