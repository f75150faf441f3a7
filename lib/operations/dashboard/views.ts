import type { FastifyInstance, preHandlerAsyncHookHandler } from 'fastify'
import type { Description, HistoryMessage } from '../../types.ts'
import { assertAllowed, type Allow } from './actions.ts'

const shownMembers = 100
const shownMessages = 20
/** How many characters of a message are shown. */
const shownText = 500

const named = { querystring: { type: 'object', required: ['name'], properties: { name: { type: 'string' } } } } as const

export interface Views {
  readonly preHandler: readonly preHandlerAsyncHookHandler[]
  readonly allow: Allow | undefined
  /** The name under which instances ask each other for their descriptions. Keep it as secret as the name of the report group. */
  readonly describe: string
}

/** Adds the routes that show one group, one user, and how the instances are configured. */
export function addViews (app: FastifyInstance, { preHandler, allow, describe }: Views): void {
  const { registry } = app
  const route = { preHandler: [...preHandler] }

  app.get<{ Querystring: { name: string } }>('/group', { ...route, schema: named }, async ({ query: { name } }) => {
    const [members, presence] = await Promise.all([registry.groupCount(name), registry.presence(name, { limit: shownMembers })])
    return { members, presence: [...presence], more: presence.cursor !== undefined }
  })
  app.get<{ Querystring: { name: string } }>('/history', { ...route, schema: named }, async request => {
    await assertAllowed(allow, 'history', request)
    const { messages } = await registry.history(request.query.name, { limit: shownMessages, reverse: true })
    return messages.map(shown)
  })
  app.get<{ Querystring: { name: string } }>('/user', { ...route, schema: named }, async ({ query: { name } }) => {
    return { groups: await registry.groups({ userId: name }) }
  })

  const stop = registry.instances.on(describe, () => registry.describe() as unknown as never)
  app.addHook('onClose', async () => stop())
  app.get('/configuration', route, async () => {
    const { replies, missing } = await registry.instances.ask(describe, null)
    return { instances: replies as readonly Description[], missing }
  })
}

function shown ({ data, at, from, position }: HistoryMessage): object {
  const text = typeof data === 'string' ? data : `${data.length} bytes: ${data.toString('hex', 0, shownText / 2)}`
  return { at, from, position, text: text.length > shownText ? `${text.slice(0, shownText)}…` : text }
}
