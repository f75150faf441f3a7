import * as websocketGroups from 'fastify-websocket-groups'
import { applicationOn } from './ours-common.ts'
import { startSdk } from './sdk.ts'
import type { System } from './system.ts'

const tracer = startSdk().getTracer('application')

/** The package traces nothing; the application makes a span of its own for each upgrade, as the package would. */
export const system: System = {
  name: 'fastify-websocket-groups, spans of the application',
  protocol: 'ws',
  path: '/ws/room%u',
  ...applicationOn(websocketGroups, {}, async app => {
    app.addHook('onRequest', async ({ url }) => {
      tracer.startSpan('connect', { attributes: { 'url.path': url, 'http.request.method': 'GET' } }).end()
    })
  })
}
