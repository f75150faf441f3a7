import * as websocketGroups from 'fastify-websocket-groups'
import { applicationOn } from './ours-common.ts'
import type { System } from './system.ts'

/** Without logs: every broadcast travels by PUBLISH alone, as those of the others do. */
export const system: System = {
  name: 'fastify-websocket-groups, log: false',
  protocol: 'ws',
  path: '/ws/room%u',
  ...applicationOn(websocketGroups, { log: false })
}
