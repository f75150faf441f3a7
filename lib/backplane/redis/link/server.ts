import { WebsocketGroupsError } from '../../../errors.ts'
import type { Keys } from '../keys.ts'
import type { Link } from './link.ts'
import { missingRights } from './rights.ts'

const oldest = { major: 6, minor: 2 }
const finalErrors = new RegExp([
  'WRONGPASS', 'NOAUTH', 'NOPERM', 'invalid password', 'invalid username-password', 'database \\d+ cannot be used: (?!LOADING|BUSY|MASTERDOWN)',
  // A command that was renamed, or that a script may not run.
  'ERR unknown command', "can't run this command", 'Unknown Redis command'
].join('|'), 'i')

export interface Server {
  /** Tells this server from another one, or from itself after a restart; `undefined` when it does not say who it is. */
  readonly id: string | undefined
  /** What the server does when its memory is full; `undefined` when it does not say. */
  readonly evictionPolicy: string | undefined
  /** What the user may not do, or the server does not know, although it is needed sooner or later. */
  readonly missing: readonly string[]
}

/**
 * Looks whether the server, and what the user may do there, will do.
 * @throws {WebsocketGroupsError} WSG_REDIS_UNSUPPORTED, and as `Link.run`
 */
export async function checkServer (link: Link, keys: Keys, role: 'instance' | 'publisher'): Promise<Server> {
  const [info, memory] = await Promise.all([read(link, 'server'), read(link, 'memory')])
  if (info !== undefined) assertSupported(info)
  return {
    id: /^run_id:(\w+)/m.exec(info ?? '')?.[1],
    evictionPolicy: /^maxmemory_policy:(\S+)/m.exec(memory ?? '')?.[1],
    missing: await missingRights(link, keys, role)
  }
}

function assertSupported (info: string): void {
  const [, version = '', major = '0', minor = '0'] = /^redis_version:((\d+)\.(\d+)\S*)/m.exec(info) ?? []
  const tooOld = Number(major) < oldest.major || (Number(major) === oldest.major && Number(minor) < oldest.minor)
  if (tooOld) throw new WebsocketGroupsError('WSG_REDIS_UNSUPPORTED', `Redis is version ${version || 'unknown'}; 6.2 or newer is needed`)
  if (/^redis_mode:cluster/m.test(info)) {
    const detail = 'it runs in cluster mode; use a single master, with Sentinel if it must fail over'
    throw new WebsocketGroupsError('WSG_REDIS_UNSUPPORTED', detail)
  }
}

/** INFO is among the commands that careful operators forbid (the ACL category `@dangerous`) or rename: all works without it. */
async function read (link: Link, section: string): Promise<string | undefined> {
  try {
    return await link.run(async redis => await redis.info(section))
  } catch (error) {
    if (error instanceof Error && /NOPERM|unknown command/i.test(error.message)) return undefined
    throw error
  }
}

/** Whether the server's refusal is one that waiting does not heal. */
export function isFinal (error: Error): boolean {
  return finalErrors.test(error.message)
}

/** Wrong password, missing right, no such database: the same for every connection of these options. */
export function refused (error: Error): WebsocketGroupsError {
  return new WebsocketGroupsError('WSG_REDIS_REFUSED', error.message, { cause: error })
}

/** As `refused`, naming the rights. */
export function refusedRights (missing: readonly string[]): WebsocketGroupsError {
  return new WebsocketGroupsError('WSG_REDIS_REFUSED', `NOPERM this user may not run, or the server does not know: ${missing.join('; ')}`)
}
