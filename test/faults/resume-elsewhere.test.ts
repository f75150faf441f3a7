import t, { type Test } from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { parsePosition } from '../../lib/backplane/position.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { serve, type Served } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'
import { Wire } from './chaos/wire.ts'
import { openFramed, type FramedClient } from '../features/framed/framed-client.ts'

noUnhandled(t)
const redis = await startRedis(t)

/** Where messages are sent, and where clients come to whose instance cannot subscribe to anything for a while. */
async function instances (t: Test, urlOfDeaf = redis.url): Promise<{ sending: Served, deaf: Served }> {
  const options = { redis: redis.url, keyPrefix: `${process.hrtime.bigint()}:`, joinTimeoutMs: 300 }
  const routes = (app: Served['app']): void => app.wsRoom('/:room', { auth: false })
  return { sending: await serve(t, options, routes), deaf: await serve(t, { ...options, redis: urlOfDeaf }, routes) }
}

/** The subscribe links break, and cannot subscribe again. */
async function deafen ({ deaf }: { readonly deaf: Served }): Promise<void> {
  await redis.admin.call('ACL', 'SETUSER', 'default', '-subscribe')
  await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await until(() => deaf.app.registry.health().status !== 'up')
}

async function hearAgain ({ sending, deaf }: { readonly sending: Served, readonly deaf: Served }): Promise<void> {
  await redis.admin.call('ACL', 'SETUSER', 'default', '+subscribe')
  await until(() => [sending, deaf].every(({ app }) => app.registry.health().status === 'up'), { timeoutMs: 60_000 })
}

async function loseLog (): Promise<void> {
  await redis.admin.del(...await redis.admin.keys('*:[hl]:lobby'))
}

async function send ({ app }: Served, group: string, ...texts: readonly string[]): Promise<string | undefined> {
  let position: string | undefined
  for (const text of texts) position = (await app.registry.broadcastToGroup(group, text)).position
  return position
}

const news = ({ frames }: FramedClient): unknown[] => frames.flatMap(({ type, data, recovered, reason }) =>
  type === 'message' ? [data] : type === 'gap' ? [`gap ${String(reason)}`] : type === 'joined' ? [`joined ${String(recovered)}`] : [])

async function arrived (client: FramedClient, text: string): Promise<void> {
  await until(() => news(client).includes(text))
  await sleep(100) // what is too much comes, too
}

t.test('what is sent between a resume and the subscription is not lost', async t => {
  const both = await instances(t)
  const since = await send(both.sending, 'lobby', '1')
  await send(both.sending, 'lobby', '2', '3')
  await deafen(both)
  const client = await openFramed(t, `${both.deaf.url}/lobby`, { hello: { resume: { lobby: since } } })
  await client.nextOf('message', { data: '3' })
  await send(both.sending, 'lobby', '4', '5')
  await hearAgain(both)
  await send(both.sending, 'lobby', '6')
  await arrived(client, '6')
  t.strictSame(news(client), ['joined true', '2', '3', '4', '5', '6'])
})

/** A client comes that is further than its new instance, where another one is already: what each of them was told in the end. */
async function comeFurther (t: Test, meanwhile = async (): Promise<void> => {}): Promise<{ client: unknown[], older: unknown[] }> {
  const both = await instances(t)
  const older = await openFramed(t, `${both.deaf.url}/lobby`)
  await older.nextOf('joined')
  await send(both.sending, 'lobby', '1')
  await arrived(older, '1')
  await deafen(both)
  await meanwhile()
  const since = await send(both.sending, 'lobby', '2', '3')
  const client = await openFramed(t, `${both.deaf.url}/lobby`, { hello: { resume: { lobby: since } } })
  await client.nextOf('joined')
  await hearAgain(both)
  await send(both.sending, 'lobby', '4')
  await Promise.all([older, client].map(async one => await arrived(one, '4')))
  return { client: news(client), older: news(older) }
}

t.test('a client that is further than its instance gets nothing twice', async t => {
  const { client, older } = await comeFurther(t)
  t.strictSame(client, ['joined true', '4'])
  t.strictSame(older, ['joined undefined', '1', '2', '3', '4'])
})

t.test('nor is it told of a loss that was before it', async t => {
  const { client, older } = await comeFurther(t, loseLog)
  t.strictSame(client, ['joined true', '4'])
  t.strictSame(older, ['joined undefined', '1', 'gap epoch', '2', '3', '4'])
})

/** A client comes from elsewhere while its new instance, where another client is already, cannot read the log either. */
async function comeUnread (
  t: Test, move: (sending: Served, unplug: () => Promise<void>, older: FramedClient) => Promise<string | undefined>
): Promise<{ client: unknown[], older: unknown[], since: unknown, joined: Awaited<ReturnType<FramedClient['nextOf']>> }> {
  const wire = await Wire.start(redis.port)
  t.teardown(() => wire.close())
  const both = await instances(t, wire.url)
  const older = await openFramed(t, `${both.deaf.url}/lobby`)
  await older.nextOf('joined')
  await send(both.sending, 'lobby', '1')
  await arrived(older, '1')
  const since = await move(both.sending, async () => {
    wire.blackhole()
    wire.cut()
    await until(() => both.deaf.app.registry.health().status !== 'up')
  }, older)
  const client = await openFramed(t, `${both.deaf.url}/lobby`, { hello: { resume: { lobby: since } } })
  const joined = await client.nextOf('joined')
  await send(both.sending, 'lobby', '4')
  wire.lift()
  await hearAgain(both)
  await send(both.sending, 'lobby', '5')
  await Promise.all([older, client].map(async one => await arrived(one, '5')))
  return { client: news(client), older: news(older), since, joined }
}

t.test('a client that is further than its instance gets nothing twice either where the log cannot be read', async t => {
  const { client, older, since, joined } = await comeUnread(t, async (sending, unplug) => {
    await unplug()
    return await send(sending, 'lobby', '2', '3')
  })
  t.equal(joined.reason, 'unavailable')
  t.equal(joined.position, since, 'the client goes on from where it is, not from where its instance is')
  t.strictSame(client, ['joined false', '4', '5'])
  t.strictSame(older, ['joined undefined', '1', '2', '3', '4', '5'])
})

t.test('nor where it is in a log that its instance has not heard of', async t => {
  const { client, older } = await comeUnread(t, async (sending, unplug) => {
    await unplug()
    await loseLog()
    return await send(sending, 'lobby', '2', '3')
  })
  t.strictSame(client, ['joined false', '4', '5'])
  t.strictSame(older, ['joined undefined', '1', 'gap epoch', '2', '3', '4', '5'])
})

t.test('where it is in a log that is no more it is told so before it is given anything of the next one', async t => {
  const { client, older } = await comeUnread(t, async (sending, unplug, older) => {
    const since = await send(sending, 'lobby', 'lost')
    await loseLog()
    await send(sending, 'lobby', '2', '3')
    await arrived(older, '3')
    await unplug()
    return since
  })
  t.strictSame(client, ['joined false', 'gap epoch', '4', '5'])
  t.strictSame(older, ['joined undefined', '1', 'lost', 'gap epoch', '2', '3', '4', '5'])
})

t.test('who joined before the first message gets the log there is: nobody could name the epoch of one that was lost since', async t => {
  const { sending } = await instances(t)
  const before = await openFramed(t, `${sending.url}/lobby`)
  const { grant, position } = await before.nextOf('joined')
  t.equal(parsePosition(position)?.epoch, '', 'the beginning of no log in particular')
  before.raw.terminate()
  await send(sending, 'lobby', 'lost')
  await loseLog()
  await send(sending, 'lobby', '1', '2')
  const client = await openFramed(t, `${sending.url}/lobby`, {
    hello: { session: before.welcome.session, resume: { lobby: position }, grants: { lobby: grant } }
  })
  await arrived(client, '2')
  t.strictSame(news(client), ['joined true', '1', '2'])
})

t.test('a loss that its join told is not told again', async t => {
  const both = await instances(t)
  const before = await openFramed(t, `${both.sending.url}/lobby`)
  // Without what proves that the client was in the group, the log that was lost would be as if it had never been the client's.
  const { grant } = await before.nextOf('joined')
  const { session } = before.welcome
  const since = await send(both.sending, 'lobby', '1')
  const older = await openFramed(t, `${both.deaf.url}/lobby`)
  await older.nextOf('joined')
  await send(both.sending, 'lobby', '2')
  await arrived(older, '2')
  await loseLog()
  before.raw.terminate()
  const client = await openFramed(t, `${both.deaf.url}/lobby`, { hello: { session, resume: { lobby: since }, grants: { lobby: grant } } })
  await client.nextOf('joined')
  await send(both.sending, 'lobby', '3')
  await Promise.all([older, client].map(async one => await arrived(one, '3')))
  t.equal(news(client).filter(text => text === 'joined false' || String(text).startsWith('gap')).length, 1, news(client).join())
  t.equal(news(client).at(-1), '3')
  t.strictSame(news(older), ['joined undefined', '2', 'gap epoch', '3'])
})
