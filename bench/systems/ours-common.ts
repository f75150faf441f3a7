import Fastify, { type FastifyInstance } from 'fastify'
import { setTimeout as sleep } from 'node:timers/promises'
import type * as WebsocketGroups from 'fastify-websocket-groups'
import type { Package } from './before-package.ts'
import type { DrillInstance, Publisher, ServeOptions } from './system.ts'

type Option = 'log' | 'userLog' | 'flushIntervalMs' | 'heartbeatIntervalMs' | 'tracing'
interface Settings extends Pick<WebsocketGroups.WebsocketGroupsOptions, Option> {
  /** Each connection is one of another user. */
  readonly users?: boolean
}

interface Application {
  serve (port: number, redis: string, options?: ServeOptions): Promise<DrillInstance>
  publisher (redis: string): Promise<Publisher>
}

/** The application that is measured, on this package or on another build of it; `extend` adds what else it has. */
export function applicationOn (
  wsg: Package, { users = false, ...settings }: Settings = {}, extend?: (app: FastifyInstance) => Promise<void>
): Application {
  const { default: websocketGroups, createPublisher, WebsocketGroupsError } = wsg
  const retried = ['WSG_TIMEOUT', 'WSG_BACKPLANE_UNAVAILABLE']

  async function isSent (broadcast: Promise<unknown>): Promise<boolean> {
    try {
      await broadcast
      return true
    } catch (error) {
      if (error instanceof WebsocketGroupsError && retried.includes(error.code)) return false
      throw error
    }
  }

  return {
    async serve (port, redis, { announce = false } = {}) {
      const app = Fastify()
      await app.register(websocketGroups, { redis, ...settings })
      await extend?.(app)
      app.wsRoom('/ws/:room', {
        auth: false,
        ...(users ? { preHandler: async request => { request.identity = { userId: `${app.registry.instanceId}-${request.id}` } } } : {}),
        ...(announce ? { onJoin: connection => { connection.send('joined') } } : {})
      })
      await app.listen({ port, host: '127.0.0.1' })
      return {
        async publish (group, text) {
          // With a key it may be sent again when Redis did not answer in time.
          while (!await isSent(app.registry.broadcastToGroup(group, text, { idempotencyKey: text }))) await sleep(50)
        },
        stats: () => app.registry.stats(),
        async close () { await app.close() }
      }
    },
    async publisher (redis) {
      const { log, tracing } = settings
      const publisher = createPublisher({ redis, tracing, ...(log === undefined ? {} : { log }) })
      return { publish: async (group, data) => await publisher.broadcastToGroup(group, data) }
    }
  }
}
