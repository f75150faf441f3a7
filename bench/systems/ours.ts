import * as websocketGroups from 'fastify-websocket-groups'
import { connect } from 'fastify-websocket-groups/client'
import { WebSocket } from 'ws'
import { applicationOn } from './ours-common.ts'
import type { DrillSystem } from './system.ts'

export const system: DrillSystem = {
  name: 'fastify-websocket-groups',
  protocol: 'ws',
  path: '/ws/room%u',
  ...applicationOn(websocketGroups),

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
