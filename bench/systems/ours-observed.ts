import { context } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { BasicTracerProvider, BatchSpanProcessor, type SpanExporter } from '@opentelemetry/sdk-trace-base'
import * as websocketGroups from 'fastify-websocket-groups'
import groupsDashboard from 'fastify-websocket-groups/dashboard'
import groupsMetrics from 'fastify-websocket-groups/metrics'
import { openTelemetry } from 'fastify-websocket-groups/opentelemetry'
import { applicationOn } from './ours-common.ts'
import type { System } from './system.ts'

/** As often as Prometheus asks in a setup that wants to know soon. */
const scrapeMs = 5_000

/** Takes spans as an exporter does, and sends them nowhere: the network is not what is measured. */
const exporter: SpanExporter = {
  export (_spans, done) { done({ code: 0 }) },
  async shutdown () {}
}
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
const tracerProvider = new BasicTracerProvider({ spanProcessors: [new BatchSpanProcessor(exporter)] })

/** With all that tells what it does: each span recorded, metrics that are asked for, and the dashboard, which nobody looks at. */
export const system: System = {
  name: 'fastify-websocket-groups, metrics, traces, dashboard',
  protocol: 'ws',
  path: '/ws/room%u',
  ...applicationOn(websocketGroups, { tracing: openTelemetry({ tracerProvider }) }, async app => {
    await app.register(groupsMetrics)
    await app.register(groupsDashboard, { prefix: '/groups', auth: async () => {} })
    setInterval(() => { void app.inject('/metrics') }, scrapeMs)
  })
}
