import type { Json, Member } from '../../../types.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/link.ts'

export async function readCount (link: Link, keys: Keys, group: string): Promise<number> {
  return Number(await link.run(async redis => await redis.hget(keys.counts(group), '#')) ?? 0)
}

export async function readMembers (link: Link, keys: Keys, group: string): Promise<Member[]> {
  // One deadline for both steps.
  const [instances, hashes] = await link.run(async redis => {
    const fields = await redis.hkeys(keys.counts(group))
    const instances = fields.filter(field => field !== '#')
    return [instances, await Promise.all(instances.map(async id => await redis.hgetall(keys.members(group, id))))] as const
  })
  return hashes.flatMap((records, index) => {
    return Object.entries(records).map(([connectionId, record]) => decodeMember(connectionId, instances[index] ?? '', record))
  })
}

/** The field is the connection's id and the key ends with the instance's: the record holds the rest. `null` is an info like any other. */
export function encodeMember ({ joinedAt, userId, info, session }: Member): string {
  return JSON.stringify([joinedAt, userId ?? null, session ?? null, ...(info === undefined ? [] : [info])])
}

function decodeMember (connectionId: string, instanceId: string, record: string): Member {
  const [joinedAt, userId, session, info] = JSON.parse(record) as [number, string | null, string | null, Json?]
  return {
    connectionId,
    instanceId,
    ...(userId === null ? {} : { userId }),
    joinedAt,
    ...(info === undefined ? {} : { info }),
    ...(session === null ? {} : { session })
  }
}
