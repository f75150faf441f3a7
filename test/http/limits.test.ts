import t, { type Test } from 'tap'
import type { WebsocketGroupsOptions } from '../../plugin.ts'
import { connect, upgradeStatus, type ConnectOptions, type TestClient } from '../helpers/client.ts'
import { until } from '../helpers/until.ts'
import { service } from '../helpers/service.ts'

interface Limited {
  readonly url: string
  stats (): Readonly<Record<string, number>>
  open (user?: string, options?: ConnectOptions): Promise<TestClient>
  /** Status, error code and Retry-After of an upgrade that is refused. */
  refusal (
    path: string, user?: string, headers?: Record<string, string>
  ): Promise<readonly [status: number, code?: string, retryAfter?: number]>
}

async function limited (t: Test, options: WebsocketGroupsOptions, fastify: { readonly trustProxy?: boolean } = {}): Promise<Limited> {
  const { app, listen } = await service(t, { authenticate: token => token === 'bad' ? undefined : { userId: token }, ...options }, fastify)
  app.wsRoom('/ws/:room', { auth: { required: false } })
  app.get('/raw', { websocket: true }, () => {})
  const url = (await listen()).replace('http', 'ws')
  const authorization = (user?: string): Record<string, string> => user === undefined ? {} : { authorization: `Bearer ${user}` }
  return {
    url,
    stats: () => app.registry.stats(),
    async open (user, { headers } = {}) {
      const client = connect(t, `${url}/ws/room`, { headers: { ...authorization(user), ...headers } })
      await client.opened
      return client
    },
    async refusal (path, user, headers = {}) {
      const { statusCode, body, headers: answered } = await upgradeStatus(url + path, { headers: { ...authorization(user), ...headers } })
      return [statusCode, /"code":"(\w+)"/.exec(body)?.[1], Number(answered['retry-after'] ?? 0)]
    }
  }
}

t.test('an instance takes no more connections than limits.connections, and has room again when one leaves', async t => {
  const { open, refusal, stats } = await limited(t, { limits: { connections: 2 } })
  const first = await open()
  await open('ann')
  t.strictSame(await refusal('/ws/room'), [503, 'WSG_REFUSED', 10])
  t.strictSame(await refusal('/ws/room', 'ann'), [503, 'WSG_REFUSED', 10])
  t.match(stats(), { refusedInstanceFull: 2, upgradesRefused: 2, admitted: 2 })
  await first.close()
  await until(() => stats().admitted === 1)
  await open()
})

t.test('a user has no more connections than limits.connectionsPerUser, others do not suffer', async t => {
  const { open, refusal, stats } = await limited(t, { limits: { connectionsPerUser: 2 } })
  const first = await open('ann')
  await open('ann')
  t.strictSame(await refusal('/ws/room', 'ann'), [429, 'WSG_TOO_MANY_CONNECTIONS', 10])
  await open('bob')
  for (let n = 0; n < 4; n++) await open()
  t.match(stats(), { refusedUserFull: 1, users: 2, admitted: 7 })
  first.terminate()
  await until(() => stats().admitted === 6)
  await open('ann')
})

t.test('of many upgrades of one user at once as many get in as there is room for', async t => {
  const { url, stats } = await limited(t, { limits: { connectionsPerUser: 5 } })
  const clients = Array.from({ length: 20 }, () => connect(t, `${url}/ws/room`, { headers: { authorization: 'Bearer ann' } }))
  const opened = await Promise.allSettled(clients.map(async ({ opened }) => await opened))
  t.equal(opened.filter(({ status }) => status === 'fulfilled').length, 5)
  t.match(stats(), { refusedUserFull: 15, admitted: 5 })
})

t.test('an address has no more connections than limits.connectionsPerAddress: the one that Fastify trusts', async t => {
  const from = (address: string): { headers: Record<string, string> } => ({ headers: { 'x-forwarded-for': address } })
  const { open, refusal, stats } = await limited(t, { limits: { connectionsPerAddress: 2 } }, { trustProxy: true })
  await open('ann', from('203.0.113.1'))
  await open(undefined, from('203.0.113.1'))
  t.strictSame(await refusal('/ws/room', 'bob', from('203.0.113.1').headers), [429, 'WSG_TOO_MANY_CONNECTIONS', 10])
  await open('bob', from('203.0.113.2'))
  await open('bob', from('2001:db8::1'))
  await open('bob', from('2001:db8::2'))
  // Addresses of one network are one.
  t.strictSame(await refusal('/ws/room', 'bob', from('2001:db8::3').headers), [429, 'WSG_TOO_MANY_CONNECTIONS', 10])
  t.match(stats(), { refusedAddressFull: 2, addresses: 3 })
})

t.test('the default limits per address spare private addresses, a limit of the service\'s own does not', async t => {
  const spared = await limited(t, {})
  for (let n = 0; n < 250; n++) t.equal((await spared.refusal('/nowhere'))[0], 404)
  t.equal(spared.stats().addressesRemembered, 0)
  const own = await limited(t, { limits: { upgradesPerAddress: { perSecond: 1, burst: 3 } } })
  for (let n = 0; n < 3; n++) t.equal((await own.refusal('/nowhere'))[0], 404)
  t.strictSame(await own.refusal('/nowhere'), [429, 'WSG_RATE_LIMITED', 1])
})

t.test('an address that asks for more upgrades than allowed is refused before authentication, other addresses are not', async t => {
  const from = (address: string): Record<string, string> => ({ 'x-forwarded-for': address })
  const { refusal, stats } = await limited(t, { limits: { upgradesPerAddress: { perSecond: 1, burst: 5 } } }, { trustProxy: true })
  const answers = []
  for (const path of ['/nowhere', '/ws/room', '/ws/room', '/nowhere', '/raw', '/ws/room', '/nowhere']) {
    answers.push(await refusal(path, 'bad', from('203.0.113.9')))
  }
  t.strictSame(answers.map(([status]) => status), [404, 401, 401, 404, 101, 429, 429])
  t.equal((await refusal('/ws/room', 'bad', from('203.0.113.10')))[0], 401)
  t.match(stats(), { refusedAddressRate: 2, addressesRemembered: 2 })
})

t.test('upgrades that no route or no token stands behind use up nothing of upgradeLimit', async t => {
  const { refusal, open, stats } = await limited(t, { upgradeLimit: { perSecond: 1, burst: 2 } })
  for (let n = 0; n < 20; n++) {
    t.equal((await refusal('/nowhere'))[0], 404)
    t.equal((await refusal('/ws/room', 'bad'))[0], 401)
  }
  await open()
  await open('ann')
  t.strictSame(await refusal('/ws/room', 'ann'), [503, 'WSG_REFUSED', 1])
  t.match(stats(), { refusedUpgradeRate: 1, refusedUnauthorized: 20, refusedNoRoute: 20, upgradesRefused: 41 })
})

t.test('what is admitted is given back however it ends', async t => {
  const { url, refusal, stats, open } = await limited(t, { limits: { connectionsPerUser: 3 } })
  // A handshake that ws itself refuses, a route with a handler of the service's own, clients that leave at once.
  t.equal((await refusal('/ws/room', 'ann', { 'Sec-WebSocket-Version': '7' }))[0], 400)
  await refusal('/raw', 'ann')
  for (let n = 0; n < 10; n++) connect(t, `${url}/ws/room`, { headers: { authorization: 'Bearer ann' } }).terminate()
  await until(() => stats().admitted === 0)
  await Promise.all([open('ann'), open('ann'), open('ann')])
  t.equal(stats().admitted, 3)
})

t.test('limits: false and upgradeLimit: false let everybody in', async t => {
  const { open, stats } = await limited(t, { limits: false, upgradeLimit: false })
  await Promise.all(Array.from({ length: 150 }, async () => await open('ann')))
  t.match(stats(), { admitted: 150, upgradesRefused: 0 })
})
