import t from 'tap'
import type { FastifyInstance } from 'fastify'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { connect, type TestClient } from '../../helpers/client.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { startRedis } from '../../helpers/redis.ts'
import { gate, serve } from '../../helpers/service.ts'
import { startProxy } from '../../helpers/tcp-proxy.ts'
import { until } from '../../helpers/until.ts'
import { openFramed } from '../framed/framed-client.ts'

noUnhandled(t)

const json = async (client: TestClient): Promise<unknown> => JSON.parse(String(await client.next()))

function chatRoom (app: FastifyInstance): void {
  const chat = app.withTypeProvider<TypeBoxTypeProvider>().wsMessages({
    events: { said: Type.Object({ text: Type.String(), from: Type.Optional(Type.String()) }) },
    messages: {
      say: {
        data: Type.Object({ text: Type.String({ maxLength: 20 }) }),
        reply: Type.Object({ position: Type.String() }),
        async handler ({ data, userId, emit }) {
          const { position = '' } = await emit('said', { text: data.text, ...(userId === undefined ? {} : { from: userId }) })
          return { position, secret: 'not in the schema' }
        }
      },
      fail: { handler () { throw new Error('a bug with a secret') } },
      refuse: { handler () { throw Object.assign(new Error('too late'), { statusCode: 409, code: 'TOO_LATE', details: { at: 1 } }) } },
      quiet: { handler: () => 'what no reply declares' },
      wrong: { reply: Type.Object({ n: Type.Integer() }), handler: () => ({ n: Number.NaN }) }
    }
  })
  app.wsRoom('/:room', { auth: { required: false }, messages: chat })
}

t.test('a client without a protocol sends messages by name, hears events, and gets replies', async t => {
  const { url } = await serve(t, {}, chatRoom)
  const [ann, bob] = [connect(t, `${url}/lobby`, { protocols: ['bearer', 'ann'] }), connect(t, `${url}/lobby`)]
  await Promise.all([ann.opened, bob.opened])
  bob.send('{"type":"say","data":{"text":"hi"},"id":"a-1"}')
  // Its own event first: it was sent before the handler was done.
  t.strictSame(await json(bob), { type: 'said', data: { text: 'hi' } })
  const reply = await json(bob) as { data: { position: string } }
  t.match(reply, { type: 'reply', id: 'a-1', data: { position: /^[\w-]{24}$/ } })
  t.strictSame(Object.keys(reply.data), ['position'], 'nothing but what the schema of the reply has')
  t.strictSame(await json(ann), { type: 'said', data: { text: 'hi' } })
  ann.send('{"type":"say","data":{"text":"hello"}}')
  t.strictSame(await json(bob), { type: 'said', data: { text: 'hello', from: 'ann' } })
  ann.send('{"type":"quiet","id":7}')
  t.strictSame(await json(ann), { type: 'said', data: { text: 'hello', from: 'ann' } })
  t.strictSame(await json(ann), { type: 'reply', id: 7 }, 'without an id there was no reply; without a schema a reply has no data')
})

t.test('whatever a client says by name is answered, and its connection stays', async t => {
  const { url, registry, logs } = await serve(t, {}, chatRoom)
  const client = connect(t, `${url}/lobby`)
  await client.opened
  const answers: Array<readonly [string, object]> = [
    ['no json', { type: 'error', code: 'WSG_MESSAGE_INVALID' }],
    ['[1]', { type: 'error', code: 'WSG_MESSAGE_INVALID' }],
    ['null', { type: 'error', code: 'WSG_MESSAGE_INVALID' }],
    ['{"type":7,"id":1}', { type: 'error', id: 1, code: 'WSG_MESSAGE_INVALID' }],
    ['{"type":"say","id":{}}', { type: 'error', code: 'WSG_MESSAGE_INVALID' }],
    [`{"type":"say","id":"${'x'.repeat(65)}"}`, { type: 'error', code: 'WSG_MESSAGE_INVALID' }],
    ['{"type":"unheard","id":2}', { type: 'error', id: 2, code: 'WSG_MESSAGE_UNKNOWN', message: /'unheard'/ }],
    ['{"type":"__proto__","id":2}', { type: 'error', id: 2, code: 'WSG_MESSAGE_UNKNOWN' }],
    ['{"type":"constructor","id":2}', { type: 'error', id: 2, code: 'WSG_MESSAGE_UNKNOWN' }],
    ['{"type":"say","id":3}', { type: 'error', id: 3, code: 'WSG_MESSAGE_INVALID', details: [{ message: 'must be object' }] }],
    ['{"type":"say","id":4,"data":{}}', {
      type: 'error', id: 4, code: 'WSG_MESSAGE_INVALID', message: /say: data must have required property 'text'/
    }],
    [
      `{"type":"say","id":5,"data":{"text":"${'x'.repeat(21)}"}}`,
      { type: 'error', id: 5, message: /data\/text must NOT have more/, details: [{ instancePath: '/text', keyword: 'maxLength' }] }
    ],
    ['{"type":"fail","id":6}', { type: 'error', id: 6, code: 'WSG_HANDLER_FAILED', message: 'the server could not handle the request' }],
    ['{"type":"refuse","id":7}', { type: 'error', id: 7, code: 'TOO_LATE', message: 'too late', details: { at: 1 } }],
    ['{"type":"wrong","id":8}', { type: 'error', id: 8, code: 'WSG_HANDLER_FAILED' }],
    [
      '{"type":"say","id":10,"data":{"text":"x","more":[{"__proto__":{"admin":true}}]}}',
      { type: 'error', id: 10, code: 'WSG_MESSAGE_INVALID', message: /__proto__/ }
    ],
    ['{"type":"say","data":{}}', { type: 'error', code: 'WSG_MESSAGE_INVALID' }]
  ]
  for (const [message, answer] of answers) {
    client.send(message)
    const got = await json(client)
    t.match(got, answer, message)
    t.equal('id' in (got as object), 'id' in answer)
  }
  client.send(Buffer.from('bytes'))
  t.match(await json(client), { type: 'error', code: 'WSG_MESSAGE_INVALID' })
  client.send(Buffer.from('{"type":"say","id":9}\n{"text":"hi"}'))
  t.match(await json(client), { type: 'error', id: 9, code: 'WSG_MESSAGE_INVALID', message: /takes JSON/ })
  t.equal(client.ws.readyState, client.ws.OPEN)
  t.equal(registry.stats().messagesFailed, answers.length + 2)
  t.equal(logs.filter(({ level }) => level >= 50).length, 2, 'the bugs are in the log, the faults of the client are not')
})

t.test('a framed client sends the same inside its frames, as text or as JSON, and gets the reply with its ack', async t => {
  const { url } = await serve(t, {}, chatRoom)
  const [old, fresh] = [await openFramed(t, `${url}/lobby`), await openFramed(t, `${url}/lobby`, { hello: { json: true } })]
  await Promise.all([old.nextOf('joined'), fresh.nextOf('joined')])
  fresh.send({ type: 'message', id: 1, json: true, data: { type: 'say', data: { text: 'hi "there"' } } })
  const event = await fresh.nextOf('message')
  t.match(event, { group: 'lobby', json: true, data: { type: 'said', data: { text: 'hi "there"' } } })
  t.strictSame(await fresh.next(), { type: 'ack', id: 1, data: { position: event.position } })
  t.match(await old.nextOf('message'), { data: '{"type":"said","data":{"text":"hi \\"there\\""}}', json: undefined })

  old.send({ type: 'message', id: 1, data: '{"type":"say","data":{"text":"as text"},"id":99}' })
  t.match(await old.nextOf('ack'), { id: 1, data: { position: /./ } }, 'the id of the frame counts')
  fresh.send({ type: 'message', id: 2, json: true, data: { type: 'say', data: { text: 5 } } })
  t.match(await fresh.nextOf('ack'), { id: 2 }, 'types are coerced as on any route')
  fresh.send({ type: 'message', id: 3, json: true, data: { type: 'nothing' } })
  t.match(await fresh.nextOf('error'), { id: 3, code: 'WSG_MESSAGE_UNKNOWN' })
  fresh.send({ type: 'message', id: 4, json: true, data: 'a string' })
  t.match(await fresh.nextOf('error'), { id: 4, code: 'WSG_MESSAGE_INVALID' })
  const poisoned = JSON.parse('{"type":"say","data":{"text":"x","constructor":{"prototype":{}}}}') as object
  fresh.send({ type: 'message', id: 4, json: true, data: poisoned })
  t.match(await fresh.nextOf('error'), { id: 4, code: 'WSG_MESSAGE_INVALID', message: /constructor/ })
  fresh.send({ type: 'message', json: true, data: { type: 'nothing' } })
  fresh.send({ type: 'message', id: 5, json: true, data: { type: 'fail' } })
  t.match(await fresh.next(), { type: 'error', id: 5, code: 'WSG_HANDLER_FAILED' }, 'without an id there is no answer')
  fresh.send({ type: 'history', group: 'lobby', id: 6 })
  t.match(await fresh.next(), { type: 'error', code: 'WSG_FORBIDDEN' })
})

t.test('on a route without messages, JSON in a frame is the text that it has', async t => {
  const { url } = await serve(t, {}, app => app.wsRoom('/:room', { auth: false, history: 10 }))
  const [raw, framed] = [connect(t, `${url}/lobby`), await openFramed(t, `${url}/lobby`, { hello: { json: true } })]
  await Promise.all([raw.opened, framed.nextOf('joined')])
  framed.send({ type: 'message', id: 1, json: true, data: { any: ['thing', 1] } })
  t.equal(await raw.next(), '{"any":["thing",1]}')
  t.match(await framed.nextOf('message'), { data: '{"any":["thing",1]}' })
  const texts = ['{"type":"x","data":1}', '{"type":"broken', '{"type":"x"} and more', '{"type":"']
  for (const text of texts) raw.send(text)
  const got = []
  for (const text of texts) got.push([text, (await framed.nextOf('message')).data])
  t.strictSame(got, texts.map((text, at) => [text, at === 0 ? { type: 'x', data: 1 } : text]), 'only what is JSON is sent as JSON')
  framed.send({ type: 'history', group: 'lobby', id: 2 })
  const { messages } = await framed.nextOf('history') as unknown as { messages: Array<{ data: unknown }> }
  t.strictSame(messages.slice(1).map(({ data }) => data), got.map(([, data]) => data))
})

t.test('bytes travel by name, in all directions', async t => {
  const { url } = await serve(t, {}, app => {
    const files = app.wsMessages({
      events: { frame: 'binary' },
      messages: {
        upload: {
          data: 'binary', reply: 'binary', async handler ({ data, emit }) { await emit('frame', data); return Buffer.from(data).reverse() }
        }
      }
    })
    app.wsRoom('/:room', { auth: false, messages: files })
  })
  const [raw, framed] = [connect(t, `${url}/lobby`), await openFramed(t, `${url}/lobby`, { hello: { json: true } })]
  await Promise.all([raw.opened, framed.nextOf('joined')])
  const header = (fields: object): Buffer => Buffer.from(`${JSON.stringify(fields)}\n`)
  const bytes = Buffer.from([1, 10, 255, 0])
  raw.send(Buffer.concat([header({ type: 'upload', id: 1 }), bytes]))
  const event = Buffer.concat([header({ type: 'frame' }), bytes])
  t.strictSame(await raw.next(), event)
  t.strictSame(await raw.next(), Buffer.concat([header({ type: 'reply', id: 1 }), Buffer.from([0, 255, 10, 1])]))
  t.match(await framed.nextOf('message'), { binary: true, data: event.toString('base64') })
  framed.send({ type: 'message', id: 1, binary: true, data: Buffer.concat([header({ type: 'upload' }), bytes]).toString('base64') })
  t.strictSame(await framed.nextOf('ack'), { type: 'ack', id: 1, data: Buffer.from([0, 255, 10, 1]).toString('base64'), binary: true })
  raw.send('{"type":"upload","id":2,"data":[1,2]}')
  await raw.next()
  t.match(await json(raw), { type: 'error', id: 2, code: 'WSG_MESSAGE_INVALID', message: /takes bytes/ })
})

t.test('a client that left its room may say nothing there any more', async t => {
  const { url, registry } = await serve(t, {}, chatRoom)
  const [raw, framed] = [connect(t, `${url}/lobby`), await openFramed(t, `${url}/lobby`)]
  await Promise.all([raw.opened, framed.nextOf('joined')])
  for (const connection of registry.all()) await registry.leave(connection, 'lobby')
  raw.send('{"type":"say","data":{"text":"hi"},"id":1}')
  t.match(await json(raw), { type: 'error', id: 1, code: 'WSG_FORBIDDEN' })
  framed.send({ type: 'message', id: 1, data: '{"type":"say","data":{"text":"hi"}}' })
  t.match(await framed.nextOf('error'), { id: 1, code: 'WSG_FORBIDDEN' })
})

t.test('messages are handled one at a time, in order, also beside onConnect', async t => {
  const opened = gate()
  const seen: unknown[] = []
  const { url } = await serve(t, {}, app => {
    const set = app.wsMessages({
      messages: {
        slow: { async handler ({ data }) { await new Promise(resolve => setImmediate(resolve)); seen.push(data) } },
        fast: { reply: {}, handler ({ data, request }) { seen.push(data); return request.url } }
      }
    })
    app.get('/', { websocket: true }, app.wsHandler({ messages: set, async onConnect () { await opened.opened; seen.push('connected') } }))
  })
  const client = connect(t, `${url}/?a=1`)
  await client.opened
  client.send('{"type":"slow","data":1}')
  client.send('{"type":"fast","data":2,"id":1}')
  opened.open()
  t.strictSame(await json(client), { type: 'reply', id: 1, data: '/?a=1' })
  t.strictSame(seen, ['connected', 1, 2])
})

t.test('in a handler of any route, the group is the only one of the connection', async t => {
  const { url } = await serve(t, {}, app => {
    const set = app.wsMessages({ messages: { where: { reply: { type: 'string' }, handler: ({ group }) => group } } })
    app.get('/:groups', { websocket: true }, app.wsHandler({
      messages: set,
      async onConnect (connection) {
        for (const group of String(connection.params.groups).split('-')) if (group !== 'none') await app.registry.join(connection, group)
      }
    }))
  })
  const answers = []
  for (const groups of ['one', 'none', 'one-two']) {
    const client = connect(t, `${url}/${groups}`)
    await client.opened
    client.send('{"type":"where","id":1}')
    answers.push(await json(client))
  }
  t.match(answers, [{ data: 'one' }, { code: 'WSG_FORBIDDEN' }, { code: 'WSG_FORBIDDEN' }])
})

t.test('with auth, clients without an identity may send nothing, and a user is told on all devices', async t => {
  const { url } = await serve(t, {}, app => {
    const messages = app.withTypeProvider<TypeBoxTypeProvider>().wsMessages({
      auth: true,
      events: { whispered: Type.Object({ from: Type.String() }) },
      messages: {
        whisper: {
          data: Type.String(),
          async handler ({ data, connection, userId: from = '', emitToUser }) {
            await emitToUser(data, 'whispered', { from }, { except: connection })
          }
        }
      }
    })
    app.wsRoom('/:room', { auth: { required: false }, messages })
  })
  const [nobody, ann] = [connect(t, `${url}/lobby`), connect(t, `${url}/lobby`, { protocols: ['bearer', 'ann'] })]
  const bobs = ['lobby', 'den'].map(room => connect(t, `${url}/${room}`, { protocols: ['bearer', 'bob'] }))
  await Promise.all([nobody, ann, ...bobs].map(async ({ opened }) => await opened))
  nobody.send('{"type":"whisper","data":"bob","id":1}')
  t.match(await json(nobody), { type: 'error', id: 1, code: 'WSG_FORBIDDEN' })
  ann.send('{"type":"whisper","data":"bob","id":1}')
  t.strictSame(await json(ann), { type: 'reply', id: 1 })
  for (const bob of bobs) t.strictSame(await json(bob), { type: 'whispered', data: { from: 'ann' } })
  bobs[0]?.send('{"type":"whisper","data":"bob","id":1}')
  t.strictSame(await Promise.all(bobs.map(json)), [{ type: 'reply', id: 1 }, { type: 'whispered', data: { from: 'bob' } }], 'but one')
})

t.test('an answer that cannot be stored is given to who waits for it', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  let handled = 0
  const { url, registry, logs } = await serve(t, { redis: proxy.url }, app => {
    const messages = app.wsMessages({
      messages: {
        outage: {
          reply: Type.Integer(),
          async handler () {
            await proxy.refuse(true)
            proxy.cut()
            return ++handled
          }
        },
        // More than Redis takes, so this is no outage.
        large: { reply: Type.String(), handler: () => 'x'.repeat(2_000_000) }
      }
    })
    app.wsRoom('/:room', { auth: { required: false }, messages })
  })
  await redis.admin.config('SET', 'proto-max-bulk-len', '1mb')
  const client = connect(t, `${url}/lobby`)
  await client.opened
  client.send('{"type":"large","id":1,"key":"a"}')
  t.match(await json(client), { type: 'reply', id: 1, data: /^x{2000000}$/ })
  t.match(logs.filter(({ event }) => event === 'answer_not_stored'), [{ err: { code: 'WSG_MESSAGE_TOO_LARGE' } }])
  client.send('{"type":"outage","id":2,"key":"b"}')
  t.strictSame(await json(client), { type: 'reply', id: 2, data: 1 })
  client.send('{"type":"outage","id":3,"key":"c"}')
  t.match(await json(client), { type: 'error', id: 3, code: 'WSG_BACKPLANE_UNAVAILABLE' }, 'a key that cannot be claimed is not handled')
  t.equal(handled, 1)
  await proxy.refuse(false)
  await until(() => registry.health().status === 'up')
})
