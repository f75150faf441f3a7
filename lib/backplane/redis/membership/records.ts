import type { Json, Member } from '../../../types.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'

export async function readCount (link: Link, keys: Keys, group: string): Promise<number> {
  return Number(await link.run(async redis => await redis.hget(keys.counts(group), '#')) ?? 0)
}

/**
 * Encodes what the record of a member holds: the field of the hash is the connection's id, and its key ends with the instance's id. `null`
 * is an info like any other.
 */
export function encodeMember ({ joinedAt, userId, info, infoAt, session }: Member): string {
  const shown = info === undefined ? [] : infoAt === undefined ? [info] : [info, infoAt]
  return JSON.stringify([joinedAt, userId ?? null, session ?? null, ...shown])
}

export function decodeMember (connectionId: string, instanceId: string, record: string): Member {
  const [joinedAt, userId, session, info, infoAt] = JSON.parse(record) as [number, string | null, string | null, Json?, number?]
  return {
    connectionId,
    instanceId,
    ...(userId === null ? {} : { userId }),
    joinedAt,
    ...(info === undefined ? {} : { info }),
    ...(infoAt === undefined ? {} : { infoAt }),
    ...(session === null ? {} : { session })
  }
}
