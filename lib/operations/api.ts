import type { FastifyInstance, FastifyRequest, preHandlerAsyncHookHandler } from 'fastify'
import fp from 'fastify-plugin'
import { WebsocketGroupsError } from '../errors.ts'
import { aFunction, checkOptions, invalid, type Rule } from '../options/rules.ts'
import type {} from '../route-types.ts'
import type { BroadcastOptions, BroadcastResult, Data, Registry } from '../types.ts'
import { authHook } from './auth-hook.ts'
import { notStored } from './not-stored.ts'
import { schemas, type DisconnectBody, type HistoryQuery, type ListQuery, type PublishBody } from './api/schemas.ts'

export interface GroupsApiOptions {
  /** An async hook that throws, replies or returns `false` unless the request may use the API, and with it send to everybody. */
  readonly auth: preHandlerAsyncHookHandler
}

const rules = { auth: aFunction } as const satisfies Record<keyof GroupsApiOptions, Rule>

interface GroupParams { readonly group: string }

async function groupsApi (app: FastifyInstance, options: GroupsApiOptions): Promise<void> {
  checkOptions(options, rules, 'groupsApi.', ['prefix', 'logLevel', 'logSerializers'])
  const { auth } = options
  if (typeof auth !== 'function') throw invalid('groupsApi needs `auth`: a hook that refuses everyone who may not use it')
  const { registry } = app
  app.addHook('onRequest', notStored)
  // Runs before the body is read, so that strangers cannot send one.
  app.addHook('onRequest', authHook(auth))

  app.post(
    '/publish', { schema: schemas.publish }, async ({ body }: FastifyRequest<{ Body: PublishBody }>) => await publish(registry, body)
  )

  app.get('/groups', { schema: schemas.groups }, async ({ query }: FastifyRequest<{ Querystring: ListQuery & { prefix?: string } }>) => {
    const groups = await registry.groupList(query)
    return { groups: [...groups], cursor: groups.cursor, missing: groups.missing }
  })

  app.get('/groups/:group/history', { schema: schemas.history }, async (
    { params, query }: FastifyRequest<{ Params: GroupParams, Querystring: HistoryQuery }>
  ) => {
    const { messages, ...page } = await registry.history(params.group, query)
    return { ...page, messages: messages.map(({ data, ...message }) => ({ ...message, ...asText(data) })) }
  })

  app.get('/groups/:group/presence', { schema: schemas.presence }, async (
    { params, query }: FastifyRequest<{ Params: GroupParams, Querystring: ListQuery }>
  ) => {
    const people = await registry.presence(params.group, query)
    const { cursor, ageMs } = people
    // JSON cannot express Infinity, the age of a list that has the people of this instance alone.
    return { people: [...people], cursor, ageMs: Number.isFinite(ageMs) ? ageMs : null }
  })

  app.post('/disconnect', { schema: schemas.disconnect }, async ({ body }: FastifyRequest<{ Body: DisconnectBody }>) => {
    const { userId, connectionId = '', code, reason } = body
    return { disconnected: await registry.disconnect(userId === undefined ? connectionId : { userId }, { code, reason }) }
  })
}

async function publish (registry: Registry, { to, data, base64, ...options }: PublishBody): Promise<BroadcastResult> {
  const message = toData(data, base64)
  if ('userId' in to) return await registry.sendToUser(to.userId, message, options as BroadcastOptions)
  if ('all' in to) return await registry.broadcastToAll(message, options as BroadcastOptions)
  return await registry.broadcastToGroup('groups' in to ? to.groups : to.group, message, options as BroadcastOptions)
}

/** A string is sent as it is, any other value as JSON. @throws {WebsocketGroupsError} WSG_DATA_INVALID unless exactly one is given */
function toData (data: unknown, base64: string | undefined): Data {
  if ((data === undefined) === (base64 === undefined)) throw new WebsocketGroupsError('WSG_DATA_INVALID', 'give either data or base64')
  if (base64 !== undefined) {
    // One character beyond whole groups of four is no byte: something was cut off.
    if (base64.replace(/=+$/, '').length % 4 === 1) throw new WebsocketGroupsError('WSG_DATA_INVALID', 'base64 is cut off')
    return Buffer.from(base64, 'base64')
  }
  return typeof data === 'string' ? data : JSON.stringify(data)
}

function asText (data: Data): { readonly data: string } | { readonly base64: string } {
  return typeof data === 'string' ? { data } : { base64: Buffer.from(data).toString('base64') }
}

/** Adds routes for services in other languages: they publish, list groups, read histories and presence, and disconnect. */
export default fp(groupsApi, {
  fastify: '5.x', name: 'fastify-websocket-groups-api', dependencies: ['fastify-websocket-groups'], encapsulate: true
})
