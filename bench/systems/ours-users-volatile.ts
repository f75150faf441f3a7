import * as websocketGroups from 'fastify-websocket-groups'
import { applicationOn } from './ours-common.ts'
import type { System } from './system.ts'

/** As `ours-users`, without logs of users. */
export const system: System = {
  name: 'fastify-websocket-groups, users, userLog: false',
  protocol: 'ws',
  path: '/ws/room%u',
  ...applicationOn(websocketGroups, { users: true, userLog: false })
}
