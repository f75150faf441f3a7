import {
  context, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace, TraceFlags,
  type Attributes, type Context, type Link, type Span, type SpanContext, type TracerProvider
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
const traceparentForm = /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/
const operations: Partial<Record<SpanFacts['name'], string>> = { send: 'send', deliver: 'process', message: 'process' }

/** Makes the option `tracing`: spans by OpenTelemetry, with its conventions for messaging. Spans never contain payloads or tokens. */
export function openTelemetry ({ tracerProvider }: OpenTelemetryOptions = {}): Tracing {
  const tracer = (tracerProvider ?? trace).getTracer('fastify-websocket-groups', versions.version)

  const start = (facts: SpanFacts, parent: Context, root: boolean, linked?: SpanContext, startTime?: number): Span => {
    const links: Link[] = linked === undefined ? [] : [{ context: linked }]
    return tracer.startSpan(
      titleOf(facts), { kind: kinds[facts.name], attributes: attributesOf(facts), root, links, startTime }, parent
    )
  }

  return {
    run<Result> (facts: SpanFacts, work: () => Result): Result {
      const active = context.active()
      // A connection lives for hours: its messages start traces of their own, linked to the request that opened it.
      const opener = facts.name === 'message' ? trace.getSpanContext(active) : undefined
      const apart = facts.name === 'message' || facts.name === 'repair'
      const span = start(facts, active, apart, opener)
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

    delivered (facts, traceparent, startedAt, endedAt) {
      const sender = parse(traceparent)
      if (sender === undefined) return
      // What is active here is whatever opened the link to Redis, and says nothing about the message.
      start(facts, trace.setSpanContext(ROOT_CONTEXT, sender), false, sender, startedAt).end(endedAt)
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

function titleOf ({ name, to, route = '' }: SpanFacts): string {
  const about = to ?? route
  return about === '' ? name : `${name} ${about}`
}

/** Called for each message: makes one object, and no others on the way. */
function attributesOf ({ name, to, group, route, connectionId, bytes, recipients }: SpanFacts): Attributes {
  const attributes: Attributes = { 'messaging.system': system }
  const operation = operations[name]
  if (operation !== undefined) {
    attributes['messaging.operation.name'] = name
    attributes['messaging.operation.type'] = operation
  }
  if (to !== undefined) attributes['messaging.destination.template'] = to
  if (group !== undefined) attributes['messaging.destination.name'] = group
  if (bytes !== undefined) attributes['messaging.message.body.size'] = bytes
  if (route !== undefined && route !== '') attributes['http.route'] = route
  if (connectionId !== undefined) attributes['websocket_groups.connection.id'] = connectionId
  if (recipients !== undefined) attributes['websocket_groups.recipients'] = recipients
  return attributes
}

function parse (traceparent: string): SpanContext | undefined {
  if (!traceparentForm.test(traceparent)) return undefined
  return {
    traceId: traceparent.slice(3, 35),
    spanId: traceparent.slice(36, 52),
    traceFlags: Number.parseInt(traceparent.slice(53), 16),
    isRemote: true
  }
}
