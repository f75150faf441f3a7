import t, { type Test } from 'tap'
import type { FastifyInstance } from 'fastify'
import { connect, upgradeStatus } from '../../helpers/client.ts'
import { onEachBackplane } from '../../helpers/app.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { startRedis } from '../../helpers/redis.ts'
import { serve, type Served } from '../../helpers/service.ts'
import { until } from '../../helpers/until.ts'
import { openFramed } from './framed-client.ts'

noUnhandled(t)
const redis = await startRedis(t)
/** Lets `/slow` go on. */
let release: (() => void) | undefined
const nowhere = 'B'.repeat(24)

const group = ({ room }: { readonly room: string }): string => room

function routes (app: FastifyInstance): void {
  app.wsRoom('/:room', { auth: false, group, mayJoin: () => true })
  app.wsRoom('/past/:room', { auth: false, group, history: 2 })
  app.wsRoom('/broken/:room', {
    auth: false,
    group,
    async onMessage (connection, data, group) {
      connection.terminate()
      await app.registry.broadcastToGroup(group, data, { except: connection })
    }
  })
  app.wsRoom('/slow/:room', {
    auth: false,
    group,
    async onMessage (connection, data, group) {
      await new Promise<void>(resolve => { release = resolve })
      await app.registry.broadcastToGroup(group, data, { except: connection })
    }
  })
  app.wsRoom('/others/:room', {
    auth: false,
    group,
    onMessage: async (connection, data, group) => await app.registry.broadcastToGroup(group, data, { except: connection })
  })
}

function onBoth (name: string, run: (t: Test, a: Served, b: Served) => Promise<void>): void {
  onEachBackplane(t, redis, name, async (t, here) => await run(t, await serve(t, here(), routes), await serve(t, here(), routes)))
}

onBoth('a client that comes back to another instance gets what it missed, then what is live', async (t, a, b) => {
  const first = await openFramed(t, `${a.url}/lobby`)
  await first.nextOf('joined')
  await a.app.registry.broadcastToGroup('lobby', '0')
  const { position } = await first.nextOf('message')
  first.raw.terminate()
  for (let n = 1; n <= 20; n++) await a.app.registry.broadcastToGroup('lobby', n === 7 ? Buffer.from([7]) : String(n))

  const sending = (async () => { for (let n = 21; n <= 60; n++) await a.app.registry.broadcastToGroup('lobby', String(n)) })()
  const back = await openFramed(
    t, `${b.url}/lobby`, { hello: { session: first.welcome.session, resume: { lobby: position, elsewhere: position } } }
  )
  t.match(await back.next(), { type: 'joined', group: 'lobby', recovered: true, position })
  const got: unknown[] = []
  while (got.length < 60) {
    const message = await back.next()
    t.match(message, { type: 'message', group: 'lobby', position: /^[\w-]{24}$/ })
    got.push(message.binary === true ? Buffer.from(String(message.data), 'base64')[0] : Number(message.data))
  }
  await sending
  t.strictSame(got, Array.from({ length: 60 }, (_, index) => index + 1))
  t.equal(new Set(back.frames.map(({ position }) => position)).size, 62, 'each with a position of its own')
})

onBoth('a client that left one group and joins another by itself resumes there too', async (t, a, b) => {
  const first = await openFramed(t, `${a.url}/lobby`)
  first.send({ type: 'join', group: 'news', id: 1 })
  await first.nextOf('ack')
  await a.app.registry.broadcastToGroup('news', 'old')
  const { position } = await first.nextOf('message')
  first.send({ type: 'leave', group: 'news', id: 2 })
  await first.nextOf('left')
  await a.app.registry.broadcastToGroup('news', 'missed')
  first.send({ type: 'join', group: 'news', since: position, id: 3 })
  t.match(await first.nextOf('joined'), { group: 'news', recovered: true })
  t.match(await first.nextOf('message'), { data: 'missed' })

  const again = await openFramed(t, `${b.url}/lobby`, { hello: { resume: { news: position } } })
  t.notOk('recovered' in await again.nextOf('joined'), 'it gave no position for this one')
  again.send({ type: 'join', group: 'news', id: 1 })
  t.match(await again.nextOf('joined'), { group: 'news', recovered: true })
  t.match(await again.nextOf('message'), { data: 'missed' })
})

onBoth('a position that no log knows is answered with the reason', async (t, a) => {
  await a.app.registry.broadcastToGroup('lobby', 'x')
  const client = await openFramed(t, `${a.url}/lobby`, { hello: { resume: { lobby: nowhere } } })
  t.match(await client.next(), { type: 'joined', recovered: false, reason: 'epoch' })
})

onBoth('a message that is not for a client still moves its position, and is not replayed to it', async (t, a, b) => {
  const sender = await openFramed(t, `${a.url}/others/lobby`)
  await sender.nextOf('joined')
  const other = await openFramed(t, `${b.url}/others/lobby`)
  await other.nextOf('joined')
  sender.send({ type: 'message', data: 'mine' })
  const { position } = await other.nextOf('message', { data: 'mine' })
  t.strictSame(await sender.next(), { type: 'position', group: 'lobby', position })
  sender.raw.terminate()
  other.send({ type: 'message', data: 'theirs' })
  await other.nextOf('position')

  const back = await openFramed(t, `${b.url}/others/lobby`, { hello: { resume: { lobby: position } } })
  t.match(await back.next(), { type: 'joined', recovered: true })
  t.match(await back.next(), { type: 'message', data: 'theirs' })
})

onBoth('a sender is not given the message that it is excepted from when its link broke before it knew of it', async (t, a, b) => {
  const sender = await openFramed(t, `${a.url}/broken/lobby`)
  const { position } = await sender.nextOf('joined')
  const other = await openFramed(t, `${b.url}/others/lobby`)
  await other.nextOf('joined')
  sender.send({ type: 'message', data: 'mine' })
  const { position: passed } = await other.nextOf('message', { data: 'mine' })
  await a.app.registry.broadcastToGroup('lobby', 'theirs')
  t.notMatch(sender.frames, [{ type: 'position' }])

  for (const { url } of [b, a]) {
    const back = await openFramed(t, `${url}/others/lobby`, { hello: { session: sender.welcome.session, resume: { lobby: position } } })
    t.match(await back.next(), { type: 'joined', recovered: true })
    t.strictSame(await back.next(), { type: 'position', group: 'lobby', position: passed })
    t.match(await back.next(), { type: 'message', data: 'theirs' })
    back.raw.terminate()
  }
  const stranger = await openFramed(t, `${b.url}/others/lobby`, { hello: { resume: { lobby: position } } })
  t.match(await stranger.nextOf('message'), { data: 'mine' }, 'another session gets it')
})

onBoth('a sender that is back before its message is broadcast does not get it either', async (t, a, b) => {
  release = undefined
  const sender = await openFramed(t, `${a.url}/slow/lobby`)
  await sender.nextOf('joined')
  sender.send({ type: 'message', data: 'mine' })
  sender.raw.terminate()
  const back = await openFramed(t, `${b.url}/others/lobby`, { hello: { session: sender.welcome.session } })
  await back.nextOf('joined')
  const here = await openFramed(t, `${a.url}/others/lobby`, { hello: { session: sender.welcome.session } })
  await here.nextOf('joined')
  const other = await openFramed(t, `${a.url}/others/lobby`)
  await other.nextOf('joined')
  ;(await until(() => release))()
  const { position } = await other.nextOf('message', { data: 'mine' })
  for (const client of [back, here]) t.strictSame(await client.next(), { type: 'position', group: 'lobby', position })
  await a.app.registry.broadcastToGroup('lobby', 'volatile', { volatile: true, except: String(here.welcome.connectionId) })
  await b.app.registry.broadcastToGroup('lobby', 'last')
  for (const client of [back, here]) t.match(await client.next(), { data: 'last' }, 'nor one that excepts it by id')
})

onBoth('a message to two groups comes once, with the positions of both', async (t, a) => {
  const client = await openFramed(t, `${a.url}/one`)
  client.send({ type: 'join', group: 'two', id: 1 })
  await client.nextOf('ack')
  const { positions } = await a.app.registry.broadcastToGroup(['one', 'two'], 'x')
  const frames = [await client.next(), await client.next()]
  t.strictSame(frames.map(({ type }) => type), ['message', 'position'])
  t.strictSame(Object.fromEntries(frames.map(({ group, position }) => [group, position])), positions)
})

onBoth('a client that missed a message to two groups gets it once, with the positions of both', async (t, a, b) => {
  const client = await openFramed(t, `${a.url}/one`)
  client.send({ type: 'join', group: 'two', id: 1 })
  await client.nextOf('ack')
  const resume: Record<string, string | undefined> = {}
  for (const group of ['one', 'two']) resume[group] = (await a.app.registry.broadcastToGroup(group, 'seen')).position
  await client.nextOf('message', { group: 'two' })
  client.raw.terminate()
  const { positions } = await a.app.registry.broadcastToGroup(['one', 'two'], 'missed')
  const back = await openFramed(t, `${b.url}/one`, { hello: { session: client.welcome.session, resume } })
  back.send({ type: 'join', group: 'two', id: 1 })
  await back.nextOf('ack')
  await a.app.registry.broadcastToGroup('two', 'last')
  await back.nextOf('message', { data: 'last' })
  const news = back.frames.filter(({ type, data }) => type === 'position' || data === 'missed')
  t.strictSame(news.map(({ type }) => type), ['message', 'position'])
  t.strictSame(Object.fromEntries(news.map(({ group, position }) => [group, position])), positions)
})

onBoth('volatile messages have no position', async (t, a) => {
  const client = await openFramed(t, `${a.url}/lobby`)
  await client.nextOf('joined')
  await a.app.registry.broadcastToGroup('lobby', 'x', { volatile: true })
  t.notOk('position' in await client.next())
})

onBoth('history is what a room gives to those who join without a position', async (t, a, b) => {
  for (const text of ['1', '2', '3']) await a.app.registry.broadcastToGroup('lobby', text)
  const framed = await openFramed(t, `${b.url}/past/lobby`)
  const joined = await framed.next()
  t.notOk('recovered' in joined)
  t.match([await framed.next(), await framed.next()], [{ data: '2' }, { data: '3' }])
  const { messages } = await a.app.registry.history('lobby')
  t.equal(joined.position, messages[0]?.position, 'it says where these begin')
  const raw = connect(t, `${b.url}/past/lobby`)
  t.strictSame([await raw.next(), await raw.next()], ['2', '3'])
  const back = await openFramed(t, `${b.url}/past/lobby`, { hello: { resume: { lobby: messages[2]?.position } } })
  t.match(await back.next(), { type: 'joined', recovered: true })
  await a.app.registry.broadcastToGroup('lobby', '4')
  t.match(await back.next(), { data: '4' }, 'who gives a position gets no history')
})

onBoth('a raw client resumes by ?since', async (t, a, b) => {
  const { position } = await a.app.registry.broadcastToGroup('lobby', '1')
  await a.app.registry.broadcastToGroup('lobby', '2')
  const raw = connect(t, `${b.url}/lobby?since=${position}`)
  t.equal(await raw.next(), '2')
  await a.app.registry.broadcastToGroup('lobby', '3')
  t.equal(await raw.next(), '3')
  for (const since of ['', 'x', `${position}&since=${position}`]) {
    const { statusCode, body } = await upgradeStatus(`${a.url}/lobby?since=${since}`)
    t.equal(statusCode, 400)
    t.match(JSON.parse(body), { code: 'WSG_POSITION_INVALID' })
  }
  const framed = await openFramed(t, `${b.url}/lobby?since=${position}`)
  t.notOk('recovered' in await framed.next(), 'it is not for clients that can say where they are')
})
