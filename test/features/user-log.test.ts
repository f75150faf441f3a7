import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import { connect as connectClient } from '../../lib/client/index.ts'
import { createPublisher } from '../../plugin.ts'
import { heard, onEveryCluster, onRedis } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { openFramed, type FramedClient, type FramedOptions } from './framed/framed-client.ts'

noUnhandled(t)
const redis = await startRedis(t)
const userLog = { maxMessages: 100, ttlMs: 60_000 }
const label = 'wsg:user'

/** A device of a user: it says where it is in the log of the user when it comes back. */
async function device (t: Test, url: string, options: FramedOptions = {}): Promise<FramedClient & { readonly joined: object }> {
  const client = await openFramed(t, `${url}/ws`, { token: 'ann', userLog: true, ...options })
  const joined = await client.nextOf('joined')
  return Object.assign(client, { joined })
}

function texts ({ frames }: FramedClient): unknown[] {
  return frames.filter(({ type, group }) => type === 'message' && group === label).map(({ data }) => data)
}

onEveryCluster(t, redis, 'what is sent to a user who is away for a moment comes once on each device', async (t, cluster) => {
  const [a, b] = [await cluster.start({ userLog }), await cluster.start({ userLog })]
  const [phone, laptop] = [await device(t, a.url), await device(t, b.url)]
  t.match(phone.joined, { group: label, position: String })
  const raw = await b.open({ user: 'ann' })
  const bob = await device(t, b.url, { token: 'bob' })
  t.match(await b.registry.sendToUser('ann', 'one'), { scope: 'cluster', localRecipients: 2, position: String })
  const first = await phone.nextOf('message', { data: 'one' })
  t.match(first, { group: label, position: String })
  await laptop.nextOf('message', { data: 'one' })

  phone.raw.terminate()
  await until(() => a.registry.count() === 0)
  await b.registry.sendToUser('ann', 'two')
  await b.registry.sendToUser('ann', 'passing', { volatile: true })
  await a.registry.sendToUser('ann', 'three', { except: raw.connection })
  // Back at the other instance.
  const again = await device(t, b.url, { hello: { session: phone.welcome.session, resume: { [label]: first.position } } })
  t.match(again.joined, { group: label, recovered: true })
  await a.registry.sendToUser('ann', 'four')
  for (const one of [again, laptop]) await one.nextOf('message', { data: 'four' })
  t.strictSame(texts(again), ['two', 'three', 'four'])
  t.strictSame(texts(laptop), ['one', 'two', 'three', 'four'])
  await raw.client.nextWhere(message => message === 'four')
  t.strictSame(heard(raw), ['one', 'two', 'passing', 'four'], 'raw clients get what comes while they are there')
  t.strictSame(texts(bob), [])
  t.strictSame([await a.registry.groups({ userId: 'ann' }), [...await a.registry.groupList()]], [[], []], 'it is no group')
  t.strictSame(a.registry.stats().groups, 0)

  const stranger = await device(t, a.url, { token: 'bob', hello: { resume: { [label]: first.position } } })
  t.match(stranger.joined, { recovered: false }, 'the position of another user gives nothing')
  t.strictSame(texts(stranger), [])
})

onEveryCluster(t, redis, 'a client that missed more than the log holds is told', async (t, cluster) => {
  const small = { userLog: { maxMessages: 2, ttlMs: 60_000 } }
  const a = await cluster.start(small)
  // A user of its own: of the settings that a log ever had the larger ones count.
  const phone = await device(t, a.url, { token: 'tom' })
  await a.registry.sendToUser('tom', '0')
  const { position } = await phone.nextOf('message', { data: '0' })
  phone.raw.terminate()
  for (const text of ['1', '2', '3', '4']) await a.registry.sendToUser('tom', text)
  // An instance that has more in memory than the log could give it all.
  const b = await cluster.start(small)
  const again = await device(t, b.url, { token: 'tom', hello: { session: phone.welcome.session, resume: { [label]: position } } })
  t.match(again.joined, { group: label, recovered: false, reason: 'trimmed' })
})

onEveryCluster(t, redis, 'the client of this package resumes it by itself', async (t, cluster) => {
  const a = await cluster.start({ userLog })
  const client = connectClient(`${a.url}/ws`, { WebSocket, token: 'ann', backoff: { minMs: 300, maxMs: 300 } })
  t.teardown(() => client.close())
  const got: unknown[] = []
  client.on('message', ({ group, data }) => { if (group === label) got.push(data) })
  await until(() => client.positions[label] !== undefined)
  await a.registry.sendToUser('ann', 'before')
  await until(() => got.length === 1)
  const [before] = a.registry.all()
  before?.terminate()
  await until(() => a.registry.all()[0] !== before)
  await a.registry.sendToUser('ann', 'meanwhile')
  await until(() => got.length === 2)
  t.strictSame(got, ['before', 'meanwhile'])
  t.strictSame(client.groups, [], 'it is no group')
})

onRedis(t, redis, 'a publisher sends through the log of a user, and one key sends once', async (t, cluster) => {
  const a = await cluster.start({ userLog })
  await using publisher = createPublisher({ redis: redis.url, userLog })
  const phone = await device(t, a.url)
  t.match(await publisher.sendToUser('ann', 'x', { idempotencyKey: 'k' }), { position: String })
  t.match(await publisher.sendToUser('ann', 'x', { idempotencyKey: 'k' }), { duplicate: true })
  const refused = { code: 'WSG_IDEMPOTENCY_INVALID' }
  for (const sender of [a.registry, publisher]) {
    await t.rejects(sender.broadcastToAll('x', { idempotencyKey: 'k' }), refused, 'what no log remembers would be sent twice')
    await t.rejects(sender.sendToUser('u'.repeat(255), 'x', { idempotencyKey: 'k' }), refused, 'nor has such a user a log')
  }
  await t.rejects(a.registry.sendToUser('ann', 'x', { local: true, idempotencyKey: 'k' }), refused)
  await publisher.sendToUser('ann', 'end')
  await phone.nextOf('message', { data: 'end' })
  t.strictSame(texts(phone), ['x', 'end'])
  t.equal(await publisher.disconnect({ userId: 'ann' }), 1, 'commands for the user come by the same channel')
  // An id that leaves no room for the name of a log.
  const long = 'u'.repeat(255)
  const other = await a.open({ user: long })
  t.equal((await publisher.sendToUser(long, 'hello')).position, undefined)
  t.equal(await other.client.next(), 'hello')
})
