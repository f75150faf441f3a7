import t from 'tap'
import swagger from '@fastify/swagger'
import groupsApi from '../../lib/operations/api.ts'
import type { Message } from '../helpers/client.ts'
import { heard, onEveryCluster, redisCluster, type InstanceOptions } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { service } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

interface Answer {
  readonly status: number
  readonly body: {
    readonly messages: ReadonlyArray<{ readonly position: string }>
    readonly people: readonly unknown[]
    readonly cursor: string
  }
}

interface People { readonly people: readonly unknown[], readonly ageMs: number | null }

noUnhandled(t)
const redis = await startRedis(t)

const withApi: InstanceOptions = {
  routes (app) {
    void app.register(groupsApi, {
      prefix: '/api',
      async auth ({ headers }) {
        if (headers.authorization !== 'Bearer service') throw Object.assign(new Error('not you'), { statusCode: 401 })
      }
    })
  }
}

onEveryCluster(t, redis, 'services in other languages publish, read and disconnect over HTTP', async (t, cluster) => {
  const [a, b] = [await cluster.start(withApi), await cluster.start()]
  const [x, y] = [await b.enter('news', { user: 'ann' }), await b.enter('news', { user: 'bob' })]
  const call = async (method: 'GET' | 'POST', url: string, payload?: object, token = 'service'): Promise<Answer> => {
    const response = await fetch(`${a.url.replace('ws', 'http')}/api${url}`, {
      method,
      headers: { authorization: `Bearer ${token}`, ...(payload === undefined ? {} : { 'content-type': 'application/json' }) },
      ...(payload === undefined ? {} : { body: JSON.stringify(payload) })
    })
    return { status: response.status, body: await response.json() as Answer['body'] }
  }
  const publish = async (body: object): Promise<Answer> => await call('POST', '/publish', body)
  t.match(await publish({ to: { group: 'news' }, data: 'a text', from: { userId: 'python' } }), {
    status: 200, body: { scope: 'cluster', position: String }
  })
  await publish({ to: { groups: ['news', 'other'] }, data: { n: 1 }, except: [{ userId: 'bob' }] })
  await publish({ to: { group: 'news' }, base64: 'AP8=', volatile: true })
  await publish({ to: { userId: 'bob' }, data: 'to bob' })
  await publish({ to: { group: 'news' }, data: 'once', idempotencyKey: 'k' })
  t.match(await publish({ to: { group: 'news' }, data: 'once', idempotencyKey: 'k' }), { body: { duplicate: true } })
  await publish({ to: { group: 'news' }, data: 'for nobody', filter: { tags: ['vip'] } })
  await publish({ to: { all: true }, data: 'over' })
  for (const one of [x, y]) await one.client.nextWhere(message => message === 'over')
  const bytes: Message = Buffer.from([0, 255])
  t.strictSame([heard(x), heard(y)], [['a text', '{"n":1}', bytes, 'once', 'over'], ['a text', bytes, 'to bob', 'once', 'over']])

  t.match(await call('GET', '/groups?prefix=n'), { status: 200, body: { groups: ['news'], missing: 0 } })
  const history = (await call('GET', '/groups/news/history?limit=2&since=start')).body
  t.match(
    history, { messages: [{ data: 'a text', from: { userId: 'python' }, at: Number, position: String }, { data: '{"n":1}' }], more: true }
  )
  t.match((await call('GET', `/groups/news/history?since=${history.messages[1]?.position}`)).body, {
    messages: [{ data: 'once' }, {}], more: false
  })
  const people = (await call('GET', '/groups/news/presence?limit=1')).body
  t.match(people, { people: [{ userId: 'ann', connections: 1, joinedAt: Number }], cursor: String, ageMs: 0 })
  t.match((await call('GET', `/groups/news/presence?cursor=${people.cursor}`)).body.people, [{ userId: 'bob' }])

  t.strictSame(await call('POST', '/disconnect', { userId: 'ann', code: 4000, reason: 'bye' }), { status: 200, body: { disconnected: 1 } })
  t.match(await x.client.closed, { code: 4000, reason: 'bye' })
  t.strictSame((await call('POST', '/disconnect', { connectionId: y.id })).body, { disconnected: 1 })

  for (const [method, url, body, status, code] of [
    ['POST', '/publish', { to: { group: 'x', all: true }, data: '' }, 400, 'FST_ERR_VALIDATION'],
    ['POST', '/publish', { to: {}, data: '' }, 400, 'FST_ERR_VALIDATION'],
    ['POST', '/publish', { data: '' }, 400, 'FST_ERR_VALIDATION'],
    ['POST', '/publish', { to: { group: 'x' } }, 400, 'WSG_DATA_INVALID'],
    ['POST', '/publish', { to: { group: 'x' }, data: 1, base64: '' }, 400, 'WSG_DATA_INVALID'],
    ['POST', '/publish', { to: { group: 'x' }, base64: 'AP8?' }, 400, 'FST_ERR_VALIDATION'],
    ['POST', '/publish', { to: { group: 'x' }, base64: 'AP8AA' }, 400, 'WSG_DATA_INVALID'],
    ['GET', '/groups?cursor=%00', undefined, 400, 'FST_ERR_VALIDATION'],
    ['POST', '/publish', { to: { group: 'x\n' }, data: 1 }, 400, 'WSG_GROUP_NAME_INVALID'],
    ['POST', '/disconnect', { userId: 'ann', connectionId: y.id }, 400, 'FST_ERR_VALIDATION'],
    ['POST', '/disconnect', { userId: 'ann', code: 1 }, 400, 'WSG_CLOSE_CODE_INVALID'],
    ['GET', '/groups/news/history?since=nowhere', undefined, 400, 'WSG_POSITION_INVALID'],
    ['GET', '/groups?limit=0', undefined, 400, 'FST_ERR_VALIDATION']
  ] as const) t.match(await call(method, url, body), { status, body: { code } }, `${method} ${url} ${JSON.stringify(body)}`)
  for (const [method, url, body] of [['POST', '/publish', { to: { all: true }, data: 'x' }], ['GET', '/groups', undefined]] as const) {
    t.equal((await call(method, url, body, 'stranger')).status, 401)
  }
})

t.test('a list of people that is not of now says so', async t => {
  const cluster = await redisCluster(t, undefined, withApi)
  const a = await cluster.start()
  for (const room of ['news', 'other']) await a.enter(room, { user: 'ann' })
  const ask = async (group: string): Promise<People> => {
    const url = `${a.url.replace('ws', 'http')}/api/groups/${group}/presence`
    return await (await fetch(url, { headers: { authorization: 'Bearer service' } })).json() as People
  }
  t.match(await ask('news'), { people: [{ userId: 'ann' }], ageMs: 0 })
  await cluster.redis.kill()
  await until(() => a.registry.health().status === 'down')
  const { people, ageMs } = await ask('news')
  t.match(people, [{ userId: 'ann' }])
  t.ok(Number(ageMs) > 0)
  t.match(await ask('other'), { people: [{ userId: 'ann' }], ageMs: null }, 'nobody knows who is there at other instances')
  await cluster.redis.restart()
})

t.test('the routes are in the OpenAPI document, and without auth there are none', async t => {
  const { app } = await service(t)
  await app.register(swagger, { openapi: {} })
  await app.register(groupsApi, { prefix: '/api', async auth () {} })
  await app.ready()
  t.strictSame(Object.keys((app.swagger() as { readonly paths: object }).paths).sort(), [
    '/api/disconnect', '/api/groups', '/api/groups/{group}/history', '/api/groups/{group}/presence', '/api/publish'
  ])
  const { headers } = await app.inject('/api/groups/news/history')
  t.equal(headers['cache-control'], 'no-store', 'no cache keeps what was said')
  const { app: open } = await service(t)
  const denied = await service(t)
  await denied.app.register(groupsApi, { auth: async () => false })
  t.match((await denied.app.inject('/groups')).json(), { statusCode: 403, code: 'WSG_FORBIDDEN' }, 'false refuses')
  await t.rejects(async () => await open.register(groupsApi, {} as never), { code: 'WSG_OPTION_INVALID', message: /needs `auth`/ })
})
