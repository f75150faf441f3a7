import t from 'tap'
import { memoryCluster } from 'fastify-websocket-groups'
import type { FastifyInstance } from 'fastify'
import { buildApp } from '../../example-app/app.ts'
import { connect, upgradeStatus, type TestClient } from '../helpers/client.ts'
import { bearer, getJson, postJson } from './instances.ts'
import { noNginx, startNginx } from './nginx.ts'

t.test('two instances behind nginx, with the configuration of the example', noNginx, async t => {
  const seen: Array<{ readonly ip: string, readonly host: string, readonly protocol: string }> = []
  const cluster = memoryCluster()
  const apps = ['inst1', 'inst2'].map(instanceId => {
    const app = buildApp({ instanceId, backplane: cluster.backplane(), logLevel: 'silent' })
    app.addHook('onRequest', async ({ ip, host, protocol }) => { seen.push({ ip, host, protocol }) })
    t.teardown(async () => await app.close())
    return app
  })
  const portOf = async (app: FastifyInstance): Promise<number> => Number(new URL(await app.listen({ port: 0, host: '127.0.0.1' })).port)
  const [one, two] = apps
  if (one === undefined || two === undefined) throw new Error('there are two')
  const url = await startNginx(t, [await portOf(one), await portOf(two)])
  const enter = async (token: string, headers = {}): Promise<TestClient> => {
    const client = connect(t, `${url}/ws/chat/lobby`, { headers: { ...bearer(token), ...headers } })
    await client.opened
    t.match(await client.next(), /^Welcome /)
    return client
  }

  await t.test('WebSockets spread over both, without sticky sessions, and a room spans them', async t => {
    const clients = []
    for (const token of ['valid-token', 'jane-token', 'alex-token', 'maria-token']) clients.push(await enter(token))
    t.strictSame([one.registry.count(), two.registry.count()], [2, 2])
    t.match(await getJson(`${url}/groups/lobby`, bearer('valid-token')), { status: 200, body: { count: 4 } })

    clients[0]?.send('hi')
    for (const client of clients) t.equal(await client.nextWhere(message => message === '[John Doe]: hi'), '[John Doe]: hi')
    t.match(await postJson(`${url}/groups/lobby/messages`, { text: 'from HTTP' }, bearer('valid-token')), {
      status: 202, body: { scope: 'cluster', localRecipients: 2 }
    })
    for (const client of clients) await client.nextWhere(message => message === '[John Doe]: from HTTP')
    await Promise.all(clients.map(async client => { t.equal((await client.close(1000)).code, 1000, 'the closing handshake goes through') }))
  })

  await t.test('a refused upgrade arrives as the plain HTTP answer that it is', async t => {
    const refused = await upgradeStatus(`${url}/ws/chat/lobby`)
    t.equal(refused.statusCode, 401)
    t.equal(refused.headers['www-authenticate'], 'Bearer')
    t.match(JSON.parse(refused.body), { code: 'WSG_UNAUTHORIZED' })
  })

  await t.test('the token of a browser and a large message pass', async t => {
    const client = connect(t, `${url}/ws/chat/large`, { protocols: ['bearer', 'valid-token'] })
    await client.opened
    t.equal(client.ws.protocol, 'bearer')
    const text = 'x'.repeat(300_000)
    client.send(text)
    t.equal(await client.nextWhere(message => message.length > 1000), `[John Doe]: ${text}`)
  })

  await t.test('the instances see whom nginx talks to, not what the client claims', async t => {
    seen.length = 0
    const client = await enter(
      'valid-token', { 'x-forwarded-for': '203.0.113.9', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'evil.example' }
    )
    t.strictSame(seen, [{ ip: '127.0.0.1', host: new URL(url).host, protocol: 'http' }])
    await client.close()
  })

  await t.test('the page and the health check are there', async t => {
    t.match(await (await fetch(url)).text(), '<title>Rooms</title>')
    t.match(await getJson(`${url}/healthz`), { status: 200, body: { status: 'ok' } })
  })

  await t.test('when an instance stops, its clients come back to the other one', async t => {
    const clients = [await enter('valid-token'), await enter('jane-token')]
    const closed = Promise.race(clients.map(async client => await client.closed))
    await two.close()
    t.equal((await closed).code, 1001)
    for (let again = 0; again < 4; again++) await enter('alex-token')
    t.equal(one.registry.count(), 5)
  })
})
