// A publisher whose call was carried out and whose answer was lost tries again. When the log lost the message meanwhile, the message is
// stored anew: whoever was given it before must not be given it again.
import t, { type Test } from 'tap'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { openFramed, type FramedClient } from '../features/framed/framed-client.ts'
import type { WebsocketGroupsOptions } from '../../plugin.ts'
import { connect } from '../helpers/client.ts'
import { freePort } from '../helpers/ports.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis, type TestRedis } from '../helpers/redis.ts'
import { serve, type Served } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'
import { Wire } from './chaos/wire.ts'

noUnhandled(t)

interface Stage {
  readonly redis: TestRedis
  readonly sending: Served
  readonly other: Served
  /** Broadcasts a message whose answer is lost; `meanwhile` runs when everyone has the message, before the second try. */
  sendTwice (text: string, meanwhile: () => Promise<unknown>): Promise<void>
}

async function setUp (t: Test, log: WebsocketGroupsOptions['log'] = undefined): Promise<Stage> {
  const redis = await startRedis(t)
  const wire = await Wire.start(redis.port)
  t.teardown(() => wire.close())
  const options = { operationTimeoutMs: 5_000, joinTimeoutMs: 5_000, ...log === undefined ? {} : { log } }
  const routes = (app: Served['app']): void => app.wsRoom('/:room', { auth: false, group: ({ room }) => room })
  const sending = await serve(t, { ...options, redis: wire.url }, routes)
  const other = await serve(t, { ...options, redis: redis.url }, routes)
  return {
    redis,
    sending,
    other,
    async sendTwice (text, meanwhile) {
      // The link that breaks stays away until the data is lost.
      wire.target = await freePort()
      const lost = wire.loseReplyTo(text)
      const sent = sending.app.registry.broadcastToGroup('room', text)
      await lost
      try {
        await meanwhile()
      } finally {
        wire.target = redis.port
        await sent
      }
    }
  }
}

t.test('a message that was delivered, lost with its log, and stored again by a second try: once, on every instance', async t => {
  const { redis, sending, other, sendTwice } = await setUp(t)
  const raw = [connect(t, `${sending.url}/room`), connect(t, `${other.url}/room`)]
  const framed = await openFramed(t, `${other.url}/room`)
  await until(async () => await other.app.registry.groupCount('room') === 3)
  const texts = (): unknown[] => framed.frames.filter(({ type }) => type === 'message').map(({ data }) => data)
  await sending.app.registry.broadcastToGroup('room', 'first')
  await sendTwice('once', async () => {
    await until(() => raw.every(({ messages }) => messages.length === 2) && texts().length === 2)
    await redis.admin.flushall()
  })
  await until(() => [sending, other].every(({ app }) => app.registry.health().status === 'up'))
  const { position } = await other.app.registry.broadcastToGroup('room', 'after')
  for (const client of raw) await client.nextWhere(message => message === 'after')
  await framed.nextOf('message', { data: 'after' })
  for (const { messages } of raw) t.strictSame(messages, ['first', 'once', 'after'])
  t.strictSame(texts(), ['first', 'once', 'after'])
  t.match(framed.frames.filter(({ type }) => type === 'gap'), [{ reason: 'epoch' }], 'the loss is told')
  t.equal(framed.frames.at(-1)?.position, position)
  const told = framed.frames.at(-2)
  t.match(told, { type: 'position', group: 'room' }, 'and where the message stands now')
  const back = await openFramed(t, `${sending.url}/room`, { hello: { resume: { room: told?.position } } })
  await back.nextOf('message', { data: 'after' })
  t.strictSame(
    (await other.app.registry.history('room')).messages.map(({ data }) => String(data)), ['once', 'after'], 'the log has the message'
  )
})

t.test('a client that was away while it was stored again is told its new position, one that never got it is given it', async t => {
  const { redis, sending, other, sendTwice } = await setUp(t)
  const stays = connect(t, `${other.url}/room`)
  const away = await openFramed(t, `${other.url}/room`)
  const early = await openFramed(t, `${other.url}/room`)
  const joined = await early.nextOf('joined')
  await until(async () => await other.app.registry.groupCount('room') === 3)
  await sending.app.registry.broadcastToGroup('room', 'first')
  const first = await early.nextOf('message', { data: 'first' })
  await early.raw.close(4000)
  let last: unknown
  await sendTwice('once', async () => {
    last = (await away.nextOf('message', { data: 'once' })).position
    await stays.nextWhere(message => message === 'once')
    away.raw.terminate()
    await redis.admin.flushall()
  })
  await until(() => [sending, other].every(({ app }) => app.registry.health().status === 'up'))
  await other.app.registry.broadcastToGroup('room', 'after')
  await stays.nextWhere(message => message === 'after')
  t.strictSame(stays.messages, ['first', 'once', 'after'])

  const back = async (session: unknown, grant: unknown, room: unknown): Promise<FramedClient> => {
    return await openFramed(t, `${other.url}/room`, { hello: { session, resume: { room }, grants: { room: grant } } })
  }
  const { grant } = await away.frames.find(({ type }) => type === 'joined') as { grant?: unknown }
  const returned = await back(away.welcome.session, grant, last)
  t.match(await returned.nextOf('joined'), { recovered: false, reason: 'epoch' })
  t.match(await returned.next(), { type: 'position', group: 'room' }, 'it has the message')
  t.match(await returned.next(), { type: 'message', data: 'after' })

  const missed = await back(early.welcome.session, joined.grant, first.position)
  t.match(await missed.nextOf('joined'), { recovered: false, reason: 'epoch' })
  t.match(await missed.next(), { type: 'message', data: 'once' })
  t.match(await missed.next(), { type: 'message', data: 'after' })
})

t.test('a second try finds its message in a log that lost its hash meanwhile', async t => {
  const { redis, sending, other, sendTwice } = await setUp(t)
  const clients = [connect(t, `${sending.url}/room`), connect(t, `${other.url}/room`)]
  await until(async () => await other.app.registry.groupCount('room') === 2)
  await sending.app.registry.broadcastToGroup('room', 'first')
  await sendTwice('once', async () => {
    for (const client of clients) await client.nextWhere(message => message === 'once')
    await other.app.registry.broadcastToGroup('room', 'between')
    await redis.admin.del(new Keys('wsg:').logMeta('room'))
    await other.app.registry.broadcastToGroup('room', 'later')
  })
  await sending.app.registry.broadcastToGroup('room', 'after')
  for (const client of clients) await client.nextWhere(message => message === 'after')
  const texts = ['first', 'once', 'between', 'later', 'after']
  for (const { messages } of clients) t.strictSame(messages, texts)
  t.strictSame((await other.app.registry.history('room')).messages.map(({ data }) => String(data)), texts)
})

t.test('nor does a second try come twice where the log no longer has the first', async t => {
  const { redis, sending, other, sendTwice } = await setUp(t, { maxMessages: 3, maxBytes: 100_000, ttlMs: 60_000 })
  const clients = [connect(t, `${sending.url}/room`), connect(t, `${other.url}/room`)]
  await until(async () => await other.app.registry.groupCount('room') === 2)
  await sending.app.registry.broadcastToGroup('room', 'first')
  await sendTwice('once', async () => {
    for (const client of clients) await client.nextWhere(message => message === 'once')
    await redis.admin.del(new Keys('wsg:').logMeta('room'))
    for (const text of ['1', '2', '3', '4']) await other.app.registry.broadcastToGroup('room', text)
  })
  await sending.app.registry.broadcastToGroup('room', 'after')
  for (const client of clients) await client.nextWhere(message => message === 'after')
  for (const { messages } of clients) t.strictSame(messages, ['first', 'once', '1', '2', '3', '4', 'after'])
})

t.test('a second try whose first was lost before anybody saw it is delivered', async t => {
  const { redis, sending, other, sendTwice } = await setUp(t)
  const clients = [connect(t, `${sending.url}/room`), connect(t, `${other.url}/room`)]
  await until(async () => await other.app.registry.groupCount('room') === 2)
  await sending.app.registry.broadcastToGroup('room', 'first')
  await Promise.all(clients.map(async client => await client.nextWhere(message => message === 'first')))
  // Nobody is subscribed when it is published, nor before the data is gone.
  await redis.admin.call('ACL', 'SETUSER', 'default', '-subscribe')
  await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await until(() => [sending, other].every(({ app }) => app.registry.health().status !== 'up'))
  await sendTwice('once', async () => {
    await redis.admin.flushall()
    await redis.admin.call('ACL', 'SETUSER', 'default', '+subscribe')
  })
  await until(() => [sending, other].every(({ app }) => app.registry.health().status === 'up'), { timeoutMs: 30_000 })
  await other.app.registry.broadcastToGroup('room', 'after')
  for (const client of clients) await client.nextWhere(message => message === 'after')
  for (const { messages } of clients) t.strictSame(messages, ['first', 'once', 'after'])
})

t.test('who joins between the loss and the second try is given it, live and when its join still reads', async t => {
  const { redis, sending, other, sendTwice } = await setUp(t)
  const stays = connect(t, `${other.url}/room`)
  await stays.opened
  const had = await openFramed(t, `${other.url}/room`)
  const idle = connect(t, `${other.url}/elsewhere`)
  await until(async () => await other.app.registry.groupCount('room') === 2)
  await sending.app.registry.broadcastToGroup('room', 'first')
  const late: Array<ReturnType<typeof connect>> = []
  const framed: FramedClient[] = []
  await sendTwice('once', async () => {
    const { grant } = await had.nextOf('joined')
    const { position } = await had.nextOf('message', { data: 'once' })
    await stays.nextWhere(message => message === 'once')
    had.raw.terminate()
    await redis.admin.flushall()
    // The end of the log is read after each subscription, and in quiet groups once a minute.
    await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
    await until(() => other.app.registry.stats().gaps === 1)
    late.push(connect(t, `${other.url}/room`))
    framed.push(await openFramed(t, `${other.url}/room`))
    framed.push(await openFramed(t, `${other.url}/room`, {
      hello: { session: had.welcome.session, resume: { room: position }, grants: { room: grant } }
    }))
    const { registry } = other.app
    const [staying, elsewhere] = [registry.all()[0], registry.all().find(({ groups }) => groups.includes('elsewhere'))]
    if (staying === undefined || elsewhere === undefined) throw new Error('both are connected')
    await registry.join(elsewhere, 'room')
    // The one that was a member before the loss has the message, also after it left and joined again.
    await registry.leave(staying, 'room')
    await registry.join(staying, 'room')
    await until(async () => await other.app.registry.groupCount('room') === 5)
  })
  await until(() => [sending, other].every(({ app }) => app.registry.health().status === 'up'))
  await other.app.registry.broadcastToGroup('room', 'after')
  for (const client of [stays, idle, ...late]) await client.nextWhere(message => message === 'after')
  for (const client of framed) await client.nextOf('message', { data: 'after' })
  t.strictSame(stays.messages, ['first', 'once', 'after'])
  for (const { messages } of [idle, ...late]) t.strictSame(messages, ['once', 'after'])
  t.strictSame(framed.map(({ frames }) => frames.filter(({ type }) => type === 'message').map(({ data }) => data)), [
    ['once', 'after'], ['after']
  ], 'one that resumes from where it has the message is not given it')
})

t.test('messages that a failover seemed to lose, and that are there again: nobody is given them twice', async t => {
  const { redis, sending, other } = await setUp(t)
  const raw = connect(t, `${other.url}/room`)
  const framed = await openFramed(t, `${other.url}/room`)
  await until(async () => await other.app.registry.groupCount('room') === 2)
  const keys = new Keys('wsg:')
  const names = [keys.logMeta('room'), keys.log('room')]
  const take = async (): Promise<Buffer[]> => await Promise.all(names.map(async name => await redis.admin.dumpBuffer(name)))
  /** As an instance sees it that asks another server: for a moment nodes of a cluster differ in who is master. */
  const lead = async (log: readonly Buffer[]): Promise<void> => {
    for (const [index, name] of names.entries()) await redis.admin.restore(name, 60_000, log[index] ?? '', 'REPLACE')
    await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  }
  const send = async (text: string): Promise<unknown> => await sending.app.registry.broadcastToGroup('room', text)
  await send('one')
  const older = await take()
  await send('two')
  const newer = await take()
  await framed.nextOf('message', { data: 'two' })
  await lead(older)
  await framed.nextOf('gap', { reason: 'rewound' })
  await lead(newer)
  await until(() => other.app.registry.health().status === 'up')
  await send('three')
  await framed.nextOf('message', { data: 'three' })
  await raw.nextWhere(message => message === 'three')
  t.strictSame(raw.messages, ['one', 'two', 'three'])
  t.strictSame(framed.frames.filter(({ type }) => type === 'message').map(({ data }) => data), ['one', 'two', 'three'])
})
