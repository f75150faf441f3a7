import * as websocketGroups from 'fastify-websocket-groups'
import { applicationOn } from './ours-common.ts'
import type { System } from './system.ts'

/** Each connection is one of another user: what the logs of users cost, beside `ours-users-volatile`. */
export const system: System = {
  name: 'fastify-websocket-groups, users',
  protocol: 'ws',
  path: '/ws/room%u',
  ...applicationOn(websocketGroups, { users: true })
}
