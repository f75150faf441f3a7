import { context } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { BasicTracerProvider, BatchSpanProcessor, SimpleSpanProcessor, type SpanExporter } from '@opentelemetry/sdk-trace-base'

/** Takes spans as an exporter does, and sends them nowhere: the network is not what is measured. */
const exporter: SpanExporter = {
  export (_spans, done) { done({ code: 0 }) },
  async shutdown () {}
}

/** The SDK of OpenTelemetry, which exports its spans in batches, as services do, or each at once. */
export function startSdk (exported: 'in batches' | 'at once' = 'in batches'): BasicTracerProvider {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
  const processor = exported === 'in batches' ? new BatchSpanProcessor(exporter) : new SimpleSpanProcessor(exporter)
  return new BasicTracerProvider({ spanProcessors: [processor] })
}
