import type { FastifyRequest } from 'fastify'
import { WebsocketGroupsError } from '../errors.ts'
import type { MessageContext } from '../types/messages.ts'
import type { BroadcastOptions, BroadcastResult, Connection } from '../types.ts'

/** What a context needs of the route of its message. */
export interface ContextRoute {
  /** Returns the group of a room route; left out on other routes. */
  readonly groupOf?: ((connection: Connection) => string) | undefined
  /** The message set whose events are sent. */
  readonly set: {
    emit (group: string, name: string, data: unknown, options: BroadcastOptions): Promise<BroadcastResult>
    emitToUser (userId: string, name: string, data: unknown, options: BroadcastOptions): Promise<BroadcastResult>
  }
}

/** The argument of a handler. Handlers may destructure it, so `emit` and `emitToUser` do not depend on `this`. */
export class Context implements MessageContext {
  readonly name: string
  /** The data as the schema lets it through; `undefined` until the data is checked. */
  data: unknown
  readonly connection: Connection
  readonly request: FastifyRequest
  readonly #route: ContextRoute

  constructor (name: string, connection: Connection, request: FastifyRequest, route: ContextRoute) {
    this.name = name
    this.connection = connection
    this.request = request
    this.#route = route
  }

  get userId (): string | undefined {
    return this.connection.userId
  }

  get group (): string {
    const { groupOf } = this.#route
    if (groupOf !== undefined) return groupOf(this.connection)
    const [group, ...others] = this.connection.groups
    if (group !== undefined && others.length === 0) return group
    throw new WebsocketGroupsError('WSG_FORBIDDEN', `the connection is in ${others.length === 0 ? 'no group' : 'several groups'}`)
  }

  get emit (): MessageContext['emit'] {
    return async (name, data, options) => await this.#route.set.emit(this.group, name, data, { from: this.connection, ...options })
  }

  get emitToUser (): MessageContext['emitToUser'] {
    return async (userId, name, data, options) => (
      await this.#route.set.emitToUser(userId, name, data, { from: this.connection, ...options })
    )
  }
}
