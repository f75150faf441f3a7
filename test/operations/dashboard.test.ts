import t, { type Test } from 'tap'
import type { LightMyRequestResponse } from 'fastify'
import { chromium, type Browser } from 'playwright-core'
import groupsDashboard, { type GroupsDashboardOptions } from '../../lib/operations/dashboard.ts'
import { memoryCluster, WebsocketGroupsError, type Json } from '../../plugin.ts'
import { browserBinary } from '../../scripts/browser-binary.mjs'
import { redisCluster } from '../helpers/app.ts'
import { connect, upgradeStatus, type TestClient } from '../helpers/client.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { serve, service, type Served } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const key = 'a key of the whole cluster'
const memberInfo = (): Json => ({ name: 'Somebody with a name', roles: ['admin', 'moderator', 'owner'] })
const login = 'Basic YWRtaW46c2VjcmV0'

interface Start {
  readonly withKey?: boolean
  readonly everyMs?: number
  readonly allow?: GroupsDashboardOptions['allow']
  readonly auth?: GroupsDashboardOptions['auth']
  readonly authEveryMs?: number
}

const onlyWithLogin: GroupsDashboardOptions['auth'] = async (request, reply) => {
  if (request.headers.authorization !== login) return await reply.code(401).header('www-authenticate', 'Basic').send()
}

async function start (
  t: Test, cluster: ReturnType<typeof memoryCluster>, instanceLabel: string,
  { withKey = true, everyMs = 100, allow, auth = onlyWithLogin, authEveryMs }: Start = {}
): Promise<Served> {
  return await serve(t, { backplane: cluster.backplane(), instanceLabel, memberInfo, log: { maxMessages: 100, ttlMs: 60_000 } }, app => {
    app.wsRoom('/ws/:room', { auth: { required: false }, group: ({ room }) => room })
    void app.register(groupsDashboard, {
      prefix: '/admin/realtime',
      everyMs,
      ...(withKey ? { key } : {}),
      allow,
      authEveryMs,
      auth
    })
  })
}

interface Frame {
  readonly summary: {
    readonly instances: number
    readonly problems: readonly string[]
    readonly busiest: Array<[string, number]>
    readonly totals: { readonly connections: number }
    readonly events: ReadonlyArray<{ readonly text: string, readonly times: number }>
  }
  readonly list: { readonly rows: Array<{ readonly label: string, readonly state: string }>, readonly found: number }
}

t.test('without auth an application does not start, nor with wrong options', async (t) => {
  const auth = async (): Promise<void> => {}
  for (const options of [{}, { auth: true }, { auth, key: 'short' }, { auth, everyMs: 1 }, { auth, authEveryMs: 1 }]) {
    const { app } = await service(t)
    await t.rejects(async () => await app.register(groupsDashboard, options as never), { code: 'WSG_OPTION_INVALID' })
  }
})

t.test('auth refuses by returning false, too', async (t) => {
  const { app, url } = await start(t, memoryCluster(), 'eu-1', { auth: async () => false })
  for (const file of ['/', '/dashboard.js', '/permissions', '/groups']) {
    t.match((await app.inject(`/admin/realtime${file}`)).json(), { statusCode: 403, code: 'WSG_FORBIDDEN' }, file)
  }
  t.equal((await upgradeStatus(`${url}/admin/realtime/live`)).statusCode, 403)
})

t.test('the page, its files and its socket are for those whom auth lets in, and for its own origin', async (t) => {
  const { app, url } = await start(t, memoryCluster(), 'a')
  for (const file of ['', '/', '/dashboard.js', '/dashboard.css']) {
    t.equal((await app.inject(`/admin/realtime${file}`)).statusCode, 401, file)
  }
  t.equal((await upgradeStatus(`${url}/admin/realtime/live`)).statusCode, 401)
  const foreign = { authorization: login, origin: 'https://evil.example' }
  t.equal((await upgradeStatus(`${url}/admin/realtime/live`, { headers: foreign })).statusCode, 403)
  const page = await app.inject({ url: '/admin/realtime/', headers: { authorization: login } })
  t.equal(page.statusCode, 200)
  t.match(page.headers['content-security-policy'], /^default-src 'none'; script-src 'self'; style-src 'self';/)
  t.notMatch(page.body, /https?:|<script>|style=| on\w+=/, 'nothing that the policy forbids')
  const redirect = await app.inject({ url: '/admin/realtime', headers: { authorization: login } })
  t.equal(redirect.headers.location, 'realtime/')
  const views = ['/groups', '/group?name=x', '/user?name=x', '/permissions', '/configuration', '/history?name=x']
  for (const file of ['/', '/dashboard.js', ...views]) {
    const { headers } = await app.inject({ url: `/admin/realtime${file}`, headers: { authorization: login } })
    t.equal(headers['cache-control'], 'no-store', `no cache keeps ${file}`)
  }
})

t.test('its own origin is recognised however a proxy writes the host', async (t) => {
  const { url } = await start(t, memoryCluster(), 'a')
  const opened = async (host: string, origin: string): Promise<number> => {
    return (await upgradeStatus(`${url}/admin/realtime/live`, { headers: { authorization: login, host, origin } })).statusCode
  }
  for (const host of ['ops.example.com', 'ops.example.com:443', 'OPS.example.com']) {
    t.equal(await opened(host, 'https://ops.example.com'), 101, host)
  }
  t.equal(await opened('ops.example.com:80', 'http://ops.example.com'), 101)
  for (const origin of ['https://ops.example.com:8443', 'https://example.com', 'null', 'chrome-extension://ops.example.com']) {
    t.equal(await opened('ops.example.com:443', origin), 403, origin)
  }
})

t.test('its socket is no client of the application', async (t) => {
  const { registry, url } = await start(t, memoryCluster(), 'eu-1')
  const page = connect(t, `${url}/admin/realtime/live`, { headers: { authorization: login } })
  await page.opened
  const client = connect(t, `${url}/ws/lobby`)
  await client.opened
  await until(() => registry.all().length === 1)
  t.equal(registry.count(), 1)
  t.match(registry.all(), [{ groups: ['lobby'] }])
  const { report } = await registry.broadcastToAll('for all', { report: true })
  t.match(report, { recipients: 1 })
  t.equal(await client.next(), 'for all')
  await until(() => page.messages.length > 2)
  t.notOk(page.messages.includes('for all'), 'what the application sends to all is for its clients')
})

t.test('its socket opens while the instance is full, or takes nobody because Redis is out', async (t) => {
  const cluster = await redisCluster(t, undefined, {
    operationTimeoutMs: 300,
    limits: { connections: 1, connectionsPerAddress: 1 },
    outage: { upgrade: 'refuse' },
    routes: app => { void app.register(groupsDashboard, { prefix: '/admin/realtime', key, everyMs: 100, auth: onlyWithLogin }) }
  })
  const { url, registry } = await cluster.start()
  const member = connect(t, `${url}/ws/lobby`)
  await member.opened
  const admitted = registry.stats().connectionsAdmitted
  t.equal((await upgradeStatus(`${url}/ws/lobby`)).statusCode, 503, 'it is full')
  t.equal((await upgradeStatus(`${url}/admin/realtime/live`)).statusCode, 401, 'strangers are refused as ever')
  const look = async (state: string): Promise<void> => {
    const page = connect(t, `${url}/admin/realtime/live`, { headers: { authorization: login } })
    while ((JSON.parse(await page.next() as string) as Frame).list.rows[0]?.state !== state);
    page.ws.close()
    await page.closed
  }
  await look('up')
  await until(() => registry.stats().connectionsAdmitted === admitted)
  await cluster.redis.kill()
  await until(() => registry.health().status === 'down')
  t.equal((await upgradeStatus(`${url}/ws/lobby`)).statusCode, 503)
  await look('down')
})

t.test('whoever looks is told of all instances, and without a key of one', async (t) => {
  const cluster = memoryCluster()
  const [a, b] = [await start(t, cluster, 'eu-1'), await start(t, cluster, 'eu-2')]
  const alone = await start(t, cluster, 'alone', { withKey: false })
  const member = connect(t, `${b.url}/ws/lobby`)
  await member.opened
  const look = ({ url }: Served): { readonly client: TestClient, latest (): Frame | undefined } => {
    const client = connect(t, `${url}/admin/realtime/live`, { headers: { authorization: login } })
    return { client, latest: () => client.messages.length === 0 ? undefined : JSON.parse(String(client.messages.at(-1))) as Frame }
  }
  const labels = (frame: Frame | undefined): string[] => (frame?.list.rows ?? []).map(({ label }) => label)
  const [seen, seenAlone] = [look(a), look(alone)]
  await until(() => seen.latest()?.summary.busiest.some(([name, members]) => name === 'lobby' && members === 1) === true)
  t.strictSame(labels(seen.latest()), ['eu-1', 'eu-2'])
  t.match(seen.latest()?.summary.problems, [/^no report from 1: /], 'one that answers to another key is not passed over')
  await until(() => seenAlone.client.messages.length > 3)
  t.strictSame(labels(seenAlone.latest()), ['alone'])
  t.equal(seenAlone.latest()?.summary.totals.connections, 0, 'who looks is no client')
  t.equal(alone.registry.stats().connections, 1)
  t.strictSame(seenAlone.latest()?.summary.problems, [])
  t.strictSame(await b.registry.groupList(), Object.assign(['lobby'], { missing: 0 }), 'reports need no group')

  // What a page asks for is answered at once; what is no question is not, and breaks nothing.
  for (const wrong of ['', 'null', '[]', '{"find":1}', '{"find":"","order":"id","page":0}', '{"find":"","order":"name","page":-1}']) {
    seen.client.ws.send(wrong)
  }
  seen.client.ws.send(JSON.stringify({ find: 'EU-2', order: 'connections', page: 7 }))
  await until(() => labels(seen.latest()).join() === 'eu-2')
  t.equal(seen.latest()?.list.found, 1)
})

t.test('what happens to one of several instances in a process is told once', async (t) => {
  const cluster = memoryCluster()
  const [a, b] = [await start(t, cluster, 'eu-1'), await start(t, cluster, 'eu-2')]
  const viewer = connect(t, `${a.url}/admin/realtime/live`, { headers: { authorization: login } })
  await b.registry.block({ userId: 'ann' }, { forMs: 60_000 })
  t.equal((await upgradeStatus(`${b.url}/ws/lobby`, { headers: { authorization: 'Bearer ann' } })).statusCode, 403)
  const latest = (): Partial<Frame> => JSON.parse(String(viewer.messages.at(-1) ?? '{}')) as Partial<Frame>
  const events = (): Frame['summary']['events'] => latest().summary?.events ?? []
  await until(() => events().length > 0)
  t.match(events(), [{ text: /blocked/, times: 1 }])
})

for (const withKey of [true, false]) {
  t.test(`an instance that cannot report is missing, and others are shown (with a key: ${withKey})`, async (t) => {
    const cluster = memoryCluster()
    const [a] = [await start(t, cluster, 'eu-1', { withKey }), await start(t, cluster, 'eu-2')]
    const { stats } = a.registry
    Object.assign(a.registry, { stats: () => { throw new TypeError('a bug in a backplane') } })
    const viewer = connect(t, `${a.url}/admin/realtime/live`, { headers: { authorization: login } })
    const latest = (): Partial<Frame> => JSON.parse(String(viewer.messages.at(-1) ?? '{}')) as Partial<Frame>
    await until(() => viewer.messages.length > 3)
    t.match(latest().summary?.problems, [/^no report from 1/])
    t.strictSame(latest().list?.rows.map(({ label }) => label), withKey ? ['eu-2'] : [])
    t.match(a.logs.filter(({ event }) => event === 'dashboard_report_failed'), [{ err: { message: 'a bug in a backplane' } }])
    Object.assign(a.registry, { stats })
    await until(() => latest().summary?.problems.length === 0)
    t.equal(latest().list?.rows.length, withKey ? 2 : 1)
  })
}

t.test('nobody is asked while nobody looks', async (t) => {
  const cluster = memoryCluster()
  const [a, b] = [await start(t, cluster, 'a'), await start(t, cluster, 'b')]
  let asked = 0
  const describe = b.registry.describe.bind(b.registry)
  t.intercept(b.registry, 'describe', {
    value: () => {
      asked++
      return describe()
    }
  })
  const viewer = connect(t, `${a.url}/admin/realtime/live`, { headers: { authorization: login } })
  await until(() => viewer.messages.length > 2)
  t.ok(asked > 0)
  await viewer.close()
  await until(() => a.registry.stats().connections === 0)
  // A round may be under way.
  let before = 0
  await until(() => {
    const same = asked === before
    before = asked
    return same
  }, { everyMs: 150, what: 'the last round' })
  await new Promise(resolve => setTimeout(resolve, 500))
  t.equal(asked, before)
})

t.test('a page that is loaded again gets new reports, not only the latest one', async (t) => {
  const a = await start(t, memoryCluster(), 'a', { everyMs: 1_000 })
  const look = (): TestClient => connect(t, `${a.url}/admin/realtime/live`, { headers: { authorization: login } })
  const first = look()
  await first.next()
  await first.close()
  await until(() => a.registry.stats().connections === 0)
  const second = look()
  const [round, later] = [await second.next(), await second.next()].map(frame => (JSON.parse(String(frame)) as { round: number }).round)
  t.ok(later !== undefined && round !== undefined && later > round, `rounds ${round} and ${later}`)
})

/** Asks for a view, or carries out an order, as the page does. */
async function ask (
  { app }: Served, url: string, order?: object, headers: object = { origin: 'http://localhost' }
): Promise<LightMyRequestResponse> {
  return await app.inject({
    url: `/admin/realtime/${url}`,
    headers: { host: 'localhost', authorization: login, ...headers },
    ...(order === undefined ? {} : { method: 'POST', payload: order })
  })
}

t.test('who closed while nobody looked is not called silent to those who look again', async (t) => {
  const cluster = memoryCluster()
  const [a, b] = [await start(t, cluster, 'a'), await start(t, cluster, 'b')]
  const look = (): TestClient => connect(t, `${a.url}/admin/realtime/live`, { headers: { authorization: login } })
  const frame = (text: unknown): Frame | null => JSON.parse(String(text ?? null)) as Frame | null
  const first = look()
  await until(() => frame(first.messages.at(-1))?.list.found === 2)
  await first.close()
  await until(() => a.registry.stats().connections === 0)
  await b.app.close()
  await new Promise(resolve => setTimeout(resolve, 1_000))
  const second = look()
  await until(() => second.messages.length > 5)
  t.strictSame(second.messages.flatMap(text => frame(text)?.summary.problems ?? []), [])
})

t.test('a group and a user are shown as they are in the whole cluster', async (t) => {
  const cluster = memoryCluster()
  const [a, b] = [await start(t, cluster, 'a'), await start(t, cluster, 'b')]
  const ann = connect(t, `${b.url}/ws/lobby`, { headers: { authorization: 'Bearer ann' } })
  await ann.opened
  await until(async () => (await ask(a, 'group?name=lobby')).json<{ members: number }>().members === 1)
  const group = (await ask(a, 'group?name=lobby')).json<object>()
  t.match(group, { members: 1, presence: [{ userId: 'ann', connections: 1 }], cursor: undefined })
  t.strictSame((await ask(a, 'user?name=ann')).json(), { groups: ['lobby'], total: 1 })
  t.strictSame((await ask(a, 'user?name=nobody%21')).json(), { groups: [], total: 0 })
  t.strictSame((await ask(a, 'groups?prefix=lob')).json(), { names: ['lobby'], missing: 0 })
  t.strictSame((await ask(a, 'groups?prefix=x')).json(), { names: [], missing: 0 })
  const careless = ['group', 'group?name=', 'groups?cursor=%00', 'group?name=a&cursor=!', 'groups?cursor=zzz', 'user?name=%00', 'history']
  for (const url of careless) t.equal((await ask(a, url)).statusCode < 500, true, url)
  t.equal((await ask(a, 'group?name=')).statusCode, 400)
  const answer = await ask(a, 'configuration')
  const most = { instances: 2, names: ['a', 'b'], configuration: { options: { leaseMs: 15_000 } } }
  t.match(answer.json(), { most, others: [], missing: 0 })
  t.notOk(answer.body.includes(key))
  for (const url of ['group?name=lobby', 'group', 'groups', 'user?name=ann', 'history?name=lobby', 'configuration', 'permissions']) {
    t.equal((await a.app.inject(`/admin/realtime/${url}`)).statusCode, 401, url)
    t.equal((await ask(a, url, undefined, { origin: 'https://evil.example' })).statusCode, 403, url)
  }
})

t.test('a user in many groups has pages of them', async (t) => {
  const a = await start(t, memoryCluster(), 'a')
  const ann = connect(t, `${a.url}/ws/g-000`, { headers: { authorization: 'Bearer ann' } })
  await ann.opened
  const all = Array.from({ length: 120 }, (_, at) => `g-${String(at).padStart(3, '0')}`)
  for (const group of all) await a.registry.join({ userId: 'ann' }, group)
  const seen: string[] = []
  for (let cursor: string | undefined = ''; cursor !== undefined;) {
    const answer = await ask(a, `user?name=ann${cursor === '' ? '' : `&cursor=${cursor}`}`)
    const { groups, total, cursor: next } = answer.json<{ groups: string[], total: number, cursor?: string }>()
    t.equal(total, 120)
    t.ok(groups.length <= 50, String(groups.length))
    seen.push(...groups)
    cursor = next
  }
  t.strictSame(seen, all)
})

t.test('without `allow` nobody may read messages or act, whoever may see the page', async (t) => {
  const a = await start(t, memoryCluster(), 'a')
  t.strictSame((await ask(a, 'permissions')).json(), [])
  t.equal((await ask(a, 'history?name=lobby')).statusCode, 403)
  t.equal((await ask(a, 'actions', { action: 'disconnect', userId: 'ann' })).statusCode, 404)
})

t.test('with `allow` each action is for those whom it lets, from the page alone, and leaves a line', async (t) => {
  const cluster = memoryCluster()
  const asked: string[] = []
  const a = await start(t, cluster, 'a', {
    allow: async (action, request) => {
      asked.push(action)
      return action === 'block' ? 'yes' as unknown as boolean : request.headers['x-role'] === 'admin'
    }
  })
  const b = await start(t, cluster, 'b')
  const enter = async (room: string): Promise<TestClient> => {
    const client = connect(t, `${b.url}/ws/${room}`, { headers: { authorization: 'Bearer ann' } })
    await client.opened
    await until(async () => await b.registry.groupCount(room) === 1)
    return client
  }
  const client = await enter('lobby')
  await b.registry.broadcastToGroup('lobby', '<b>hello'.padEnd(600, '.'), { from: { userId: 'ann' } })
  const origin = 'http://localhost'
  const admin = { origin, 'x-role': 'admin' }
  t.strictSame((await ask(a, 'permissions', undefined, admin)).json(), ['history', 'disconnect', 'kick', 'unblock'], 'only true allows')
  const [message] = (await ask(a, 'history?name=lobby', undefined, admin)).json<Array<{ text: string, from: object }>>()
  t.match(message, { text: /^<b>hello\.+…$/, from: { userId: 'ann' } })
  t.equal(message?.text.length, 501)

  const kick = { action: 'kick', userId: 'ann', group: 'lobby', reason: 'spam' }
  const evil = { 'x-role': 'admin', origin: 'https://evil.example' }
  for (const headers of [{ origin }, { 'x-role': 'admin' }, evil, { ...admin, authorization: '' }]) {
    t.ok([401, 403].includes((await ask(a, 'actions', kick, headers)).statusCode), JSON.stringify(headers))
  }
  const strange = { host: 'localhost', ...admin }
  for (const payload of [kick, {}, [kick]]) {
    const answer = await a.app.inject({ method: 'POST', url: '/admin/realtime/actions', headers: strange, payload })
    t.equal(answer.statusCode, 401, 'strangers are not told what an order has to be')
  }
  for (const order of [{}, { action: 'history', userId: 'ann' }, { action: 'explode', userId: 'ann' }, { ...kick, group: '' }, [kick]]) {
    t.equal((await ask(a, 'actions', order, admin)).statusCode, 400, JSON.stringify(order))
  }
  const text = { ...admin, authorization: login, 'content-type': 'text/plain' }
  const form = { method: 'POST', url: '/admin/realtime/actions', headers: text, payload: JSON.stringify(kick) } as const
  t.equal((await a.app.inject(form)).statusCode, 400, 'what a form can send is no order')
  t.equal(await b.registry.groupCount('lobby'), 1, 'nothing was done so far')

  t.strictSame((await ask(a, 'actions', kick, admin)).json(), { done: 1 })
  t.strictSame((await ask(a, 'user?name=ann')).json(), { groups: [], total: 0 })
  t.equal((await ask(a, 'actions', { action: 'block', userId: 'ann', forMs: 60_000 }, admin)).statusCode, 403, 'a string is not true')
  t.strictSame((await ask(a, 'actions', { action: 'disconnect', userId: 'ann', reason: 'bye' }, admin)).json(), { done: 1 })
  t.strictSame(await client.closed, { code: 1000, reason: 'bye' })
  const lines = a.logs.filter(({ event }) => event === 'dashboard_action')
  t.strictSame(lines.map(({ action, done }) => [action, done]), [['kick', undefined], ['kick', 1], ['disconnect', 1]])
  t.match(lines, [
    { userId: 'ann', group: '', err: { code: 'WSG_GROUP_NAME_INVALID' } }, { userId: 'ann', group: 'lobby' }, { userId: 'ann' }
  ])
  t.ok(asked.includes('kick'))
})

t.test('an action leaves a line also where it fails, because a part of it may be done', async (t) => {
  const backplane = memoryCluster().backplane()
  const allow = (): boolean => true
  const { app, url, registry, logs } = await serve(t, { backplane }, app => {
    app.wsRoom('/ws/:room', { auth: { required: false }, group: ({ room }) => room })
    void app.register(groupsDashboard, { prefix: '/admin/realtime', auth: async () => {}, allow })
  })
  const ann = connect(t, `${url}/ws/lobby`, { headers: { authorization: 'Bearer ann' } })
  await ann.opened
  await until(() => registry.count() === 1)
  backplane.block = async () => { throw new WebsocketGroupsError('WSG_BACKPLANE_UNAVAILABLE') }
  const order = { action: 'block', userId: 'ann', forMs: 60_000 }
  const headers = { host: 'localhost', origin: 'http://localhost' }
  const answer = await app.inject({ method: 'POST', url: '/admin/realtime/actions', headers, payload: order })
  t.equal(answer.statusCode, 503)
  t.equal((await ann.closed).code, 4403)
  t.match(logs.filter(({ event }) => event === 'dashboard_action'), [{ ...order, err: { code: 'WSG_BACKPLANE_UNAVAILABLE' } }])
})

t.test('who is blocked through the page stays out until the block is lifted', async (t) => {
  const a = await start(t, memoryCluster(), 'a', { allow: () => true })
  const headers = { headers: { authorization: 'Bearer ann' } }
  await connect(t, `${a.url}/ws/lobby`, headers).opened
  await until(() => a.registry.count() === 1)
  t.equal((await ask(a, 'actions', { action: 'block', userId: 'ann', forMs: 0 })).statusCode, 400)
  t.strictSame((await ask(a, 'actions', { action: 'block', userId: 'ann', forMs: 60_000 })).json(), { done: 1 })
  t.equal((await upgradeStatus(`${a.url}/ws/lobby`, headers)).statusCode, 403)
  t.strictSame((await ask(a, 'actions', { action: 'unblock', userId: 'ann' })).json(), { done: 0 })
  await connect(t, `${a.url}/ws/lobby`, headers).opened
})

const executablePath = browserBinary()
const noBrowser = { skip: executablePath === undefined && 'there is no Chromium' }

t.test('in Chromium it shows the cluster, narrow and wide, light and dark', noBrowser, async (t) => {
  const cluster = memoryCluster()
  const [a, b] = [await start(t, cluster, 'eu-1', { allow: () => true }), await start(t, cluster, 'eu-2')]
  const member = connect(t, `${b.url}/ws/<b>lobby`.replace('<b>', '%3Cb%3E'))
  await member.opened
  const ann = connect(t, `${b.url}/ws/team`, { headers: { authorization: 'Bearer ann' } })
  await ann.opened
  await b.registry.broadcastToGroup('team', '<img src=x onerror=alert(1)> is text here', { from: { userId: 'ann' } })
  const browser: Browser = await chromium.launch({ executablePath: executablePath ?? '', args: ['--no-sandbox', '--disable-gpu'] })
  t.teardown(async () => await browser.close())
  for (const [width, colorScheme] of [[400, 'dark'], [1_200, 'light']] as const) {
    const context = await browser.newContext({
      viewport: { width, height: 800 }, colorScheme, httpCredentials: { username: 'admin', password: 'secret' }
    })
    const page = await context.newPage()
    page.setDefaultTimeout(60_000)
    const problems: string[] = []
    page.on('pageerror', error => problems.push(String(error)))
    page.on('console', message => {
      if (['error', 'warning'].includes(message.type()) && !message.text().includes('401')) problems.push(message.text())
    })
    page.on('request', request => { if (!request.url().startsWith(a.url.replace('ws:', 'http:'))) problems.push(request.url()) })
    await page.goto(`${a.url.replace('ws:', 'http:')}/admin/realtime`)
    await page.getByRole('rowheader', { name: /^eu-1/ }).waitFor()
    await page.getByRole('rowheader', { name: /^eu-2/ }).waitFor()
    await page.getByRole('cell', { name: '<b>lobby' }).waitFor()
    t.match(await page.locator('#link').textContent(), /^Live, every /)
    await page.locator('#verdict', { hasText: /^All well: 2 instances are up$/ }).waitFor()
    t.match(await page.locator('#instances tr').first().textContent(), /^eu-1.+ · Node v\d+.+ · up \d+ s.*up for \d+ s.*MiB/s)
    // Each tile has a plot, which grows with each round.
    const plots = async (): Promise<number[]> => await page.evaluate(
      '[...document.querySelectorAll("#totals polyline")].map(({ points }) => points.numberOfItems)'
    ) as number[]
    await until(async () => (await plots()).length === 6 && Math.min(...await plots()) > 3)
    const layout = await page.evaluate('({ over: document.documentElement.scrollWidth - innerWidth, ' +
      'background: getComputedStyle(document.body).backgroundColor })') as { over: number, background: string }
    t.ok(layout.over <= 0, `nothing sticks out at ${width} px`)
    t.equal(layout.background === 'rgb(255, 255, 255)', colorScheme === 'light', layout.background)
    t.ok((await page.screenshot({ fullPage: true, ...screenshot(`dashboard-${width}-${colorScheme}`) })).length > 5_000)
    // A group, then the user in it.
    await page.getByRole('link', { name: 'team' }).click()
    await page.getByRole('heading', { name: 'Group team' }).waitFor()
    await page.getByRole('cell', { name: '<img src=x onerror=alert(1)> is text here' }).waitFor()
    t.equal(await page.evaluate('document.documentElement.scrollWidth - innerWidth <= 0'), true)
    const kick = await page.getByRole('button', { name: 'Kick' }).boundingBox()
    t.ok(kick !== null && kick.width > kick.height, `a button is not written from top to bottom: ${JSON.stringify(kick)}`)
    t.ok((await page.screenshot({ fullPage: true, ...screenshot(`dashboard-group-${width}-${colorScheme}`) })).length > 5_000)
    await page.getByRole('link', { name: 'ann' }).click()
    await page.getByRole('heading', { name: 'User ann' }).waitFor()
    await page.getByRole('button', { name: 'Kick' }).click()
    await page.getByLabel('Reason, for the user\'s clients').fill('not here')
    t.ok((await page.screenshot(screenshot(`dashboard-dialog-${width}-${colorScheme}`))).length > 5_000)
    await page.getByRole('button', { name: 'Cancel' }).click()
    await page.goBack()
    await page.goBack()
    await page.getByRole('button', { name: 'Show' }).click()
    await page.getByText('"maxGroupsPerConnection"').waitFor()
    t.strictSame(problems, [])
    await context.close()
  }
  // Once for both: an action by the page.
  const context = await browser.newContext({ httpCredentials: { username: 'admin', password: 'secret' } })
  const page = await context.newPage()
  // The clock of whoever looks may be wrong.
  await page.addInitScript('const now = Date.now; Date.now = () => now() + 3_600_000')
  await page.goto(`${a.url.replace('ws:', 'http:')}/admin/realtime/#group=team`)
  await page.locator('[data-name=Since]', { hasText: /^\d+ s$/ }).waitFor()
  await page.goto(`${a.url.replace('ws:', 'http:')}/admin/realtime/#user=ann`)
  await page.getByRole('button', { name: 'Disconnect' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Disconnect' }).click()
  await page.getByText('Disconnect done, connections: 1').waitFor()
  t.equal((await ann.closed).code, 1000)
  // What is shown from before looks like it, and a page that never got its socket says so.
  await page.goto(`${a.url.replace('ws:', 'http:')}/admin/realtime/#`)
  await page.locator('#link', { hasText: /^Live/ }).waitFor()
  const opacity = async (): Promise<number> =>
    await page.evaluate('+getComputedStyle(document.getElementById("verdict")).opacity') as number
  t.equal(await opacity(), 1)
  await a.app.close()
  await page.locator('#link', { hasText: /^Not connected since/ }).waitFor()
  t.ok(await opacity() < 1)
  const cut = await context.newPage()
  await cut.routeWebSocket(/live$/, socket => { void socket.close() })
  await cut.goto(`${b.url.replace('ws:', 'http:')}/admin/realtime/`)
  await cut.getByText('Cannot connect, and tries again').waitFor()
})

t.test('a page that is open is let in anew again and again, and sees nothing new without the permission', noBrowser, async (t) => {
  let mayLook = true
  let asked = 0
  const a = await start(t, memoryCluster(), 'a', {
    authEveryMs: 1_000,
    auth: async (request, reply) => {
      if (request.ws) asked++
      if (!mayLook) return await reply.code(403).send()
    }
  })
  const viewer = connect(t, `${a.url}/admin/realtime/live`)
  t.equal((await viewer.closed).code, 1012)
  const browser: Browser = await chromium.launch({ executablePath: executablePath ?? '', args: ['--no-sandbox', '--disable-gpu'] })
  t.teardown(async () => await browser.close())
  const page = await browser.newPage()
  const shown: string[] = []
  await page.exposeFunction('shown', (text: string) => shown.push(text))
  await page.addInitScript(`addEventListener('DOMContentLoaded', () => {
    const link = document.getElementById('link')
    new MutationObserver(() => shown(link.textContent)).observe(link, { childList: true })
  })`)
  const before = asked
  await page.goto(`${a.url.replace('ws:', 'http:')}/admin/realtime/`)
  await until(() => asked >= before + 3)
  t.strictSame([...new Set(shown)], ['Live, every 0.1 s'], 'nobody sees that')
  mayLook = false
  await page.locator('#link', { hasText: /^Not connected since/ }).waitFor()
  t.equal(a.registry.count(), 0)
})

/** Keeps the screenshots where SCREENSHOTS says. */
function screenshot (name: string): { path?: string } {
  const folder = process.env.SCREENSHOTS
  return folder === undefined ? {} : { path: `${folder}/${name}.png` }
}
