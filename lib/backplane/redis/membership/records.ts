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

type Fields = [joinedAt: number, userId: string | null, session: string | null, info?: Json, infoAt?: number]

/** Stands for a record that another program overwrote: the connection is in the group, and nothing else is known of it. */
const unknown: Fields = [0, null, null]

export function decodeMember (connectionId: string, instanceId: string, record: string): Member {
  const [joinedAt, userId, session, info, infoAt] = parseFields(record)
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

function parseFields (record: string): Fields {
  try {
    const fields: unknown = JSON.parse(record)
    return isFields(fields) ? fields : unknown
  } catch {
    return unknown
  }
}

function isFields (value: unknown): value is Fields {
  if (!Array.isArray(value)) return false
  const [joinedAt, userId, session, , infoAt] = value as unknown[]
  return typeof joinedAt === 'number' && [userId, session].every(name => name === null || typeof name === 'string') &&
    ['undefined', 'number'].includes(typeof infoAt)
}
