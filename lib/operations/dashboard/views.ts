import type { FastifyInstance } from 'fastify'
import { pageOf } from '../../groups/pages.ts'
import type { Description, HistoryMessage } from '../../types.ts'
import { assertAllowed, type Allow } from './actions.ts'
import { compareConfigurations } from './configurations.ts'

/** How many members, or names of groups, one page has. */
const perPage = 50
const shownMessages = 20
/** How many characters of a message are shown. */
const shownText = 500

const properties = {
  name: { type: 'string' }, prefix: { type: 'string', maxLength: 255 }, cursor: { type: 'string', pattern: '^[\\w-]{1,1000}$' }
}
const named = { querystring: { type: 'object', required: ['name'], properties } } as const
const listed = { querystring: { type: 'object', properties } } as const

interface Query { readonly cursor?: string }

/**
 * Adds the routes that show names of groups, one group, one user, and how the instances are configured. `describe` is the name under which
 * instances ask each other for their descriptions, as secret as the key.
 */
export function addViews (app: FastifyInstance, allow: Allow | undefined, describe: string): void {
  const { registry } = app
  app.get<{ Querystring: Query & { prefix?: string } }>('/groups', { schema: listed }, async ({ query: { prefix, cursor } }) => {
    const names = await registry.groupList({ prefix, cursor, limit: perPage })
    return { names: [...names], cursor: names.cursor, missing: names.missing }
  })
  app.get<{ Querystring: Query & { name: string } }>('/group', { schema: named }, async ({ query: { name, cursor } }) => {
    const [members, presence] = await Promise.all([registry.groupCount(name), registry.presence(name, { limit: perPage, cursor })])
    // The page compares times with this clock instead of the one of whoever looks.
    const ageMs = Number.isFinite(presence.ageMs) ? presence.ageMs : null
    return { members, presence: [...presence], cursor: presence.cursor, now: Date.now(), ageMs }
  })
  app.get<{ Querystring: { name: string } }>('/history', { schema: named }, async request => {
    await assertAllowed(allow, 'history', request)
    const { messages } = await registry.history(request.query.name, { limit: shownMessages, reverse: true })
    return messages.map(shown)
  })
  app.get<{ Querystring: Query & { name: string } }>('/user', { schema: named }, async ({ query: { name, cursor } }) => {
    const groups = await registry.groups({ userId: name })
    const page = pageOf(groups, group => group, { cursor, limit: perPage })
    return { groups: page.items, total: groups.length, cursor: page.cursor }
  })

  const stop = registry.instances.on(describe, () => registry.describe() as unknown as never)
  app.addHook('onClose', async () => stop())
  app.get('/configuration', async () => {
    const { replies, missing } = await registry.instances.ask(describe, null)
    return { ...compareConfigurations(replies as readonly Description[]), missing }
  })
}

function shown ({ data, at, from, position }: HistoryMessage): object {
  const text = typeof data === 'string' ? data : `${data.length} bytes: ${data.toString('hex', 0, shownText / 2)}`
  return { at, from, position, text: text.length > shownText ? `${text.slice(0, shownText)}…` : text }
}
