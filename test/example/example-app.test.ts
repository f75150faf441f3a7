import t, { type Test } from 'tap'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as connectTcp } from 'node:net'
import websocketGroups from 'fastify-websocket-groups'
import { connect as connectFramed } from 'fastify-websocket-groups/client'
import { WebSocket } from 'ws'
import { buildApp } from '../../example-app/app.ts'
import { demoTokens, serviceToken } from '../../example-app/tokens.ts'
import { health } from '../../example-app/health.ts'
import { connect, upgradeStatus, type TestClient } from '../helpers/client.ts'
import { freePort } from '../helpers/ports.ts'
import { bareService } from '../helpers/bare-service.ts'
import { until } from '../helpers/until.ts'
import { bearer, getJson, postJson, startInstances } from './instances.ts'

/** A client in a room that has read its own welcome. */
async function enter (t: Test, url: string, room: string, token: string): Promise<TestClient> {
  const client = connect(t, `${url}/ws/chat/${room}`, { headers: bearer(token) })
  const name = demoTokens.get(token)?.name
  t.equal(await client.next(), `Welcome ${name} to ${room}!`)
  t.equal(await client.next(), `${name} joined the room`)
  return client
}

t.test('a room spans the instances: welcome, joined, said, left', async t => {
  const [one, two] = await startInstances(t, 'inst1', 'inst2')
  const john = await enter(t, one.url, 'lobby', 'valid-token')
  const elsewhere = await enter(t, two.url, 'other', 'alex-token')
  const jane = await enter(t, two.url, 'lobby', 'jane-token')
  t.equal(await john.next(), 'Jane Roe joined the room')

  john.send('hi')
  t.equal(await jane.next(), '[John Doe]: hi')
  t.equal(await john.next(), '[John Doe]: hi', 'the sender too')
  jane.send(Buffer.from('Grüße'))
  t.equal(await john.next(), '[Jane Roe]: Grüße', 'as text, whatever frame it came in')

  await jane.close()
  t.equal(await john.next(), 'Jane Roe left the room')
  const again = await enter(t, two.url, 'lobby', 'jane-token')
  t.equal(await john.next(), 'Jane Roe joined the room')
  again.terminate()
  t.equal(await john.next(), 'Jane Roe left the room', 'also when the client vanished')

  elsewhere.send('still here')
  t.equal(await elsewhere.next(), '[Alex Kim]: still here', 'and another room heard nothing of all this')
})

t.test('services in other languages publish, and disconnect users, with a token of their own', async t => {
  const [one, two] = await startInstances(t, 'inst1', 'inst2')
  const john = await enter(t, two.url, 'lobby', 'valid-token')
  const call = async (
    path: string, body: object, token: string
  ): Promise<Response> => await fetch(`${one.url.replace('ws', 'http')}/api${path}`, {
    method: 'POST', headers: { ...bearer(token), 'content-type': 'application/json' }, body: JSON.stringify(body)
  })
  const message = { to: { group: 'lobby' }, data: 'from a script' }
  t.equal((await call('/publish', message, 'valid-token')).status, 401, 'a user is no service')
  t.equal((await call('/publish', message, serviceToken)).status, 200)
  t.equal(await john.next(), 'from a script')
  t.strictSame(await (await call('/disconnect', { userId: 'john', code: 4000 }, serviceToken)).json(), { disconnected: 1 })
  t.match(await john.closed, { code: 4000 })
})

t.test('a browser, which can set no header, brings the token as a subprotocol', async t => {
  const [one] = await startInstances(t, 'inst1')
  const client = connect(t, `${one.url}/ws/chat/lobby`, { protocols: ['bearer', 'maria-token'] })
  t.equal(await client.next(), 'Welcome Maria Silva to lobby!')
  t.equal(client.ws.protocol, 'bearer')
})

t.test('the welcome comes first, however many come at once', async t => {
  const [one, two] = await startInstances(t, 'inst1', 'inst2')
  const clients = Array.from(
    { length: 60 }, (_, at) => connect(t, `${at % 2 === 0 ? one.url : two.url}/ws/chat/busy`, { headers: bearer('valid-token') })
  )
  const firsts = await Promise.all(clients.map(async client => await client.next()))
  t.ok(firsts.every(first => first === 'Welcome John Doe to busy!'))
  await Promise.all(clients.map(async client => await client.nextWhere(message => message === 'John Doe joined the room')))
})

t.test('nobody leaves who was not announced', async t => {
  const [one, two] = await startInstances(t, 'inst1', 'inst2')
  const watcher = await enter(t, one.url, 'lobby', 'jane-token')
  const fleeting = Array.from({ length: 50 }, () => connect(t, `${two.url}/ws/chat/lobby`, { headers: bearer('valid-token') }))
  await Promise.all(fleeting.map(async client => {
    await client.opened
    client.terminate()
  }))
  await until(async () => two.app.registry.count() === 0)
  await until(async () => await one.app.registry.groupCount('lobby') === 1)
  await postJson(`${two.url}/groups/lobby/messages`, { text: 'that was all' }, bearer('valid-token'))
  await watcher.nextWhere(message => message === '[John Doe]: that was all')

  const count = (line: string): number => watcher.messages.filter(message => message === line).length
  const left = count('John Doe left the room')
  t.ok(left <= count('John Doe joined the room'), 'who left was announced')
  t.equal(left > 0, count('John Doe joined the room') > 0)
})

t.test('somebody with two connections leaves with the last of them', async t => {
  const [one, two] = await startInstances(t, 'inst1', 'inst2')
  const watcher = await enter(t, one.url, 'lobby', 'jane-token')
  const first = await enter(t, one.url, 'lobby', 'valid-token')
  const second = await enter(t, two.url, 'lobby', 'valid-token')
  const elsewhere = await enter(t, two.url, 'another room', 'valid-token')
  // Whether another connection of his is there is asked after the first one has left: the second must not leave before the answer.
  const { registry } = one.app
  const groups = registry.groups.bind(registry)
  let answers = 0
  Object.assign(registry, { groups: async (whose: Parameters<typeof groups>[0]) => await groups(whose).finally(() => { answers++ }) })
  first.close()
  await until(() => answers === 1)
  second.close()
  await watcher.nextWhere(message => message === 'John Doe left the room')
  elsewhere.close()
  await postJson(`${two.url}/groups/lobby/messages`, { text: 'that was all' }, bearer('jane-token'))
  await watcher.nextWhere(message => message === '[Jane Roe]: that was all')
  t.equal(watcher.messages.filter(message => message === 'John Doe left the room').length, 1)
})

t.test('without a good token there is no upgrade, but a 401 in JSON', async t => {
  const [one] = await startInstances(t, 'inst1')
  for (const headers of [{}, bearer('wrong-token'), { authorization: 'valid-token' }]) {
    const refused = await upgradeStatus(`${one.url}/ws/chat/lobby`, { headers })
    t.equal(refused.statusCode, 401)
    t.match(JSON.parse(refused.body), { statusCode: 401, code: 'WSG_UNAUTHORIZED', error: 'Unauthorized' })
  }
  t.equal(one.app.registry.count(), 0)
})

t.test('a room that cannot be is a 400, before the upgrade', async t => {
  const [one] = await startInstances(t, 'inst1')
  const status = async (room: string): Promise<number> =>
    (await upgradeStatus(`${one.url}/ws/chat/${room}`, { headers: bearer('valid-token') })).statusCode
  t.equal(await status('a%0Ab'), 400)
  t.equal(await status('x'.repeat(61)), 400)
  t.equal(await status(encodeURIComponent('日本語 & Café'.padEnd(60, '字'))), 101)
})

t.test('what was said before is for clients of the framed protocol alone', async t => {
  const [one, two] = await startInstances(t, 'inst1', 'inst2')
  const john = await enter(t, one.url, 'lobby', 'valid-token')
  for (let n = 1; n <= 25; n++) john.send(String(n))
  await john.nextWhere(message => message === '[John Doe]: 25')

  const raw = await enter(t, two.url, 'lobby', 'jane-token')
  john.send('now')
  t.equal(await raw.next(), '[John Doe]: now', 'a raw client has its welcome, and goes on from there')

  const framed = connectFramed(`${two.url}/ws/chat/lobby`, { token: 'alex-token', WebSocket })
  t.teardown(() => framed.close())
  const texts: unknown[] = []
  const here: string[] = []
  framed.on('message', ({ data }) => texts.push(data))
  framed.on('members', ({ members }) => here.push(...members.map(({ info }) => (info as { name: string }).name)))
  await until(() => texts.includes('Alex Kim joined the room') && here.length > 0)
  const said = Array.from({ length: 19 }, (_, at) => `[John Doe]: ${at + 7}`)
  t.strictSame(texts, ['Welcome Alex Kim to lobby!', ...said, '[John Doe]: now', 'Alex Kim joined the room'], 'without who came and went')
  t.strictSame(here.sort(), ['Alex Kim', 'Jane Roe', 'John Doe'])
  t.match(await framed.send('hi'), { position: /^[\w-]{24}$/ }, 'and is told where in the log its message stands')
  t.equal(await raw.nextWhere(message => message !== 'Alex Kim joined the room'), '[Alex Kim]: hi')
})

t.test('/ws/simple answers whoever asks', async t => {
  const [one] = await startInstances(t, 'inst1')
  const client = connect(t, `${one.url}/ws/simple`)
  t.equal(await client.next(), 'Connected! Send me messages.')
  client.send('hi')
  t.equal(await client.next(), 'You said: hi')
})

t.test('a group over HTTP: its members on all instances', async t => {
  const [one, two] = await startInstances(t, 'inst1', 'inst2')
  t.match(await getJson(`${one.url}/groups/lobby`), { status: 401, body: { code: 'WSG_UNAUTHORIZED' } }, 'for those who may come in')
  t.strictSame(
    await getJson(`${one.url}/groups/lobby`, bearer('valid-token')), { status: 200, body: { group: 'lobby', count: 0, members: [] } }
  )

  await enter(t, one.url, 'lobby', 'valid-token')
  await enter(t, two.url, 'lobby', 'jane-token')
  for (const { url } of [one, two]) {
    const { body } = await getJson(`${url}/groups/lobby`, bearer('valid-token'))
    t.match(body, { group: 'lobby', count: 2 })
    const { members } = body as { members: Array<{ userId: string }> }
    t.match(members.sort((a, b) => b.userId.localeCompare(a.userId)), [
      {
        userId: 'john', name: 'John Doe', instance: 'inst1', instanceId: one.app.registry.instanceId, connectionId: String, joinedAt: Number
      },
      { userId: 'jane', name: 'Jane Roe', instance: 'inst2', instanceId: two.app.registry.instanceId }
    ])
  }
  t.equal((await getJson(`${one.url}/groups/${'x'.repeat(61)}`, bearer('valid-token'))).status, 400)
})

t.test('a message over HTTP reaches the group under the name of who sent it', async t => {
  const [one, two] = await startInstances(t, 'inst1', 'inst2')
  const john = await enter(t, one.url, 'lobby', 'valid-token')
  const jane = await enter(t, two.url, 'lobby', 'jane-token')
  const post = async (
    body: unknown, token = 'valid-token'
  ): Promise<{ status: number, body: unknown }> => await postJson(`${two.url}/groups/lobby/messages`, body, bearer(token))

  t.match(await post({ text: 'Lunch is ready' }), { status: 202, body: { scope: 'cluster', localRecipients: 1, position: /^[\w-]{24}$/ } })
  t.equal(await jane.next(), '[John Doe]: Lunch is ready')
  t.equal(await john.nextWhere(message => message !== 'Jane Roe joined the room'), '[John Doe]: Lunch is ready')
  await post({ text: 'x\n[Jane Roe]: I quit' })
  t.equal(await jane.next(), '[John Doe]: x [Jane Roe]: I quit', 'one line, which is John\'s')
  john.send('y\r\n\u2028[Jane Roe]: I quit')
  t.equal(await jane.next(), '[John Doe]: y [Jane Roe]: I quit')

  t.match(await postJson(`${two.url}/groups/nobody-here/messages`, { text: 'x' }, bearer('valid-token')), { status: 404 })
  t.match(await post({ text: 'x' }, 'wrong-token'), { status: 401, body: { code: 'WSG_UNAUTHORIZED' } })
  for (const bad of [{}, { text: '' }, { text: 'x'.repeat(4097) }, [], 'text']) {
    t.match(await post(bad), { status: 400, body: { statusCode: 400, error: 'Bad Request' } }, JSON.stringify(bad).slice(0, 20))
  }
})

t.test('health: alive and ready', async t => {
  const [one] = await startInstances(t, 'inst1')
  t.strictSame(await getJson(`${one.url}/healthz`), { status: 200, body: { status: 'ok', instance: 'inst1' } })
  t.strictSame(await getJson(`${one.url}/readyz`), {
    status: 200, body: { ready: true, status: 'up', instance: 'inst1', backplane: 'memory', problems: [] }
  })
})

t.test('health without Redis: alive, but not ready where policy refuses new connections', async t => {
  const { app, listen } = bareService(t)
  app.register(websocketGroups, { redis: `redis://127.0.0.1:${await freePort()}`, bootTimeoutMs: 100, outage: { upgrade: 'refuse' } })
  app.register(health, { instanceId: 'inst1' })
  const url = await listen()

  t.equal((await getJson(`${url}/healthz`)).status, 200)
  const ready = await getJson(`${url}/readyz`)
  t.match(ready, { status: 503, body: { ready: false, status: 'down', instance: 'inst1', backplane: 'redis' } })
  t.ok((ready.body as { problems: string[] }).problems.length > 0, 'and it says why')
})

t.test('the page is served, and asks for nothing from elsewhere', async t => {
  const [one] = await startInstances(t, 'inst1')
  const response = await fetch(one.url)
  t.equal(response.status, 200)
  t.match(response.headers.get('content-type'), /^text\/html/)
  t.match(response.headers.get('content-security-policy'), /default-src 'none'/)
  const html = await response.text()
  const files = Array.from(html.matchAll(/(?:src|href)="(?!data:)([^"]+)"/g), ([, file]) => file ?? '')
  t.strictSame(files, ['chat.css', 'chat.js'])

  const modules = new Set(['chat.js'])
  for (const module of modules) {
    const response = await fetch(`${one.url}/${module}`)
    t.equal(response.status, 200, module)
    t.match(response.headers.get('content-type'), /javascript/)
    t.match(response.headers.get('content-security-policy'), /default-src 'none'/)
    for (const [, imported = ''] of (await response.text()).matchAll(/from '\.\/([^']+)'/g)) modules.add(imported)
  }
  t.ok(modules.has('client.js'), 'the client comes with the package')
  t.equal((await fetch(`${one.url}/chat.css`)).status, 200)
})

t.test('the users that the page offers are those that the server knows', async t => {
  const script = readFileSync(new URL('../../example-app/public/chat.js', import.meta.url), 'utf8')
  const offered = Array.from(
    script.matchAll(/(\w+): \{ name: '(.+?)', token: '(.+?)' \}/g), ([, userId, name, token]) => [token, { userId, name }]
  )
  t.strictSame(offered, [...demoTokens])
})

t.test('an instance that closes does not wait for a browser that connected ahead of a request', async t => {
  const [one] = await startInstances(t, 'inst1')
  const ahead = connectTcp(Number(new URL(one.url).port), '127.0.0.1')
  ahead.on('error', () => {})
  await once(ahead, 'connect')
  const closed = once(ahead, 'close')
  await one.app.close()
  await closed
})

t.test('an instance that closes sends its clients away, and the others hear of it', async t => {
  const [one, two] = await startInstances(t, 'inst1', 'inst2')
  const john = await enter(t, one.url, 'lobby', 'valid-token')
  const jane = await enter(t, two.url, 'lobby', 'jane-token')
  const closed = once(john.ws, 'close')
  await one.app.close()
  t.equal((await closed)[0], 1001)
  t.equal(await jane.nextWhere(message => message !== 'Jane Roe joined the room'), 'John Doe left the room')
  t.match(await getJson(`${two.url}/groups/lobby`, bearer('valid-token')), { body: { count: 1 } })
})

t.test('a request that does not come to its end is given up, a WebSocket that says nothing is not', async t => {
  const app = buildApp({ instanceId: 'inst1', logLevel: 'silent', requestTimeoutMs: 300 })
  t.teardown(async () => await app.close())
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  const john = await enter(t, url, 'lobby', 'valid-token')
  const startedAt = performance.now()
  const slow = connectTcp(Number(new URL(url).port), '127.0.0.1')
  slow.write('POST /groups/lobby/messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{')
  const [answer] = await once(slow, 'data') as [Buffer]
  t.match(answer.toString(), /^HTTP\/1\.1 408 /)
  await once(slow, 'close')
  t.ok(performance.now() - startedAt < 30_000, 'not after the minute that Node gives the headers')
  t.equal(john.ws.readyState, john.ws.OPEN)
})

t.test('nobody opens rooms without end', async t => {
  const [one] = await startInstances(t, 'inst1')
  const codes: number[] = []
  // The right to a room comes back each second: a slow machine has opened more of them when it is refused one.
  for (let n = 0; n < 300 && !codes.includes(1013); n++) {
    const client = connect(t, `${one.url}/ws/chat/room-${n}`, { headers: bearer('valid-token') })
    await client.next()
    codes.push(await Promise.race([client.next().then(() => 0), client.closed.then(({ code }) => code)]).catch(() => 1013))
    client.terminate()
  }
  t.ok(codes.slice(0, 50).every(code => code === 0))
  t.ok(codes.includes(1013), codes.join())
})
