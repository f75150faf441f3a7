import * as websocketGroups from 'fastify-websocket-groups'
import groupsDashboard from 'fastify-websocket-groups/dashboard'
import groupsMetrics from 'fastify-websocket-groups/metrics'
import { openTelemetry } from 'fastify-websocket-groups/opentelemetry'
import { applicationOn } from './ours-common.ts'
import { startSdk } from './sdk.ts'
import type { System } from './system.ts'

/** As often as Prometheus asks in a setup that wants to know soon. */
const scrapeMs = 5_000

/** With all that tells what it does: each span recorded, metrics that are asked for, and the dashboard, which nobody looks at. */
export const system: System = {
  name: 'fastify-websocket-groups, metrics, traces, dashboard',
  protocol: 'ws',
  path: '/ws/room%u',
  ...applicationOn(websocketGroups, { tracing: openTelemetry({ tracerProvider: startSdk() }) }, async app => {
    await app.register(groupsMetrics)
    await app.register(groupsDashboard, { prefix: '/groups', auth: async () => {} })
    // Once before anything is counted: the first request loads what `inject` needs, which Prometheus does not use: 10 to 20 ms.
    app.addHook('onListen', async () => { await app.inject('/metrics') })
    setInterval(() => { void app.inject('/metrics') }, scrapeMs)
  })
}
