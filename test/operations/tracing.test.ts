import t, { type Test } from 'tap'
import { context, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { IORedisInstrumentation } from '@opentelemetry/instrumentation-ioredis'
import {
  AlwaysOffSampler, BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor, type ReadableSpan
} from '@opentelemetry/sdk-trace-base'
import { FastifyOtelInstrumentation } from '@fastify/otel'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { openTelemetry } from '../../lib/operations/opentelemetry.ts'
import websocketGroups, { createPublisher, type Tracing } from '../../plugin.ts'
import { bareService } from '../helpers/bare-service.ts'
import { onEveryCluster, redisCluster } from '../helpers/app.ts'
import { connect, upgradeStatus } from '../helpers/client.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { serve } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
const redis = await startRedis(t)
const secret = 'what nobody may read in a trace'

interface Recorder {
  readonly tracing: Tracing
  readonly provider: BasicTracerProvider
  /** The spans that ended, with this name. */
  spans (name: string): ReadableSpan[]
  /** Nothing of a payload is in any of them. */
  assertSilent (t: Test): void
}

function recorder (): Recorder {
  const exporter = new InMemorySpanExporter()
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
  return {
    tracing: openTelemetry({ tracerProvider: provider }),
    provider,
    spans: name => exporter.getFinishedSpans().filter(span => span.name === name),
    assertSilent (t) {
      const told = exporter.getFinishedSpans().map(({ name, attributes, events, status }) => ({ name, attributes, events, status }))
      t.ok(told.length > 0)
      t.notOk(JSON.stringify(told).includes(secret))
    }
  }
}

onEveryCluster(t, redis, 'a broadcast and its delivery by each instance are one trace', async (t, cluster) => {
  const { tracing, spans, assertSilent } = recorder()
  const [a, b] = [await cluster.start({ tracing }), await cluster.start({ tracing })]
  const clients = [
    await a.enter('room'), ...await Promise.all(Array.from({ length: 5 }, async () => await b.enter('room', { user: 'ann' })))
  ]
  for (const volatile of [false, true]) {
    const before = spans('deliver group').length
    await a.registry.broadcastToGroup('room', secret, { volatile, from: { userId: 'bob' } })
    for (const { client } of clients) await client.nextWhere(message => message === secret)
    const [send] = spans('send group').slice(-1)
    t.equal(send?.kind, SpanKind.PRODUCER)
    t.match(send?.attributes, {
      'messaging.system': 'websocket_groups',
      'messaging.operation.type': 'send',
      'messaging.destination.name': 'room',
      'messaging.message.body.size': secret.length
    })
    await until(() => spans('deliver group').length >= before + 2)
    const delivered = spans('deliver group').slice(before)
    t.equal(delivered.length, 2, 'one for each instance, not for each connection')
    for (const span of delivered) {
      t.equal(span.kind, SpanKind.CONSUMER)
      t.equal(span.spanContext().traceId, send?.spanContext().traceId)
      t.equal(span.parentSpanContext?.spanId, send?.spanContext().spanId)
      t.strictSame(span.links.map(({ context }) => context.spanId), [send?.spanContext().spanId])
    }
    t.strictSame(delivered.map(({ attributes }) => attributes['websocket_groups.recipients']).sort(), [1, 5])
  }
  await a.registry.sendToUser('ann', secret)
  await until(() => spans('deliver user').length === 1)
  t.notOk(JSON.stringify(spans('send user').map(({ attributes }) => attributes)).includes('ann'), 'ids of users are not told')
  await a.registry.broadcastToAll(secret)
  await until(() => spans('deliver all').length === 2)
  if (cluster.name === 'redis') {
    await using publisher = createPublisher({ redis: redis.url, tracing })
    await publisher.broadcastToGroup('room', secret)
    await until(() => spans('deliver group').length === 6)
    t.equal(spans('deliver group').at(-1)?.spanContext().traceId, spans('send group').at(-1)?.spanContext().traceId)
  }
  assertSilent(t)
})

t.test('a message of a client is a trace of its own, linked to the request; what it causes is part of it', async (t) => {
  const { tracing, spans, provider, assertSilent } = recorder()
  const instrumentation = new FastifyOtelInstrumentation({ registerOnInitialization: false })
  instrumentation.setTracerProvider(provider)
  const { app, listen } = bareService(t)
  await app.register(instrumentation.plugin())
  await app.register(websocketGroups, { tracing })
  app.wsRoom('/ws/:room', { auth: false, group: ({ room }) => room })
  app.get('/plain', { websocket: true }, app.wsHandler({ onMessage () {} }))
  app.wsRoom('/fails', {
    auth: false,
    group: () => 'fails',
    onMessage () { throw Object.assign(new Error(`cannot read ${secret}`), { code: 'E_BUG' }) }
  })
  const url = (await listen()).replace('http:', 'ws:')
  const client = connect(t, `${url}/ws/lobby`)
  await client.opened
  await until(() => spans('connect /ws/:room').length === 1)
  const [connected] = spans('connect /ws/:room')
  t.match(connected?.attributes, { 'http.route': '/ws/:room', 'websocket_groups.connection.id': String })
  const requestSpan = connected?.parentSpanContext
  t.ok(requestSpan, 'within the request')
  client.ws.send(secret)
  await client.next()
  await until(() => spans('message /ws/:room').length === 1 && spans('send group').length === 1)
  const [message, send] = [spans('message /ws/:room')[0], spans('send group')[0]]
  t.equal(message?.parentSpanContext, undefined)
  t.equal(message?.links[0]?.context.traceId, requestSpan?.traceId)
  t.equal(message?.attributes['messaging.message.body.size'], secret.length)
  t.equal(message?.attributes['http.route'], '/ws/:room')
  t.equal(send?.parentSpanContext?.spanId, message?.spanContext().spanId)

  const plain = connect(t, `${url}/plain`)
  await plain.opened
  await until(() => spans('connect /plain').length === 1)
  t.match(spans('connect /plain')[0]?.attributes, { 'http.route': '/plain' }, 'without onConnect, too')

  const failing = connect(t, `${url}/fails`)
  await failing.opened
  failing.ws.send(secret)
  await failing.closed
  await until(() => spans('message /fails').length === 1)
  t.match(spans('message /fails')[0], { status: { code: SpanStatusCode.ERROR }, attributes: { 'error.type': 'E_BUG' } })
  assertSilent(t)
})

t.test('a token in the URL is in no span of this package, and with the hook of docs/operations.md in none of @fastify/otel', async (t) => {
  const page = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8')
  const hook = String.raw`requestHook: (span, { url }) => span.setAttribute('url.path', url.replace(/\?.*/s, ''))`
  t.ok(page.includes(hook), 'this is what the page advises')
  t.strictSame(await scopesThatTell(t, {}), ['@fastify/otel'], 'without the hook it writes the whole URL')
  t.strictSame(
    await scopesThatTell(t, { requestHook: (span, { url }) => span.setAttribute('url.path', url.replace(/\?.*/s, '')) }), []
  )
})

/** The instrumentations whose spans contain the token of a client that was let in, or of one that was not. */
async function scopesThatTell (t: Test, options: ConstructorParameters<typeof FastifyOtelInstrumentation>[0]): Promise<string[]> {
  // As they start: the span of an upgrade request has no response to end with.
  const spans: ReadableSpan[] = []
  const collect = { onStart (span: ReadableSpan) { spans.push(span) }, onEnd () {}, async forceFlush () {}, async shutdown () {} }
  const tracerProvider = new BasicTracerProvider({ spanProcessors: [collect] })
  const instrumentation = new FastifyOtelInstrumentation({ registerOnInitialization: false, ...options })
  instrumentation.setTracerProvider(tracerProvider)
  const { app, listen } = bareService(t)
  await app.register(instrumentation.plugin())
  await app.register(websocketGroups, {
    tracing: openTelemetry({ tracerProvider }),
    authenticate (token) {
      if (token.startsWith('bad')) throw new Error(`${token} is not known`)
      return { userId: token }
    }
  })
  app.wsRoom('/ws/:room', { auth: { query: 'token' }, group: ({ room }) => room })
  const url = `${(await listen()).replace('http:', 'ws:')}/ws/lobby?token=`
  t.equal((await upgradeStatus(`${url}${encodeURIComponent(`bad ${secret}`)}`)).statusCode, 401)
  const client = connect(t, url + encodeURIComponent(secret))
  await client.opened
  client.ws.send('hello')
  await client.next()
  await until(() => spans.some(({ name }) => name === 'message /ws/:room'))
  const telling = spans.filter(({ name, attributes, events, status, links }) => {
    return decodeURIComponent(JSON.stringify({ name, attributes, events, status, links })).includes(secret)
  })
  return [...new Set(telling.map(({ instrumentationScope }) => instrumentationScope.name))]
}

t.test('what cannot be sent is refused in a span as it is without one', async (t) => {
  const { tracing, spans } = recorder()
  const { registry } = await redisCluster(t, redis, { tracing }).then(async ({ start }) => await start())
  await using publisher = createPublisher({ redis: redis.url, tracing })
  const wrong: readonly unknown[] = [null, undefined, 7, {}, [7], Symbol('s')]
  for (const by of [registry, publisher]) {
    for (const data of wrong) {
      await t.rejects(by.broadcastToAll(data as never), { code: 'WSG_DATA_INVALID' })
      await t.rejects(by.broadcastToGroup('room', data as never), { code: 'WSG_DATA_INVALID' })
      await t.rejects(by.sendToUser('ann', data as never), { code: 'WSG_DATA_INVALID' })
    }
  }
  t.match(spans('send all')[0]?.attributes, { 'error.type': 'WSG_DATA_INVALID' })
})

t.test('what a client missed is read in a span', async (t) => {
  const { tracing, spans } = recorder()
  const { redis, start } = await redisCluster(t, undefined, { tracing })
  const [a, b] = [await start(), await start()]
  const { client } = await b.enter('room')
  await until(async () => {
    await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
    await a.registry.broadcastToGroup('room', 'missed').catch(() => {})
    return (b.registry.stats().repairedMessages ?? 0) > 0
  })
  await client.nextWhere(message => message === 'missed')
  await until(() => spans('repair').some(({ attributes }) => attributes['messaging.destination.name'] === 'room'))
})

t.test('when an application is closed, the spans of all deliveries are made', async (t) => {
  const { tracing, spans } = recorder()
  const { start } = await redisCluster(t, redis, { tracing })
  const { app, registry, enter } = await start()
  const { client } = await enter('room')
  for (const text of ['one', 'two']) {
    await registry.broadcastToGroup('room', text)
    await client.nextWhere(message => message === text)
  }
  await app.close()
  t.equal(spans('deliver group').length, 2)
})

t.test('a tracing system that throws at a delivery keeps nobody from the message, and is told of', async (t) => {
  const traceparent = `00-${'1'.repeat(32)}-${'2'.repeat(16)}-01`
  let told = 0
  const tracing: Tracing = {
    run: (_span, work) => work(),
    inject: () => traceparent,
    delivered () {
      told++
      throw new Error('a span processor failed')
    }
  }
  const { url, registry, logs } = await serve(t, { tracing }, app => { app.wsRoom('/ws/:room', { auth: false }) })
  const client = connect(t, `${url}/ws/lobby`)
  await client.opened
  await until(() => registry.stats().groups === 1)
  for (const text of ['one', 'two']) {
    await registry.broadcastToGroup('lobby', text)
    t.equal(await client.next(), text)
  }
  await until(() => told === 2)
  t.equal(logs.filter(({ event }) => event === 'tracing_failed').length, 1, 'once a minute')
})

t.test('where nobody records, nothing travels', async (t) => {
  const provider = new BasicTracerProvider({ sampler: new AlwaysOffSampler() })
  const tracing = openTelemetry({ tracerProvider: provider })
  tracing.run({ name: 'send' }, () => t.equal(tracing.inject(), undefined))
  t.equal(tracing.inject(), undefined)
  t.throws(() => tracing.run({ name: 'send' }, () => { throw new TypeError('x') }), TypeError)
  for (const broken of ['', 'x', '00-0-0-0', `00-${'z'.repeat(32)}-${'0'.repeat(16)}-01`]) {
    tracing.delivered({ name: 'deliver' }, broken, 0, 0)
  }
})

t.test('the instrumentation of ioredis tells payloads, unless it is told not to', async (t) => {
  const exporter = new InMemorySpanExporter()
  const instrumentation = new IORedisInstrumentation({ requireParentSpan: false })
  instrumentation.setTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }))
  instrumentation.enable()
  t.teardown(() => instrumentation.disable())
  // It patches what is loaded from now on; the prototypes are those of the module that is loaded already.
  createRequire(import.meta.url)('ioredis')
  const { start } = await redisCluster(t, redis)
  const { registry, enter } = await start()
  const { client } = await enter('room')
  const statements = async (): Promise<string> => {
    exporter.reset()
    await registry.broadcastToGroup('room', secret)
    await client.nextWhere(message => message === secret)
    await until(() => exporter.getFinishedSpans().some(({ name }) => name.startsWith('evalsha')))
    return JSON.stringify(exporter.getFinishedSpans().map(({ attributes }) => attributes))
  }
  t.ok((await statements()).includes(secret))
  instrumentation.setConfig({ requireParentSpan: false, dbStatementSerializer: command => command })
  t.notOk((await statements()).includes(secret))
})

t.teardown(() => {
  context.disable()
  trace.disable()
})
