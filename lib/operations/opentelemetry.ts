import {
  context, SpanKind, SpanStatusCode, trace, TraceFlags,
  type Attributes, type Context, type Span, type SpanContext, type SpanOptions, type TracerProvider
} from '@opentelemetry/api'
import type { SpanFacts, Tracing } from '../types.ts'
import { isThenable } from '../connection/inbound/callback-results.ts'
import { versions } from '../version.ts'

export interface OpenTelemetryOptions {
  /** @default the global provider, which the SDK of OpenTelemetry registers */
  readonly tracerProvider?: TracerProvider | undefined
}

const system = 'websocket_groups'
const kinds: Record<SpanFacts['name'], SpanKind> = {
  send: SpanKind.PRODUCER, deliver: SpanKind.CONSUMER, connect: SpanKind.INTERNAL, message: SpanKind.CONSUMER, repair: SpanKind.INTERNAL
}
const operations: Partial<Record<SpanFacts['name'], string>> = { send: 'send', deliver: 'process', message: 'process' }

/** Makes the option `tracing`: spans by OpenTelemetry, with its conventions for messaging. Spans never contain payloads or tokens. */
export function openTelemetry ({ tracerProvider }: OpenTelemetryOptions = {}): Tracing {
  const tracer = (tracerProvider ?? trace).getTracer('fastify-websocket-groups', versions.version)

  const start = (facts: SpanFacts, parent: Context, options: SpanOptions): Span => {
    const { name, to, route } = facts
    return tracer.startSpan([name, to ?? route].filter(part => part !== undefined && part !== '').join(' '), {
      kind: kinds[name], attributes: attributesOf(facts), ...options
    }, parent)
  }

  return {
    run<Result> (facts: SpanFacts, work: () => Result): Result {
      const active = context.active()
      // A connection lives for hours: its messages start traces of their own, linked to the request that opened it.
      const opener = facts.name === 'message' ? trace.getSpanContext(active) : undefined
      const apart = facts.name === 'message' || facts.name === 'repair'
      const span = start(facts, active, { root: apart, ...(opener === undefined ? {} : { links: [{ context: opener }] }) })
      try {
        const result = context.with(trace.setSpan(active, span), work)
        if (isThenable(result)) return ended(span, result) as Result
        span.end()
        return result
      } catch (error) {
        fail(span, error)
        throw error
      }
    },

    inject () {
      const current = trace.getSpanContext(context.active())
      if (current === undefined || (current.traceFlags & TraceFlags.SAMPLED) === 0) return undefined
      return `00-${current.traceId}-${current.spanId}-01`
    },

    delivered (facts, traceparent, startedAt) {
      const sender = parse(traceparent)
      if (sender === undefined) return
      const parent = trace.setSpanContext(context.active(), sender)
      start(facts, parent, { links: [{ context: sender }], startTime: startedAt }).end()
    }
  }
}

async function ended<Value> (span: Span, work: PromiseLike<Value>): Promise<Value> {
  try {
    const value = await work
    span.end()
    return value
  } catch (error) {
    fail(span, error)
    throw error
  }
}

/** Records the code alone: the text of an error may contain what a client sent. */
function fail (span: Span, error: unknown): void {
  const { code, name } = (typeof error === 'object' && error !== null ? error : {}) as { readonly code?: unknown, readonly name?: unknown }
  const type = [code, name].find(one => typeof one === 'string') ?? '_OTHER'
  span.setAttribute('error.type', type as string)
  span.setStatus({ code: SpanStatusCode.ERROR })
  span.end()
}

function attributesOf ({ name, to, group, route, connectionId, bytes, recipients }: SpanFacts): Attributes {
  const operation = operations[name]
  return {
    'messaging.system': system,
    ...(operation === undefined ? {} : { 'messaging.operation.name': name, 'messaging.operation.type': operation }),
    ...(to === undefined ? {} : { 'messaging.destination.template': to }),
    ...(group === undefined ? {} : { 'messaging.destination.name': group }),
    ...(bytes === undefined ? {} : { 'messaging.message.body.size': bytes }),
    ...(route === undefined || route === '' ? {} : { 'http.route': route }),
    ...(connectionId === undefined ? {} : { 'websocket_groups.connection.id': connectionId }),
    ...(recipients === undefined ? {} : { 'websocket_groups.recipients': recipients })
  }
}

function parse (traceparent: string): SpanContext | undefined {
  const [, traceId, spanId, flags] = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/.exec(traceparent) ?? []
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true }
}
