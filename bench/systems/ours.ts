import Fastify from 'fastify'
import { setTimeout as sleep } from 'node:timers/promises'
import websocketGroups, { WebsocketGroupsError } from 'fastify-websocket-groups'
import { connect } from 'fastify-websocket-groups/client'
import { WebSocket } from 'ws'
import type { System } from './system.ts'

export const system: System = {
  name: 'fastify-websocket-groups',

  async serve (port, redis) {
    const app = Fastify()
    await app.register(websocketGroups, { redis, rooms: { '/ws/:room': { auth: false } } })
    await app.listen({ port, host: '127.0.0.1' })
    return {
      async publish (group, text) {
        // With a key it may be sent again when Redis did not answer in time.
        while (!await sent(app.registry.broadcastToGroup(group, text, { idempotencyKey: text }))) await sleep(50)
      },
      stats: () => app.registry.stats(),
      async close () { await app.close() }
    }
  },

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

async function sent (broadcast: Promise<unknown>): Promise<boolean> {
  try {
    await broadcast
    return true
  } catch (error) {
    if (error instanceof WebsocketGroupsError && (error.code === 'WSG_TIMEOUT' || error.code === 'WSG_BACKPLANE_UNAVAILABLE')) return false
    throw error
  }
}
