import type { FastifyInstance, FastifyRequest } from 'fastify'
import { WebsocketGroupsError } from '../../errors.ts'
import { logEvent } from '../../logging.ts'
import type { Registry } from '../../types.ts'

const dashboardActions = ['history', 'disconnect', 'kick', 'block', 'unblock'] as const

/** What `allow` may permit: to read the messages of a group, and to act on users. */
export type DashboardAction = (typeof dashboardActions)[number]

/** Only `true` allows. */
export type Allow = (action: DashboardAction, request: FastifyRequest) => boolean | Promise<boolean>

interface Order {
  readonly action: Exclude<DashboardAction, 'history'>
  readonly userId: string
  /** The group to kick the user out of. */
  readonly group?: string
  /** What the user's clients are told. */
  readonly reason?: string
  /** How long the user is blocked, in milliseconds. */
  readonly forMs?: number
}

const orderSchema = {
  type: 'object',
  required: ['action', 'userId'],
  additionalProperties: false,
  properties: {
    action: { enum: dashboardActions.filter(action => action !== 'history') },
    userId: { type: 'string' },
    group: { type: 'string' },
    reason: { type: 'string', maxLength: 123 },
    forMs: { type: 'integer' }
  }
} as const

/** @throws {WebsocketGroupsError} WSG_FORBIDDEN */
export async function assertAllowed (allow: Allow | undefined, action: DashboardAction, request: FastifyRequest): Promise<void> {
  if (await allow?.(action, request) !== true) throw new WebsocketGroupsError('WSG_FORBIDDEN', `allow does not permit ${action}`)
}

/** Adds the routes that tell which actions a request may take, and that carry them out. */
export function addActions (app: FastifyInstance, allow: Allow | undefined): void {
  const { registry } = app
  app.get('/permissions', async request => {
    const allowed = await Promise.all(dashboardActions.map(async action => await allow?.(action, request) === true))
    return dashboardActions.filter((_, at) => allowed[at])
  })
  // Without `allow` no action is possible: leave the route out.
  if (allow === undefined) return
  app.post<{ Body: Order }>('/actions', { preValidation: fromPage, schema: { body: orderSchema } }, async request => {
    const order = request.body
    await assertAllowed(allow, order.action, request)
    try {
      const done = await carryOut(registry, order)
      logEvent(request.log, 'dashboard_action', { ...order, address: request.ip, done })
      return { done }
    } catch (error) {
      // In an outage a part of it may be done.
      logEvent(request.log, 'dashboard_action', { ...order, address: request.ip, err: error })
      throw error
    }
  })
}

/** Resolves with how many connections the action closed or took out of the group. */
async function carryOut (registry: Registry, { action, userId, group = '', reason, forMs = 0 }: Order): Promise<number> {
  switch (action) {
    case 'disconnect': return await registry.disconnect({ userId }, { reason })
    case 'kick': return await registry.leave({ userId }, group, { reason })
    case 'block': return await registry.block({ userId }, { forMs })
    case 'unblock':
      await registry.unblock({ userId })
      return 0
  }
}

/** Browsers name the origin with every POST, so a request without it does not come from this page. */
async function fromPage (request: FastifyRequest): Promise<void> {
  if (request.headers.origin === undefined) throw new WebsocketGroupsError('WSG_FORBIDDEN', 'an action must name its origin')
}
