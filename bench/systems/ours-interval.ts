import { publisher, serve } from './ours.ts'
import type { System } from './system.ts'

/** Messages wait up to 10 ms for others that can go out in the same write. */
export const system: System = {
  name: 'fastify-websocket-groups, flushIntervalMs: 10',
  protocol: 'ws',
  path: '/ws/room%u',
  serve: async (port, redis, options) => await serve(port, redis, options, { flushIntervalMs: 10 }),
  publisher: async redis => publisher(redis)
}
