// Redis evicts one key of a log, or somebody deletes it: the hash, which says where the log ends. The list alone still tells.
import t, { type Test } from 'tap'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { positionOf } from '../../lib/backplane/redis/envelope.ts'
import { openFramed, type FramedClient } from '../features/framed/framed-client.ts'
import { connect } from '../helpers/client.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis, type TestRedis } from '../helpers/redis.ts'
import { serve, type Served } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'
import { readersRig } from './log-rig.ts'

noUnhandled(t)

const keys = new Keys('wsg:')

interface Stage {
  readonly redis: TestRedis
  readonly a: Served
  readonly b: Served
  /** The groups of whose losses routes were told. */
  readonly told: readonly string[]
  /** Starts one more instance. */
  start (): Promise<Served>
}

async function setUp (t: Test): Promise<Stage> {
  const redis = await startRedis(t)
  const told: string[] = []
  const start = async (): Promise<Served> => await serve(t, { redis: redis.url }, app => {
    app.wsRoom('/:room', { auth: false, group: ({ room }) => room, onGap: (_connection, group) => { told.push(group) } })
  })
  return { redis, told, start, a: await start(), b: await start() }
}

/** The texts that the client was given, and `undefined` for each gap. */
function toldTo ({ frames }: FramedClient): unknown[] {
  return frames.filter(({ type }) => type === 'message' || type === 'gap').map(({ data }) => data)
}

t.test('a group whose hash is lost goes on with its log: nobody is told of a loss, and who was away gets what was missed', async t => {
  const { redis, told, a, b } = await setUp(t)
  const raw = [connect(t, `${a.url}/room`), connect(t, `${b.url}/room`)]
  const framed = await openFramed(t, `${b.url}/room`)
  const away = await openFramed(t, `${a.url}/room`)
  const { grant } = await away.nextOf('joined')
  await until(async () => await a.registry.groupCount('room') === 4)
  await a.registry.broadcastToGroup('room', 'one')
  const { position } = await away.nextOf('message', { data: 'one' })
  await away.raw.close(4000)
  await b.registry.broadcastToGroup('room', 'two')

  await redis.admin.del(keys.logMeta('room'))
  const late = await openFramed(t, `${b.url}/room`)
  await late.nextOf('joined')
  const back = await openFramed(t, `${b.url}/room`, {
    hello: { session: away.welcome.session, resume: { room: position }, grants: { room: grant } }
  })
  t.match(await back.nextOf('joined'), { recovered: true })
  t.match(await back.next(), { type: 'message', data: 'two' })
  t.strictSame((await a.registry.history('room')).messages.map(({ data }) => String(data)), ['one', 'two'])

  await a.registry.broadcastToGroup('room', 'three')
  await redis.admin.del(keys.logMeta('room'))
  await b.registry.broadcastToGroup(['room', 'other'], 'four')
  await redis.admin.del(keys.logMeta('room'))
  await a.registry.broadcastToGroup('room', 'five', { idempotencyKey: 'once' })
  const { position: last } = await framed.nextOf('message', { data: 'five' })
  for (const client of raw) await client.nextWhere(message => message === 'five')
  await late.nextOf('message', { data: 'five' })
  const texts = ['one', 'two', 'three', 'four', 'five']
  for (const { messages } of raw) t.strictSame(messages, texts)
  const all = toldTo(framed)
  t.strictSame(all, texts)
  t.strictSame(toldTo(late), texts.slice(2))
  const entries = await redis.admin.lrangeBuffer(keys.log('room'), 0, -1)
  t.strictSame(entries.map(bytes => positionOf(bytes).offset), [1, 2, 3, 4, 5])
  t.equal(new Set(entries.map(bytes => positionOf(bytes).epoch)).size, 1)
  t.strictSame(told, [], 'no route is told of a loss')
  await redis.admin.del(keys.logMeta('room'))
  t.equal((await b.registry.history('room')).messages.at(-1)?.position, last)
})

t.test('a group whose list is lost goes on, and only who was away is told so', async t => {
  const { redis, told, start, a, b } = await setUp(t)
  const framed = await openFramed(t, `${b.url}/room`)
  const away = await openFramed(t, `${a.url}/room`)
  const { grant } = await away.nextOf('joined')
  await until(async () => await a.registry.groupCount('room') === 2)
  await a.registry.broadcastToGroup('room', 'one')
  const { position } = await away.nextOf('message', { data: 'one' })
  await away.raw.close(4000)
  await a.registry.broadcastToGroup('room', 'two')
  await redis.admin.del(keys.log('room'))
  await a.registry.broadcastToGroup('room', 'three')
  await framed.nextOf('message', { data: 'three' })
  t.strictSame(toldTo(framed), ['one', 'two', 'three'])
  t.strictSame(told, [])
  const hello = { session: away.welcome.session, resume: { room: position }, grants: { room: grant } }
  const here = await openFramed(t, `${b.url}/room`, { hello })
  t.match(await here.nextOf('joined'), { recovered: true }, 'an instance that has the messages in its memory')
  t.match(await here.next(), { type: 'message', data: 'two' })
  const back = await openFramed(t, `${(await start()).url}/room`, { hello })
  t.match(await back.nextOf('joined'), { recovered: false, reason: 'trimmed' }, 'another one')
  t.match(await back.next(), { type: 'message', data: 'three' })
})

t.test('a list that holds something else tells nothing: the log begins anew, and members are told of the loss', async t => {
  const redis = await startRedis(t)
  const { registry, url } = await serve(t, { redis: redis.url }, app => {
    app.wsRoom('/:room', { auth: false, group: ({ room }) => room })
  })
  const lists = { short: ['x'], foreign: ['y'.repeat(100)], cyrillic: ['совершенно чужая строка'], none: [] }
  for (const [room, entries] of Object.entries(lists)) {
    const framed = await openFramed(t, `${url}/${room}`)
    await framed.nextOf('joined')
    await registry.broadcastToGroup(room, 'one')
    await framed.nextOf('message', { data: 'one' })
    await redis.admin.del(keys.logMeta(room))
    if (entries.length === 0) await redis.admin.del(keys.log(room))
    for (const entry of entries) await redis.admin.rpush(keys.log(room), entry)
    await registry.broadcastToGroup(room, 'two')
    t.match(await framed.next(), { type: 'gap', reason: 'epoch' }, room)
    t.match(await framed.next(), { type: 'message', data: 'two' })
    const kept = await redis.admin.lrangeBuffer(keys.log(room), 0, -1)
    t.strictSame(kept.map(bytes => positionOf(bytes).offset), [1], 'the new log has only what is its own')
  }
})

for (const isFollowed of [true, false]) {
  t.test(`the limits of a log that is ${isFollowed ? '' : 'not '}followed hold after its hash was lost`, async t => {
    const redis = await startRedis(t)
    const log = { maxMessages: 20, maxBytes: 20_000, ttlMs: 60_000 }
    const { registry } = await serve(t, { redis: redis.url, log }, () => {})
    const { readers } = readersRig(redis)
    const lose = async (): Promise<void> => {
      await redis.admin.del(keys.logMeta('log'))
      if (isFollowed) await readers.sweep()
    }
    const stored = async (): Promise<number[]> => (await redis.admin.lrangeBuffer(keys.log('log'), 0, -1)).map(({ length }) => length)
    for (let n = 0; n < 10; n++) await registry.broadcastToGroup('log', 'x'.repeat(1_900))
    await readers.open('log')
    for (let n = 0; n < 40; n++) {
      if (n % 9 === 0) await lose()
      await registry.broadcastToGroup('log', 'y'.repeat(10 + 50 * n))
      const lengths = await stored()
      t.ok(lengths.length <= 20 && lengths.reduce((sum, length) => sum + length, 0) <= 20_000, lengths.join())
    }
    for (let n = 0; n < 40; n++) {
      if (n % 9 === 0) await lose()
      await registry.broadcastToGroup('log', 'z')
      t.ok((await stored()).length <= 20)
    }
    t.equal((await stored()).length, 20)
  })
}

t.test('an instance that follows the log puts its hash back, before the list expires', async t => {
  const redis = await startRedis(t)
  const { readers, append, live, events } = readersRig(redis)
  await readers.open('log')
  live(await append('one'), await append('two'))
  const before = await redis.admin.hmgetBuffer(keys.logMeta('log'), 'e', 's', 'n')
  await redis.admin.del(keys.logMeta('log'))
  await readers.sweep()
  t.strictSame(await redis.admin.hmgetBuffer(keys.logMeta('log'), 'e', 's', 'n'), before)
  t.ok(await redis.admin.pttl(keys.logMeta('log')) > 1_700_000)
  await redis.admin.del(keys.log('log'))
  live(await append('three'))
  await readers.sweep()
  t.strictSame(events, ['one', 'two', 'three'])
  t.equal(readers.problem, undefined)
})
