import type { Json, Member } from '../../../types.ts'
import type { Keys } from '../keys.ts'
import type { Link } from '../link/port.ts'

export async function readCount (link: Link, keys: Keys, group: string): Promise<number> {
  return Number(await link.run(async redis => await redis.hget(keys.counts(group), '#')) ?? 0)
}

/** About what one member takes in an answer (bytes). */
const memberBytes = 100

/** Instance by instance: how long the list is depends on others, so it takes its turn among the bulk reads. */
export async function readMembers (link: Link, keys: Keys, group: string): Promise<Member[]> {
  const fields = await link.run(async redis => await redis.hkeys(keys.counts(group)))
  const lists = await Promise.all(fields.filter(field => field !== '#').map(async instanceId => {
    const records = await link.bulk.read(
      async () => await link.runBulk(async redis => await redis.hgetall(keys.members(group, instanceId))),
      records => ({ bytes: memberBytes * Object.keys(records).length, full: false })
    )
    return Object.entries(records).map(([connectionId, record]) => decodeMember(connectionId, instanceId, record))
  }))
  return lists.flat()
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
