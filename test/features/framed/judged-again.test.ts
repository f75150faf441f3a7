import t from 'tap'
import type { FastifyInstance } from 'fastify'
import type { Identity, WebsocketGroupsOptions } from '../../../plugin.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { serve, type Served } from '../../helpers/service.ts'
import { connectFramed, openFramed } from './framed-client.ts'
import type { Test } from 'tap'

noUnhandled(t)

const group = ({ room }: { readonly room: string }): string => room

/** Tokens are identities in JSON, or no tokens. */
async function start (t: Test, routes: (app: FastifyInstance) => void, options: WebsocketGroupsOptions = {}): Promise<Served> {
  const authenticate = (token: string): Identity => JSON.parse(Buffer.from(token, 'base64url').toString()) as Identity
  return await serve(t, { authenticate, ...options }, routes)
}

const tokenOf = (identity: object): string => Buffer.from(JSON.stringify(identity)).toString('base64url')
const red = tokenOf({ userId: 'ann', tenant: 'red', admin: true })
const blue = tokenOf({ userId: 'ann', tenant: 'blue', admin: false })

t.test('with a fresh token the connection leaves what it may not be in any more, and keeps the rest', async t => {
  const { url, app } = await start(t, app => app.wsRoom('/:room', {
    group: ({ room }, identity) => `${String(identity?.tenant)}:${room}`,
    mayJoin: ({ identity }, name) => name === 'public' || identity?.admin === true
  }))
  const client = await openFramed(t, `${url}/lobby`, { token: red })
  for (const name of ['public', 'admins']) {
    client.send({ type: 'join', group: name, id: 1 })
    await client.nextOf('ack')
  }
  await app.registry.join(String(client.welcome.connectionId), 'by the application')
  client.send({ type: 'token', token: red, id: 2 })
  await client.nextOf('ack', { id: 2 })
  t.equal(app.registry.all()[0]?.groups.length, 4, 'nothing changed')

  client.send({ type: 'token', token: blue, id: 3 })
  await client.nextOf('ack', { id: 3 })
  const left = client.frames.filter(({ type }) => type === 'left').map(({ group }) => group)
  t.strictSame(left.sort(), ['admins', 'red:lobby'], 'told before the answer')
  t.strictSame([...app.registry.all()[0]?.groups ?? []].sort(), ['by the application', 'public'])
  for (const name of ['red:lobby', 'admins', 'public']) await app.registry.broadcastToGroup(name, name)
  t.equal((await client.nextOf('message')).data, 'public')
  client.send({ type: 'message', data: 'still here?', id: 4 })
  t.match(await client.nextOf('error'), { id: 4, code: 'WSG_FORBIDDEN' }, 'it cannot post into the room either')
  t.equal(await app.registry.groupCount('red:lobby'), 0)
})

t.test('mayStay decides on the groups that the application joined, mayJoin on those that the client did', async t => {
  const asked: string[] = []
  const { url, app } = await start(t, app => app.wsRoom('/:room', {
    group,
    mayJoin: () => true,
    async mayStay ({ identity }, name) {
      asked.push(name)
      return name !== 'admins' || identity?.admin === true
    }
  }))
  const client = await openFramed(t, `${url}/lobby`, { token: red })
  const id = String(client.welcome.connectionId)
  for (const name of ['admins', 'everybody', 'put back']) await app.registry.join(id, name)
  client.send({ type: 'join', group: 'own', id: 1 })
  client.send({ type: 'join', group: 'put back', id: 2 })
  await client.nextOf('ack', { id: 2 })
  await app.registry.leave(id, 'put back')
  await app.registry.join(id, 'put back')
  client.send({ type: 'token', token: blue, id: 3 })
  await client.nextOf('ack', { id: 3 })
  t.strictSame(asked.sort(), ['admins', 'everybody', 'put back'], 'asked for what is the application\'s')
  t.strictSame([...app.registry.all()[0]?.groups ?? []].sort(), ['everybody', 'lobby', 'own', 'put back'])
  const left = client.frames.filter(({ type }) => type === 'left').map(({ group }) => group)
  t.strictSame(left, ['put back', 'admins'], 'told of it')
})

t.test('what cannot be judged, or not in time, is left', async t => {
  for (const fail of [() => { throw new Error('db is down') }, async () => await new Promise<never>(() => {})]) {
    let fails = false
    const judge = async <Value> (value: Value): Promise<Value> => fails ? await fail() : value
    const yes = async (): Promise<boolean> => await judge(true)
    const room = { group: async ({ room }: { readonly room: string }) => await judge(room), mayJoin: yes, mayStay: yes }
    const { url, app } = await start(t, app => app.wsRoom('/:room', room), { authTimeoutMs: 200 })
    const client = await openFramed(t, `${url}/lobby`, { token: red })
    client.send({ type: 'join', group: 'news', id: 1 })
    await client.nextOf('ack')
    await app.registry.join(String(client.welcome.connectionId), 'by the application')
    fails = true
    client.send({ type: 'token', token: blue, id: 2 })
    await client.nextOf('ack', { id: 2 })
    const left = client.frames.filter(({ type }) => type === 'left').map(({ group }) => group)
    t.strictSame(left.sort(), ['by the application', 'lobby', 'news'])
  }
})

t.test('a user whom the route does not authorize any more is out of its groups, with the old identity', async t => {
  let allowed = true
  const { url, app } = await start(t, app => app.wsRoom('/:room', { group, auth: { authorize: async () => allowed } }))
  const client = await openFramed(t, `${url}/lobby`, { token: red })
  await client.nextOf('joined')
  allowed = false
  client.send({ type: 'token', token: blue, id: 1 })
  t.match(await client.next(), { type: 'left', group: 'lobby' })
  t.match(await client.next(), { type: 'error', id: 1, code: 'WSG_FORBIDDEN' })
  t.match(app.registry.all()[0], { groups: [], identity: { tenant: 'red' } })
})

t.test('the user is looked at before authorize is: another user\'s token closes', async t => {
  let asked = 0
  const { url } = await start(t, app => app.wsRoom('/:room', { group, auth: { authorize: () => ++asked > 0 } }))
  const client = await openFramed(t, `${url}/lobby`, { token: red })
  client.send({ type: 'token', token: tokenOf({ userId: 'bob' }), id: 1 })
  t.strictSame(await client.raw.closed, { code: 4403, reason: 'the token belongs to another user' })
  t.equal(asked, 1)
})

t.test('an identity without a user id is renewed by an equal one, and swapped for no other', async t => {
  const { url } = await start(t, app => app.wsRoom('/:room', { group }))
  const [ann, bob] = [{ email: 'ann@x' }, { email: 'bob@x' }]
  const client = await openFramed(t, `${url}/lobby`, { token: tokenOf(ann) })
  client.send({ type: 'token', token: tokenOf({ ...ann, exp: Math.floor(Date.now() / 1_000) + 60, iat: 5 }), id: 1 })
  await client.nextOf('ack', { id: 1 })
  client.send({ type: 'token', token: tokenOf(bob), id: 2 })
  t.strictSame(await client.raw.closed, { code: 4403, reason: 'the token belongs to another user' })
})

t.test('refused tokens are counted, and ten in a row close', async t => {
  const { url, app } = await start(t, app => app.wsRoom('/:room', { group }), { limits: { tokens: { perSecond: 1_000 } } })
  const client = await openFramed(t, `${url}/lobby`, { token: red })
  for (let id = 1; id <= 9; id++) client.send({ type: 'token', token: 'guess', id })
  await client.nextOf('error', { id: 9 })
  client.send({ type: 'token', token: 'x'.repeat(20_000), id: 10 })
  client.send({ type: 'token', token: red, id: 11 })
  t.strictSame(await client.raw.closed, { code: 4401, reason: 'too many tokens were refused' }, 'a token of any length is refused')
  t.equal(app.registry.stats().tokensRefused, 10)

  const patient = await openFramed(t, `${url}/lobby`, { token: red })
  for (let id = 1; id <= 30; id++) patient.send({ type: 'token', token: id % 5 === 0 ? blue : 'guess', id })
  await patient.nextOf('ack', { id: 30 })
  t.equal(patient.raw.ws.readyState, 1, 'a good one starts the count anew')
})

t.test('a check of a fresh token that takes too long is an error that may pass', async t => {
  let slow = false
  const { url } = await start(t, app => app.wsRoom('/:room', { group }), {
    authTimeoutMs: 50,
    authenticate: async token => slow ? await new Promise<never>(() => {}) : { userId: token }
  })
  const client = await openFramed(t, `${url}/lobby`, { token: 'ann' })
  slow = true
  client.send({ type: 'token', token: 'ann', id: 1 })
  t.match(await client.nextOf('error'), { id: 1, code: 'WSG_AUTH_TIMEOUT', message: 'the token could not be checked in time' })
  slow = false
  client.send({ type: 'token', token: 'ann', id: 2 })
  await client.nextOf('ack', { id: 2 })
})

t.test('a session belongs to a user: with the id of another user\'s session nobody takes its place', async t => {
  const { url, app } = await start(t, app => app.wsRoom('/:room', { group, presence: true }))
  const watcher = await openFramed(t, `${url}/lobby`, { token: tokenOf({ userId: 'watcher' }) })
  await watcher.nextOf('members')
  const ann = await openFramed(t, `${url}/lobby`, { token: red })
  await watcher.nextOf('presence')
  const hello = { session: ann.welcome.session }
  const thief = await openFramed(t, `${url}/lobby`, { token: tokenOf({ userId: 'thief' }), hello })
  const joined = await watcher.nextOf('presence')
  t.match(joined, { event: 'join', member: { userId: 'thief' } })
  const seen = (await app.registry.members('lobby')).map(({ session }) => session)
  t.equal(new Set(seen).size, 3, 'it has a session of its own')
  await thief.raw.close(1000)
  await watcher.nextOf('presence', { event: 'leave' })
  const again = await openFramed(t, `${url}/lobby`, { token: blue, hello })
  await again.nextOf('members')
  const sessions = new Map((await app.registry.members('lobby')).map(({ connectionId, session }) => [connectionId, session]))
  t.equal(sessions.get(String(again.welcome.connectionId)), sessions.get(String(ann.welcome.connectionId)), 'the user itself has it back')
})

t.test('a framed client that left its room, or was put out of it, cannot post into it; where it may, it comes back', async t => {
  const { url, app } = await start(t, app => {
    app.wsRoom('/own/:room', { group, mayJoin: (_connection, name) => name === 'lobby' })
    app.wsRoom('/handled/:room', { group, onMessage: connection => { connection.send('handled') } })
  })
  const client = await openFramed(t, `${url}/own/lobby`, { token: red })
  await client.nextOf('joined')
  client.send({ type: 'leave', group: 'lobby', id: 1 })
  client.send({ type: 'message', data: 'gone', id: 2 })
  client.send({ type: 'join', group: 'lobby', id: 3 })
  client.send({ type: 'message', data: 'back', id: 4 })
  t.match(await client.nextOf('error'), { id: 2, code: 'WSG_FORBIDDEN' })
  t.match(await client.nextOf('message'), { data: 'back' })
  await app.registry.leave(String(client.welcome.connectionId), 'lobby')
  client.send({ type: 'message', data: 'put out', id: 5 })
  t.match(await client.nextOf('error'), { id: 5, code: 'WSG_FORBIDDEN' })

  const handled = await openFramed(t, `${url}/handled/lobby`, { token: red })
  await handled.nextOf('joined')
  await app.registry.leave(String(handled.welcome.connectionId), 'lobby')
  handled.send({ type: 'message', data: 'x' })
  t.equal((await handled.nextOf('message')).data, 'handled', 'an onMessage of the service decides for itself')
})

t.test('a hello is at most 64 KiB long, and names groups that can be', async t => {
  const { url } = await start(t, app => app.wsRoom('/:room', { auth: false, group }))
  for (const [text, reason] of [
    [JSON.stringify({ type: 'hello', pad: 'x'.repeat(65_536) }), /hello must have at most 65536 bytes/],
    [JSON.stringify({ type: 'hello', resume: { ['x'.repeat(256)]: 'A'.repeat(24) } }), /an invalid group name/]
  ] as const) {
    const raw = connectFramed(t, `${url}/lobby`)
    await raw.opened
    raw.send(text)
    t.match(await raw.closed, { code: 4400, reason })
  }
  const long = await openFramed(t, `${url}/lobby`, { hello: { pad: 'x'.repeat(65_000) } })
  await long.nextOf('joined')
})
