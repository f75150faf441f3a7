import t, { type Test } from 'tap'
import type { FastifyInstance } from 'fastify'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { WebSocket } from 'ws'
import { memoryCluster } from '../../plugin.ts'
import { ClientError } from '../../lib/client/index.ts'
import { connect, type MessageClient, type ContractIn } from '../../lib/client/messages.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { gate, serve } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'
import { line } from './instances.ts'
import { scriptedServer } from './scripted-server.ts'

noUnhandled(t)

/** What handlers did, on all instances of a test. */
interface Work { readonly runs: string[], before: Promise<void> }

function chatOf (app: FastifyInstance, work: Work) {
  return app.withTypeProvider<TypeBoxTypeProvider>().wsMessages({
    events: { said: Type.Object({ text: Type.String() }), frame: 'binary' },
    messages: {
      say: {
        data: Type.Object({ text: Type.String() }),
        reply: Type.Object({ length: Type.Integer() }),
        async handler ({ data, emit }) {
          work.runs.push(data.text)
          await work.before
          if (data.text === 'bad') throw Object.assign(new Error('no such word'), { statusCode: 422, code: 'BAD_WORD', details: [1] })
          await emit('said', { text: data.text })
          return { length: data.text.length }
        }
      },
      flip: {
        data: 'binary', reply: 'binary', async handler ({ data, emit }) { await emit('frame', data); return Buffer.from(data).reverse() }
      },
      note: { handler () { work.runs.push('note') } }
    }
  })
}
type Chat = ReturnType<typeof chatOf>

const routes = (work: Work) => (app: FastifyInstance): void => {
  app.wsRoom('/:room', { auth: { required: false }, mayJoin: () => true, messages: chatOf(app, work) })
}

function client (t: Test, url: string, options: Parameters<typeof connect>[1] = {}): MessageClient<ContractIn<Chat>> {
  const chat = connect<Chat>(url, { WebSocket, backoff: { minMs: 10, maxMs: 20 }, ...options })
  t.teardown(() => chat.close())
  return chat
}

const idle = (): Work => ({ runs: [], before: Promise.resolve() })

t.test('requests have replies, events have handlers, and errors their codes', async t => {
  const work = idle()
  const { url } = await serve(t, {}, routes(work))
  const [ann, bob] = [client(t, `${url}/lobby`), client(t, `${url}/lobby`)]
  await until(() => bob.connection.groups.length === 1)
  const heard: unknown[] = []
  const stop = bob.on('said', ({ text }, { group, position }) => heard.push([text, group, position?.length]))
  bob.group('lobby').on('said', ({ text }) => heard.push(`lobby ${text}`))
  bob.group('elsewhere').on('said', () => heard.push('never'))
  t.strictSame(await ann.request('say', { text: 'hi "there"' }), { length: 10 })
  await until(() => heard.length === 2)
  t.strictSame(heard.splice(0), [['hi "there"', 'lobby', 24], 'lobby hi "there"'])
  stop()
  await t.rejects(ann.request('say', { text: 'bad' }), { name: 'ClientError', code: 'BAD_WORD', message: 'no such word', details: [1] })
  await t.rejects(ann.request('say', {} as { text: string }), { code: 'WSG_MESSAGE_INVALID', details: [{ keyword: 'required' }] })
  await t.rejects(ann.request('unheard' as 'say', { text: '' }), { code: 'WSG_MESSAGE_UNKNOWN' })
  t.equal(await ann.request('note'), undefined)
  ann.emit('note')
  await until(() => work.runs.filter(run => run === 'note').length === 2)
  t.strictSame(heard, [])
})

t.test('bytes have names, too', async t => {
  const { url } = await serve(t, {}, routes(idle()))
  const chat = client(t, `${url}/lobby`)
  await until(() => chat.connection.groups.length === 1)
  const frames: Uint8Array[] = []
  chat.on('frame', bytes => frames.push(bytes))
  const bytes = new Uint8Array([0, 10, 200])
  t.strictSame([...await chat.request('flip', bytes)], [200, 10, 0])
  t.strictSame([...await chat.request('flip', bytes.buffer as unknown as Uint8Array)], [200, 10, 0])
  t.strictSame(frames.map(frame => [...frame]), [[0, 10, 200], [0, 10, 200]])
})

t.test('what is no event is left to the handlers of the connection, and a handler that throws costs the others nothing', async t => {
  const server = await scriptedServer(t)
  const chat = client(t, server.url)
  const [plain, heard, errors]: [unknown[], unknown[], unknown[]] = [[], [], []]
  chat.connection.on('message', ({ data }) => plain.push(data))
  chat.connection.on('error', error => errors.push(error))
  chat.on('said', () => { throw new Error('a bug') })
  chat.on('said', data => heard.push(data))
  const peer = await server.peer(0)
  t.match(peer.frames[0], { type: 'hello', json: true })
  const json = (data: unknown): object => ({ type: 'message', json: true, data })
  peer.send(
    { type: 'message', data: 'text' }, { type: 'message', data: 'AAE=', binary: true },
    { type: 'message', data: btoa('{no\nbytes'), binary: true },
    ...[[1], { type: 7 }, null, { type: 'other' }, { type: 'said', data: { text: 'x' } }].map(data => json(data) as { type: string })
  )
  await until(() => heard.length === 1)
  t.strictSame(heard, [{ text: 'x' }])
  t.equal(plain.length, 8)
  t.match(errors, [{ code: 'HANDLER_FAILED', cause: { message: 'a bug' } }])
})

interface Asking { messages: Record<never, never>, events: Record<never, never>, questions: { ready: { data: string, reply: boolean } } }

t.test('a question is answered also where its handler throws nothing at all', async t => {
  const server = await scriptedServer(t)
  const chat = connect<Asking>(server.url, { WebSocket })
  t.teardown(() => chat.close())
  const fail = (thrown: unknown): never => { throw thrown }
  chat.answer('ready', () => fail(undefined))
  const peer = await server.peer(0)
  peer.send({ type: 'message', json: true, data: { type: 'ready', id: 'q1', data: 'now?' } })
  t.match(await peer.got('message'), { json: true, data: { type: 'error', id: 'q1', code: 'HANDLER_FAILED' } })
})

t.test('the history of a group comes as events, in pages', async t => {
  const work = idle()
  const { url, registry } = await serve(t, {}, app => {
    app.wsRoom('/:room', { auth: { required: false }, history: 1, messages: chatOf(app, work) })
  })
  const chat = client(t, `${url}/lobby`)
  for (const text of ['one', 'two']) await chat.request('say', { text })
  await registry.broadcastToGroup('lobby', 'no event')
  const { events: [flipped, ...none], more } = await chat.history('lobby', { limit: 2, reverse: true })
  t.match(flipped, { name: 'said', data: { text: 'two' }, position: /^[\w-]{24}$/, at: Number })
  t.strictSame(none, [])
  t.equal(more, true)
  t.match(await chat.history('lobby', { before: flipped?.position }), { events: [{ data: { text: 'one' } }], more: false })
})

t.test('a request may wait for longer than timers last', async t => {
  const server = await scriptedServer(t)
  const chat = client(t, server.url)
  for (const timeoutMs of [Infinity, 2 ** 40]) t.equal(await chat.request('note', undefined, { timeoutMs }), undefined)
})

t.test('a request waits for a connection, and no longer than its deadline', async t => {
  const server = await scriptedServer(t, { ack: false })
  const chat = client(t, server.url)
  await t.rejects(chat.request('note', undefined, { timeoutMs: 50 }), { code: 'TIMEOUT', name: 'ClientError' })
  await until(() => chat.connection.state === 'open')
  const waiting = chat.request('note')
  chat.close()
  await t.rejects(waiting, { code: 'UNKNOWN_OUTCOME' })
  await t.rejects(chat.request('note'), { code: 'CLOSED' })
  t.ok(await chat.request('note').catch((error: unknown) => error) instanceof ClientError)
})

for (const kind of ['memory', 'redis'] as const) {
  t.test(`an idempotent request is sent again after a break, and handled once, on any instance (${kind})`, async t => {
    const opened = gate()
    const work: Work = { runs: [], before: opened.opened }
    const redis = kind === 'redis' ? await startRedis(t) : undefined
    const cluster = memoryCluster()
    const backplane = (): object => redis === undefined ? { backplane: cluster.backplane() } : { redis: redis.url }
    const [a, b] = [await serve(t, backplane(), routes(work)), await serve(t, backplane(), routes(work))]
    const wire = line(a.port)
    const chat = client(t, `${a.url}/lobby`, { WebSocket: wire.WebSocket })
    await until(() => chat.connection.state === 'open')
    const [once, atMostOnce] = [chat.request('say', { text: 'once' }, { idempotent: true }), chat.request('note')]
    await until(() => work.runs.length === 1)
    wire.to(b.port)
    wire.cut()
    await t.rejects(atMostOnce, { code: 'UNKNOWN_OUTCOME' })
    await until(() => chat.connection.state === 'open' && wire.attempts > 1)
    opened.open()
    t.strictSame(await once, { length: 4 }, 'the answer is that of the first instance')
    t.equal(work.runs.filter(run => run === 'once').length, 1)
    const { messages } = await b.registry.history('lobby')
    t.equal(messages.length, 1)
  })
}

t.test('the answer to a key is found where its log has room for nothing else', async t => {
  const work = idle()
  const { url } = await serve(t, { log: { maxMessages: 1, ttlMs: 60_000 } }, routes(work))
  for (let n = 0; n < 2; n++) {
    const { connection } = client(t, `${url}/lobby`, { token: 'ann' })
    const { data } = await connection.send({ json: { type: 'say', key: 'k', data: { text: 'once' } } })
    t.strictSame(data, { length: 4 })
    connection.close()
  }
  t.strictSame(work.runs, ['once'])
})

t.test('a key belongs to its user: the same key of another one is another key, and errors are kept, too', async t => {
  const work = idle()
  const { url } = await serve(t, {}, routes(work))
  const answers = []
  for (const token of ['ann', 'bob', 'ann']) {
    for (const text of ['good', 'bad']) {
      const { connection } = client(t, `${url}/lobby`, { token })
      answers.push(await connection.send(
        { json: { type: 'say', key: text, data: { text } } }
      ).then(({ data }) => data, ({ code }: ClientError) => code))
      connection.close()
    }
  }
  t.strictSame(answers, [{ length: 4 }, 'BAD_WORD', { length: 4 }, 'BAD_WORD', { length: 4 }, 'BAD_WORD'])
  t.equal(work.runs.length, 4)
  const { connection } = client(t, `${url}/lobby`)
  await t.rejects(connection.send({ json: { type: 'note', key: '' } }), { code: 'WSG_MESSAGE_INVALID' })
  await t.rejects(connection.send({ json: { type: 'note', key: 'x'.repeat(65) } }), { code: 'WSG_MESSAGE_INVALID' })
  const many = await Promise.allSettled(
    Array.from({ length: 120 }, async (_, at) => await connection.send({ json: { type: 'note', key: `k${at}` } }))
  )
  t.match(many.filter(({ status }) => status === 'rejected').at(-1), { reason: { code: 'WSG_RATE_LIMITED' } })
})
