import { WebsocketGroupsError } from '../../errors.ts'
import type { Link } from './link.ts'

const oldest = { major: 6, minor: 2 }
const finalErrors = /WRONGPASS|NOAUTH|NOPERM|invalid password|invalid username-password/i

/** @throws {WebsocketGroupsError} WSG_REDIS_UNSUPPORTED */
export async function assertSupported (link: Link): Promise<void> {
  const info = await link.run(async redis => await redis.info('server'))
  const [, version = '', major = '0', minor = '0'] = /^redis_version:((\d+)\.(\d+)\S*)/m.exec(info) ?? []
  const tooOld = Number(major) < oldest.major || (Number(major) === oldest.major && Number(minor) < oldest.minor)
  if (tooOld) throw new WebsocketGroupsError('WSG_REDIS_UNSUPPORTED', `it is version ${version || 'unknown'}, 6.2 or newer is needed`)
  if (/^redis_mode:cluster/m.test(info)) throw new WebsocketGroupsError('WSG_REDIS_UNSUPPORTED', 'it runs in cluster mode; use a single master, with Sentinel if it must fail over')
}

/** Whether the server's refusal is one that waiting does not heal. */
export function isFinal (error: Error): boolean {
  return finalErrors.test(error.message)
}
