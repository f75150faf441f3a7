import * as websocketGroups from 'fastify-websocket-groups'
import { applicationOn } from './ours-common.ts'
import type { System } from './system.ts'

/** Messages wait up to 10 ms for others that can go out in the same write. */
export const system: System = {
  name: 'fastify-websocket-groups, flushIntervalMs: 10',
  protocol: 'ws',
  path: '/ws/room%u',
  ...applicationOn(websocketGroups, { flushIntervalMs: 10 })
}
