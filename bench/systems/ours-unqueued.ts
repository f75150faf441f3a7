import * as websocketGroups from 'fastify-websocket-groups'
import { openTelemetry } from 'fastify-websocket-groups/opentelemetry'
import { applicationOn } from './ours-common.ts'
import { startSdk } from './sdk.ts'
import type { System } from './system.ts'

/** Each span is recorded and given to the exporter at once: what tracing takes without the queue of the SDK. */
export const system: System = {
  name: 'fastify-websocket-groups, traces without a queue',
  protocol: 'ws',
  path: '/ws/room%u',
  ...applicationOn(websocketGroups, { tracing: openTelemetry({ tracerProvider: startSdk('at once') }) })
}
