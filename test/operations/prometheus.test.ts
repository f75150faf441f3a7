import t from 'tap'
import fastifyMetrics from 'fastify-metrics'
import { Registry, type OpenMetricsContentType } from 'prom-client'
import groupsMetrics from '../../lib/operations/metrics.ts'
import websocketGroups from '../../plugin.ts'
import { connect } from '../helpers/client.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { bareService, service, serve, type Served } from '../helpers/service.ts'

noUnhandled(t)

async function busy (t: Parameters<typeof serve>[0], register?: Registry): Promise<Served> {
  const served = await serve(t, { authenticate: () => ({}) }, app => {
    void app.register(groupsMetrics, { register, endpoint: '/metrics' })
    app.wsRoom('/ws/:room', { auth: false })
  })
  const client = connect(t, `${served.url}/ws/lobby`)
  await client.opened
  client.send('hi')
  await client.next()
  return served
}

t.test('the route speaks the format of Prometheus, as prom-client does', async (t) => {
  const register = new Registry()
  const { app } = await busy(t, register)
  const own = await app.inject('/metrics')
  t.equal(own.statusCode, 200)
  t.equal(own.headers['content-type'], Registry.PROMETHEUS_CONTENT_TYPE)
  t.match(own.body, /^# HELP websocket_groups_connections Connections of this instance\.$/m)
  t.match(own.body, /^# TYPE websocket_groups_connections gauge\nwebsocket_groups_connections 1$/m)
  t.match(own.body, /^websocket_groups_publish_to_delivery_seconds_bucket\{le="\+Inf"\} 1$/m)
  t.match(own.body, /^websocket_groups_route_messages_total\{route="\/ws\/:room",direction="in"\} 1$/m)
  // Line by line: two snapshots of the same numbers, written by two programs.
  t.same(own.body.trim().split(/\n+/), (await register.metrics()).trim().split(/\n+/))
})

t.test('prom-client writes OpenMetrics and JSON of them, and merges registries', async (t) => {
  const register = new Registry()
  ;(register as unknown as Registry<OpenMetricsContentType>).setContentType(Registry.OPENMETRICS_CONTENT_TYPE)
  const { app } = await busy(t, register)
  const text = await register.metrics()
  t.match(text, /^# TYPE websocket_groups_connections_opened counter\nwebsocket_groups_connections_opened_total 1$/m)
  t.match(text, /# EOF\n$/)
  const json = await register.getMetricsAsJSON()
  t.match(json.find(({ name }) => name === 'websocket_groups_connections'), { type: 'gauge', values: [{ value: 1 }] })
  register.resetMetrics()
  t.match(await Registry.merge([register]).metrics(), /^websocket_groups_connections_opened_total 1$/m)
  await app.close()
  t.strictSame(register.getMetricsAsArray(), [], 'a closed application leaves the registry as it was')
})

t.test('with fastify-metrics they stand among the others', async (t) => {
  const { app } = bareService(t)
  await app.register(fastifyMetrics.default, { endpoint: '/metrics', defaultMetrics: { enabled: false } })
  await app.register(websocketGroups)
  await app.register(groupsMetrics, { register: app.metrics.client.register, namePrefix: 'chat_' })
  await app.ready()
  const { body } = await app.inject('/metrics')
  t.match(body, /^chat_connections 0$/m)
  t.match(body, /^# TYPE chat_join_duration_seconds histogram$/m)
  t.notMatch(body, /^websocket_groups_/m)
})

t.test('it may be registered twice, and two applications share a registry by different names', async (t) => {
  const register = new Registry()
  const start = async (namePrefix: string): Promise<Served> => await serve(t, {}, app => {
    void app.register(groupsMetrics)
    void app.register(groupsMetrics, { register, namePrefix })
  })
  const [first] = [await start('chat_'), await start('game_')]
  t.match((await first.app.inject('/metrics')).body, /^websocket_groups_connections 0$/m)
  const names = register.getMetricsAsArray().map(({ name }) => name)
  t.ok(names.includes('chat_connections') && names.includes('game_connections'))
  await t.rejects(start('chat_'), /chat_\w+ has already been registered/, 'the same names would mix their numbers')
  await first.app.close()
  t.strictSame(register.getMetricsAsArray().filter(({ name }) => name.startsWith('chat_')), [], 'each takes its own away')
  t.ok(register.getMetricsAsArray().length > 0)
})

t.test('hooks of its scope protect the route, and a prefix moves it', async (t) => {
  const { app } = await service(t)
  await app.register(async scope => {
    scope.addHook('onRequest', async (_request, reply) => await reply.code(401).send())
    await scope.register(groupsMetrics, { prefix: '/internal', endpoint: '/prometheus' })
  })
  t.equal((await app.inject('/internal/prometheus')).statusCode, 401)
  t.equal((await app.inject('/metrics')).statusCode, 404)
})

t.test('wrong options are refused, and so is an application without groups', async (t) => {
  const wrong = [{ register: {} }, { endpoint: 'metrics' }, { namePrefix: '1-' }, { unknown: 1 }]
  for (const options of wrong) {
    const { app } = await service(t)
    await t.rejects(async () => await app.register(groupsMetrics, options as object), { code: 'WSG_OPTION_INVALID' })
  }
  const { app } = bareService(t)
  await t.rejects(async () => await app.register(groupsMetrics), /fastify-websocket-groups/)
})
