// A failover to a server that never had the log, and back to the one that has: what was given out before must not come again.
import t, { type Test } from 'tap'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { openFramed, type Frame } from '../features/framed/framed-client.ts'
import { connect } from '../helpers/client.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis, type TestRedis } from '../helpers/redis.ts'
import { serve } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'
import { Wire } from './chaos/wire.ts'
import { appendQuietly, startBackplane } from './log-rig.ts'

noUnhandled(t)
const keys = new Keys('wsg:')

interface Stage {
  readonly full: TestRedis
  readonly empty: TestRedis
  readonly wire: Wire
}

async function setUp (t: Test): Promise<Stage> {
  const [full, empty] = await Promise.all([startRedis(t), startRedis(t)])
  const wire = await Wire.start(full.port)
  t.teardown(() => wire.close())
  return { full, empty, wire }
}

t.test('a log that was away and is as it was: one gap, and its messages once', async t => {
  const { full, empty, wire } = await setUp(t)
  const { local, backplane, append } = await startBackplane(t, wire.url)
  await append(['1', '2', '3'])
  await until(() => local.received.length === 3)
  await wire.lead(empty.port)
  await until(() => local.gaps.length === 1)
  await wire.lead(full.port)
  await until(() => backplane.position('log')?.offset === 3)
  await append(['4'])
  await until(() => local.received.length === 4)
  t.strictSame(local.events, ['1', '2', '3', 'gap: epoch to 0', '4'])
  t.strictSame(local.returns, [3], 'members are told where they are')
})

t.test('a log that went on, was cut short or forgot its beginning while it was away', async t => {
  for (const [what, change, expected] of [
    ['went on', async redis => { await appendQuietly(redis, 'log', 'more') }, ['gap: epoch to 3', 'more', 'after']],
    ['cut short', async redis => {
      await redis.ltrim(keys.log('log'), 0, 0)
      const [first] = await redis.lrangeBuffer(keys.log('log'), 0, 0)
      await redis.hset(keys.logMeta('log'), 's', 1, 'n', first?.subarray(16, 20) ?? '')
    }, ['gap: rewound to 1', 'after']],
    ['trimmed', async redis => {
      for (const text of ['4', '5', '6']) await appendQuietly(redis, 'log', text)
      await redis.ltrim(keys.log('log'), -2, -1)
    }, ['gap: trimmed to 4', '5', '6', 'after']]
  ] as ReadonlyArray<readonly [string, (redis: TestRedis['admin']) => Promise<void>, readonly string[]]>) {
    const { full, empty, wire } = await setUp(t)
    const { local, backplane, append } = await startBackplane(t, wire.url)
    for (const text of ['1', '2', '3']) await append([text])
    await until(() => local.received.length === 3)
    await wire.lead(empty.port)
    await until(() => local.gaps.length === 1)
    await until(() => backplane.state === 'up')
    await append(['elsewhere'])
    await until(() => local.events.includes('elsewhere'))
    await change(full.admin)
    await wire.lead(full.port)
    await until(() => local.gaps.length === 2)
    await until(() => backplane.state === 'up')
    await append(['after'])
    await until(() => local.events.includes('after'))
    t.strictSame(local.events, ['1', '2', '3', 'gap: epoch to 0', 'elsewhere', ...expected], what)
  }
})

t.test('clients of the whole stack: nobody is given a message twice, also one that came back in between', async t => {
  const { full, empty, wire } = await setUp(t)
  const { url, registry } = await serve(t, { redis: wire.url }, app => {
    app.wsRoom('/:room', { auth: false, group: ({ room }) => room })
  })
  const raw = connect(t, `${url}/room`)
  const [stays, away] = await Promise.all([openFramed(t, `${url}/room`), openFramed(t, `${url}/room`)])
  await until(async () => await registry.groupCount('room') === 3)
  for (const text of ['1', '2']) await registry.broadcastToGroup('room', text)
  const { grant } = await away.nextOf('joined')
  const { position } = await away.nextOf('message', { data: '2' })
  away.raw.terminate()
  await stays.nextOf('message', { data: '2' })
  await wire.lead(empty.port)
  await stays.nextOf('gap', { reason: 'epoch' })
  await until(() => registry.health().status === 'up')
  const back = await openFramed(t, `${url}/room`, {
    hello: { session: away.welcome.session, resume: { room: position }, grants: { room: grant } }
  })
  t.match(await back.nextOf('joined'), { recovered: false, reason: 'epoch' })
  await wire.lead(full.port)
  t.match(await stays.nextOf('position'), { group: 'room', position }, 'where it was before')
  await until(() => registry.health().status === 'up')
  await registry.broadcastToGroup('room', '3')
  const texts = (frames: readonly Frame[]): unknown[] => frames.filter(({ type }) => type === 'message').map(({ data }) => data)
  for (const client of [stays, back]) await client.nextOf('message', { data: '3' })
  await raw.nextWhere(message => message === '3')
  t.strictSame(raw.messages, ['1', '2', '3'])
  t.strictSame(texts(stays.frames), ['1', '2', '3'])
  t.strictSame(texts(back.frames), ['3'])
  t.equal(stays.frames.filter(({ type }) => type === 'gap').length, 1)
})

t.test('a client that was cut off in the log between is given what comes after the log was left, not its beginning', async t => {
  const { full, empty, wire } = await setUp(t)
  const { url, registry } = await serve(t, { redis: wire.url }, app => {
    app.wsRoom('/:room', { auth: false, group: ({ room }) => room })
  })
  const [stays, away] = await Promise.all([openFramed(t, `${url}/room`), openFramed(t, `${url}/room`)])
  await until(async () => await registry.groupCount('room') === 2)
  for (const text of ['1', '2']) await registry.broadcastToGroup('room', text)
  for (const client of [stays, away]) await client.nextOf('message', { data: '2' })
  await wire.lead(empty.port)
  for (const client of [stays, away]) await client.nextOf('gap', { reason: 'epoch' })
  await until(() => registry.health().status === 'up')
  await registry.broadcastToGroup('room', 'between')
  await stays.nextOf('message', { data: 'between' })
  const { position } = await away.nextOf('message', { data: 'between' })
  const grant = away.frames.find(({ type }) => type === 'joined')?.grant
  away.raw.terminate()
  await appendQuietly(full.admin, 'room', '3')
  await wire.lead(full.port)
  await stays.nextOf('message', { data: '3' })
  const back = await openFramed(t, `${url}/room`, {
    hello: { session: away.welcome.session, resume: { room: position }, grants: { room: grant } }
  })
  t.match(await back.nextOf('joined'), { recovered: false, reason: 'epoch' })
  await until(() => registry.health().status === 'up')
  await registry.broadcastToGroup('room', '4')
  for (const client of [stays, back]) await client.nextOf('message', { data: '4' })
  const texts = (frames: readonly Frame[]): unknown[] => frames.filter(({ type }) => type === 'message').map(({ data }) => data)
  t.strictSame(texts(stays.frames), ['1', '2', 'between', '3', '4'])
  t.strictSame(texts(back.frames), ['3', '4'])
})
