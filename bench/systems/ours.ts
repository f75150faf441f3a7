import Fastify from 'fastify'
import { setTimeout as sleep } from 'node:timers/promises'
import websocketGroups, { createPublisher, WebsocketGroupsError, type WebsocketGroupsOptions } from 'fastify-websocket-groups'
import { connect } from 'fastify-websocket-groups/client'
import { WebSocket } from 'ws'
import type { DrillInstance, DrillSystem, Publisher, ServeOptions } from './system.ts'

type Settings = Pick<WebsocketGroupsOptions, 'log' | 'flushIntervalMs' | 'heartbeatIntervalMs'>

export const system: DrillSystem = {
  name: 'fastify-websocket-groups',
  protocol: 'ws',
  path: '/ws/room%u',
  serve: async (port, redis, options) => await serve(port, redis, options),
  publisher: async redis => publisher(redis),

  connect ({ group, agent, backoffMs }, events) {
    class AgentWebSocket extends WebSocket {
      constructor (url: string, protocols: string[]) {
        super(url, protocols, { agent })
      }
    }
    const client = connect(`ws://localhost/ws/${group}`, {
      WebSocket: AgentWebSocket,
      ...(backoffMs === undefined ? {} : { backoff: { minMs: backoffMs * 2, maxMs: backoffMs * 2 } })
    })
    client.on('message', ({ data }) => events.message(String(data)))
    client.on('joined', () => events.open())
    client.on('gap', () => events.signalled())
    client.on('state', ({ previous }) => { if (previous === 'open') events.broken() })
    return client
  }
}

export async function serve (port: number, redis: string, { announce = false }: ServeOptions = {}, settings: Settings = {}): Promise<DrillInstance> {
  const app = Fastify()
  await app.register(websocketGroups, { redis, ...settings })
  app.wsRoom('/ws/:room', { auth: false, ...(announce ? { onJoin: connection => { connection.send('joined') } } : {}) })
  await app.listen({ port, host: '127.0.0.1' })
  return {
    async publish (group, text) {
      // With a key it may be sent again when Redis did not answer in time.
      while (!await sent(app.registry.broadcastToGroup(group, text, { idempotencyKey: text }))) await sleep(50)
    },
    stats: () => app.registry.stats(),
    async close () { await app.close() }
  }
}

export function publisher (redis: string, settings: Pick<Settings, 'log'> = {}): Publisher {
  const publisher = createPublisher({ redis, ...settings })
  return { publish: async (group, data) => await publisher.broadcastToGroup(group, data) }
}

async function sent (broadcast: Promise<unknown>): Promise<boolean> {
  try {
    await broadcast
    return true
  } catch (error) {
    if (error instanceof WebsocketGroupsError && (error.code === 'WSG_TIMEOUT' || error.code === 'WSG_BACKPLANE_UNAVAILABLE')) return false
    throw error
  }
}
