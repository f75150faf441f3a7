import { publisher, serve } from './ours.ts'
import type { System } from './system.ts'

/** Each client is pinged once a second instead of every 30 s, so that it can be measured. */
export const system: System = {
  name: 'fastify-websocket-groups, a ping each second',
  protocol: 'ws',
  path: '/ws/room%u',
  serve: async (port, redis, options) => await serve(port, redis, options, { heartbeatIntervalMs: 1_000 }),
  publisher: async redis => publisher(redis)
}
