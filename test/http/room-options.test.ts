import t from 'tap'
import Fastify from 'fastify'
import websocketGroups from '../../plugin.ts'
import { connect } from '../helpers/client.ts'
import { serve } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

t.test('a room takes the options of any route', async t => {
  const seen: string[] = []
  const { url } = await serve(t, {}, app => app.wsRoom('/:room', {
    auth: false,
    config: { of: 'the service' } as never,
    logLevel: 'silent',
    constraints: { host: '127.0.0.1' },
    bodyLimit: 1_000,
    schema: { params: { type: 'object', properties: { room: { type: 'string', maxLength: 5 } } } },
    onRequest: async request => { seen.push(`onRequest ${JSON.stringify(request.routeOptions.config)}`) },
    preValidation: [async request => { seen.push(`preValidation ${request.url}`) }],
    preHandler: async () => { seen.push('preHandler') },
    errorHandler: (error, _request, reply) => { void reply.code(error.statusCode ?? 500).send({ mine: true }) }
  }))
  const client = connect(t, `${url}/lobby`, { headers: { host: '127.0.0.1' } })
  await client.opened
  t.match(seen, [/^onRequest .*"of":"the service"/, 'preValidation /lobby', 'preHandler'])
  client.send('hi')
  t.equal(await client.next(), 'hi')
  const refused = await fetch(`${url.replace('ws', 'http')}/too-long`, { headers: { host: '127.0.0.1' } })
  t.not(refused.status, 200)
})

t.test('a room says which of its options is wrong', async t => {
  await serve(t, {}, app => {
    t.throws(() => app.wsRoom('/:room', { auth: false, onJoined: () => {} } as never), { code: 'WSG_OPTION_INVALID', message: /onJoined/ })
    t.throws(() => app.wsRoom('/:room', { auth: false, presence: 'all' } as never), { message: /true, false or 'count'/ })
    const { wsRoom } = app
    t.throws(() => wsRoom('/:room', { auth: false }), { code: 'WSG_OPTION_INVALID', message: /call it as app\.wsRoom/ })
  })
})

t.test('a number of the schema makes the name of a group', async t => {
  const { app, url } = await serve(t, {}, app => app.wsRoom('/r/:room', {
    auth: false, schema: { params: { type: 'object', properties: { room: { type: 'integer' } } } }
  }))
  const client = connect(t, `${url}/r/7`)
  await client.opened
  await until(async () => await app.registry.groupCount('7') === 1)
})

t.test('wrong use says what is wrong', async t => {
  const { app } = await serve(t, {}, app => {
    const handler = app.wsHandler({ onMessage () {} })
    t.throws(() => app.get('/forgotten', handler as never), { code: 'WSG_OPTION_INVALID', message: /websocket: true/ })
  })
  for (const rubbish of [{}, { id: 7 }, null, 7, 'x', undefined]) {
    await t.rejects(app.registry.join(rubbish as never, 'g'), { code: 'WSG_CONNECTION_GONE', message: /neither a connection nor the id/ })
  }
  const both = { userId: 'ann', group: 'staff' }
  await t.rejects(app.registry.broadcastToGroup('g', 'x', { except: both }), { code: 'WSG_OPTION_INVALID', message: /except/ })
  const other = Fastify()
  t.teardown(async () => await other.close())
  other.decorate('registry', {} as never)
  await t.rejects(async () => { await other.register(websocketGroups, {}) }, { code: 'WSG_OPTION_INVALID', message: /of its own/ })
})

t.test('a value goes out as JSON, encoded once; and what a service keeps with a connection stays there', async t => {
  const { app, url } = await serve(t, {}, app => app.wsRoom('/:room', {
    auth: false,
    onJoin ({ state }) { state.n = 1 },
    onMessage ({ state }, data, group) {
      state.n = Number(state.n) + 1
      return app.registry.broadcastJson(group, { n: state.n, data: String(data) })
    }
  }))
  const client = connect(t, `${url}/lobby`)
  await client.opened
  client.send('a')
  client.send('b')
  t.strictSame([await client.next(), await client.next()], ['{"n":2,"data":"a"}', '{"n":3,"data":"b"}'])
  const circle: Record<string, unknown> = {}
  circle.self = circle
  for (const value of [undefined, () => {}, 1n, circle]) {
    await t.rejects(app.registry.broadcastJson('lobby', value), { code: 'WSG_DATA_INVALID' })
  }
})
