import { Type, type FastifyPluginAsyncTypebox, type Static } from '@fastify/type-provider-typebox'
import type { Member } from 'fastify-websocket-groups'
import { Value } from 'typebox/value'
import { broadcastAnyway } from './broadcast.ts'
import { GroupParams, lineOf } from './rooms.ts'

/** What the option `memberInfo` tells the others about a member, see app.ts. */
export const MemberInfo = Type.Object({ name: Type.String(), instance: Type.String() })
export type MemberInfo = Static<typeof MemberInfo>

const Message = Type.Object({ text: Type.String({ minLength: 1, maxLength: 4096 }) }, { additionalProperties: false })

/** Groups over plain HTTP. */
export const groups: FastifyPluginAsyncTypebox = async app => {
  // Only people who could come into a room may see who is in it.
  app.get('/groups/:group', { schema: { params: GroupParams }, preHandler: app.wsAuth() }, async ({ params: { group } }) => {
    const members = await app.registry.members(group)
    return { group, count: members.length, members: members.map(describe) }
  })

  const messages = { schema: { params: GroupParams, body: Message }, preHandler: app.wsAuth() }
  app.post('/groups/:group/messages', messages, async (request, reply) => {
    const { identity, params: { group }, body: { text } } = request
    // Rooms begin when somebody comes in, which has a limit. A message must not begin one: each invented name would get a log in Redis.
    // Without Redis the count is an old one, and this instance knows who came to it since.
    const isHere = app.registry.filter(({ groups }) => groups.includes(group)).length > 0
    if (!isHere && await app.registry.groupCount(group) === 0) throw Object.assign(new Error('nobody is in this room'), { statusCode: 404 })
    reply.code(202)
    // As in the room, the line names its author: otherwise anybody could speak for anybody.
    return await broadcastAnyway(app, group, lineOf(identity?.name ?? 'nobody', text))
  })
}

/** Another instance may run another version of this service: what it says about its members is checked like any input. */
function describe ({ info, ...member }: Member): Omit<Member, 'info'> & Partial<MemberInfo> {
  return Value.Check(MemberInfo, info) ? { ...member, ...info } : member
}
