import t from 'tap'
import type { FastifyInstance } from 'fastify'
import { WebSocket } from 'ws'
import type { AnyMessages } from '../../../plugin.ts'
import { connect as connectMessages, type MessageClient } from '../../../lib/client/messages.ts'
import { onEveryCluster, type TestInstance } from '../../helpers/app.ts'
import { connect } from '../../helpers/client.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { startRedis } from '../../helpers/redis.ts'
import { serve } from '../../helpers/service.ts'
import { until } from '../../helpers/until.ts'

noUnhandled(t)
const redis = await startRedis(t)

function confirming (app: FastifyInstance) {
  const set = app.wsMessages(
    { messages: {}, questions: { confirm: { data: { type: 'string', maxLength: 10 }, reply: { type: 'boolean' } } } }
  )
  app.wsRoom('/q/:room', { auth: { required: false }, group: ({ room }) => `q:${room}`, messages: set as AnyMessages })
  return set
}

onEveryCluster(t, redis, 'clients are asked wherever they are, and those that do not answer are missing', async (t, cluster) => {
  const sets: Array<ReturnType<typeof confirming>> = []
  const start = async (): Promise<TestInstance> => await cluster.start({ routes: app => { sets.push(confirming(app)) } })
  const instances = [await start(), await start()]
  const open = async (at: number, user?: string): Promise<MessageClient> => {
    const client = connectMessages(`${instances[at]?.url ?? ''}/q/lobby`, { WebSocket, token: user })
    t.teardown(() => client.close())
    await until(() => client.connection.groups.length === 1)
    return client
  }
  const [ann, bob, silent, wrong, broken, mute] = [
    await open(0, 'ann'), await open(1, 'bob'), await open(1), await open(0), await open(0), await open(1)
  ]
  const asked: unknown[] = []
  ann.answer('confirm', (data, { group }) => {
    asked.push(group)
    return data === 'sure?'
  })
  bob.answer('confirm', async () => false)
  silent.answer('confirm', async () => await new Promise(() => {}))
  wrong.answer('confirm', () => 'neither')
  broken.answer('confirm', () => { throw Object.assign(new Error('no idea'), { code: 'BROKEN' }) })
  t.ok(mute)
  const [set] = sets
  if (set === undefined) throw new Error('no set')
  const { replies, ...rest } = await set.ask('q:lobby', 'confirm', 'sure?' as never, { timeoutMs: 2_000 })
  t.strictSame(rest, { missing: [silent.connection.connectionId], instancesMissing: 0, scope: 'cluster' })
  const byId = Object.fromEntries(replies.map(({ connectionId, ...reply }) => [connectionId, reply]))
  t.match([ann, bob, wrong, broken, mute].map(({ connection }) => byId[connection.connectionId ?? '']), [
    { userId: 'ann', data: true }, { userId: 'bob', data: false }, { error: { code: 'WSG_MESSAGE_INVALID' } },
    { error: { code: 'BROKEN', message: 'no idea' } }, { error: { code: 'UNANSWERED' } }
  ])

  t.match(await set.ask({ userId: 'bob' }, 'confirm', 'x' as never), { replies: [{ userId: 'bob', data: false }], missing: [] })
  const connection = instances[0]?.registry.get(ann.connection.connectionId ?? '')
  if (connection === undefined) throw new Error('ann is gone')
  t.match(await set.ask(connection, 'confirm', 'x' as never), { replies: [{ userId: 'ann', data: false }], missing: [] })
  t.strictSame(asked, ['q:lobby', undefined], 'a client knows which of its groups was asked')
  t.match(await set.ask('q:nobody', 'confirm', 'x' as never), { replies: [], missing: [] })
  bob.answer('confirm', async () => await new Promise(() => {}))
  const gone = set.ask({ userId: 'bob' }, 'confirm', 'x' as never, { timeoutMs: 20_000 })
  setTimeout(() => bob.close(), 50)
  t.match(await gone, { replies: [], missing: [/./] }, 'who left is not waited for')
  await t.rejects(set.ask('q:lobby', 'confirm', 'x'.repeat(11) as never), { code: 'WSG_EVENT_INVALID' })
  await t.rejects(set.ask('q:lobby', 'unasked' as never, '' as never), { code: 'WSG_EVENT_INVALID' })
  await t.rejects(set.ask('q:lobby', 'confirm', 'x' as never, { timeoutMs: 0 }), { code: 'WSG_OPTION_INVALID' })
  for (const client of [ann, silent, wrong, broken, mute]) client.close()
  await until(() => instances.every(({ registry }) => registry.count() === 0))
})

onEveryCluster(t, redis, 'an instance that does not answer is counted, and holds up nobody', async (t, cluster) => {
  let set: ReturnType<typeof confirming> | undefined
  const [first, stuck] = [await cluster.start({ routes: app => { set = confirming(app) } }), await cluster.start()]
  // As an instance that hangs: it got the question, and says nothing.
  stuck.registry.instances.on('wsg.ask' as never, async () => await new Promise(() => {}))
  const ann = connectMessages(`${first.url}/q/lobby`, { WebSocket, token: 'ann' })
  t.teardown(() => ann.close())
  await until(() => ann.connection.groups.length === 1)
  ann.answer('confirm', () => true)
  t.match(await set?.ask('q:lobby', 'confirm', 'sure?' as never, { timeoutMs: 1_000 }), {
    replies: [{ userId: 'ann', data: true }], missing: [], instancesMissing: 1, scope: 'cluster'
  })
  ann.close()
  await until(() => first.registry.count() === 0)
})

t.test('while Redis is out, the clients of this instance are asked', async t => {
  const own = await startRedis(t)
  let set: ReturnType<typeof confirming> | undefined
  const { url, app } = await serve(t, { redis: own.url }, app => { set = confirming(app) })
  const ann = connectMessages(`${url}/q/lobby`, { WebSocket, token: 'ann' })
  t.teardown(() => ann.close())
  await until(() => ann.connection.groups.length === 1)
  ann.answer('confirm', () => true)
  own.stop()
  t.teardown(() => own.cont())
  t.match(await set?.ask('q:lobby', 'confirm', 'sure?' as never), {
    replies: [{ userId: 'ann', data: true }], missing: [], instancesMissing: 0, scope: 'local'
  })
  own.cont()
  await until(() => app.registry.health().status === 'up')
})

t.test('an answer that is too large is missing, and costs no other client its answer', async t => {
  let set: ReturnType<typeof confirming> | undefined
  const { url } = await serve(t, {}, app => { set = confirming(app) })
  const [ann, eve] = [
    connect(t, `${url}/q/lobby`, { protocols: ['bearer', 'ann'] }), connect(t, `${url}/q/lobby`, { protocols: ['bearer', 'eve'] })
  ]
  await Promise.all([ann.opened, eve.opened])
  const asking = set?.ask('q:lobby', 'confirm', 'sure?' as never)
  const [asked, askedToo] = [await ann.next(), await eve.next()].map(text => JSON.parse(String(text)) as { id: string })
  eve.send(JSON.stringify({ type: 'reply', id: askedToo?.id, data: 'x'.repeat(600_000) }))
  eve.send('{"type":"unknown","id":1}')
  await eve.next()
  ann.send(JSON.stringify({ type: 'reply', id: asked?.id, data: true }))
  t.match(await asking, { replies: [{ userId: 'ann', data: true }], missing: [/./] })
})

t.test('an error in a form that has no text is an answer, too, and costs nobody the connection', async t => {
  let set: ReturnType<typeof confirming> | undefined
  const { url } = await serve(t, {}, app => { set = confirming(app) })
  const ann = connect(t, `${url}/q/lobby`, { protocols: ['bearer', 'ann'] })
  await ann.opened
  const asking = set?.ask({ userId: 'ann' }, 'confirm', 'sure?' as never)
  const { id } = JSON.parse(String(await ann.next())) as { id: string }
  ann.send(JSON.stringify({ type: 'error', id, code: { toString: 0, valueOf: 0 }, message: [{ toString: 0 }] }))
  t.match(await asking, { replies: [{ userId: 'ann', error: { code: '', message: '' } }] })
  ann.send('{"type":"unknown","id":1}')
  t.match(JSON.parse(String(await ann.next())), { id: 1, code: 'WSG_MESSAGE_UNKNOWN' })
})

t.test('a client without a protocol answers by hand, and nobody answers for another one', async t => {
  let set: ReturnType<typeof confirming> | undefined
  const { url } = await serve(t, {}, app => { set = confirming(app) })
  const [ann, eve] = [
    connect(t, `${url}/q/lobby`, { protocols: ['bearer', 'ann'] }), connect(t, `${url}/q/lobby`, { protocols: ['bearer', 'eve'] })
  ]
  await Promise.all([ann.opened, eve.opened])
  const asking = set?.ask({ userId: 'ann' }, 'confirm', 'sure?' as never)
  const question = JSON.parse(String(await ann.next())) as { id: string }
  t.match(question, { type: 'confirm', data: 'sure?', id: /./ })
  eve.send(JSON.stringify({ type: 'reply', id: question.id, data: false }))
  eve.send('{"type":"unknown","id":1}')
  t.match(JSON.parse(String(await eve.next())), { id: 1, code: 'WSG_MESSAGE_UNKNOWN' }, 'her answer was read, and dropped')
  ann.send(JSON.stringify({ type: 'reply', id: question.id, data: true }))
  t.match(await asking, { replies: [{ userId: 'ann', data: true }] })
  ann.send(JSON.stringify({ type: 'reply', id: question.id, data: false }))
  ann.send('{"type":"reply"}')
  ann.send('{"type":"unknown","id":2}')
  t.match(JSON.parse(String(await ann.next())), { id: 2, code: 'WSG_MESSAGE_UNKNOWN' }, 'late answers change nothing')
})
