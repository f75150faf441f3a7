import { publisher, serve } from './ours.ts'
import type { System } from './system.ts'

/** Without logs: every broadcast travels by PUBLISH alone, as those of the others do. */
export const system: System = {
  name: 'fastify-websocket-groups, log: false',
  protocol: 'ws',
  path: '/ws/room%u',
  serve: async (port, redis, options) => await serve(port, redis, options, { log: false }),
  publisher: async redis => publisher(redis, { log: false })
}
