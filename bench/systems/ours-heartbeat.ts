import * as websocketGroups from 'fastify-websocket-groups'
import { applicationOn } from './ours-common.ts'
import type { System } from './system.ts'

/** Each client is pinged once a second instead of every 30 s, so that it can be measured. */
export const system: System = {
  name: 'fastify-websocket-groups, a ping each second',
  protocol: 'ws',
  path: '/ws/room%u',
  ...applicationOn(websocketGroups, { heartbeatIntervalMs: 1_000 })
}
