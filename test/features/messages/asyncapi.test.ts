import t from 'tap'
import swagger from '@fastify/swagger'
import websocket from '@fastify/websocket'
import { spawn } from 'node:child_process'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { Type } from 'typebox'
import { z } from 'zod'
import type { FastifyInstance } from 'fastify'
import websocketGroups, { type AnyMessages } from '../../../plugin.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { bareService, serve, service, userOf } from '../../helpers/service.ts'

noUnhandled(t)

interface Finding { readonly severity: number, readonly message: string, readonly path: ReadonlyArray<string | number> }
// By `require`, as its types want those of a browser.
const { Parser } = createRequire(import.meta.url)('@asyncapi/parser') as {
  readonly Parser: new () => { parse (document: string): Promise<{ readonly document?: object, readonly diagnostics: readonly Finding[] }> }
}
const parser = new Parser()

/** What the official parser finds wrong in the document, as path and message; it also advises, which is left out. */
async function faults (text: string): Promise<string[]> {
  const { document, diagnostics } = await parser.parse(text)
  const found = diagnostics.filter(({ severity }) => severity <= 1).map(({ path, message }) => `${path.join('/')}: ${message}`)
  if (document === undefined && found.length === 0) throw new Error('the parser says nothing and has no document')
  return found
}

function routes (app: FastifyInstance): void {
  app.addSchema({ $id: 'point', type: 'object', properties: { x: { type: 'integer' } } })
  const chat = app.wsMessages({
    messages: {
      say: {
        description: 'Says something to everybody in the room.',
        data: Type.Object({ text: Type.String({ maxLength: 20 }) }),
        reply: Type.Object({ position: Type.String() }),
        async handler ({ data, emit }) {
          const { text } = data as { text: string }
          const { position = '' } = await emit('said', { text })
          return { position }
        }
      },
      move: { data: { $ref: 'point#' }, handler () {} },
      upload: { data: 'binary', reply: 'binary', handler: ({ data }) => data },
      zod: { data: z.object({ n: z.string().transform(Number) }), reply: z.object({ n: z.number() }), handler: ({ data }) => data },
      anything: { handler () {} }
    },
    events: { said: Type.Object({ text: Type.String() }), frame: 'binary' },
    questions: { ready: { data: Type.String(), reply: Type.Object({ yes: Type.Boolean() }) }, ping: {} }
  })
  app.wsRoom('/ws/chat/:room', {
    group: ({ room }) => `chat:${room}`,
    messages: chat,
    auth: { authenticate: async token => userOf(token), cookie: 'sid', query: 'token' },
    schema: {
      summary: 'A chat',
      description: 'Rooms to talk in.',
      params: { type: 'object', properties: { room: { type: 'string', description: 'Its name', enum: ['a', 'b'] } } },
      querystring: { type: 'object', properties: { since: { type: 'string' } } }
    } as object
  })
  app.wsRoom('/ws/open/:room(^\\w+$)', { auth: false, group: ({ room }) => `open:${room}` })
  void app.register(async scope => {
    scope.get('/:id/*', {
      websocket: true, preHandler: scope.wsAuth({ authenticate: async token => userOf(token) })
    }, scope.wsHandler({ messages: chat }))
    scope.get('/hidden', { websocket: true, schema: { hide: true } as object }, scope.wsHandler({ onMessage () {} }))
    scope.get('/other', { websocket: true }, () => {})
    scope.get('/plain', async () => 'http')
  }, { prefix: '/api' })
}

t.test('the document is valid, and tells all routes, messages, events, replies and ways in', async t => {
  const { app } = await service(t)
  routes(app)
  await app.ready()
  const document = app.asyncapi(
    { info: { title: 'Chat', version: '2.0.0' }, servers: { here: { host: 'localhost:3000', protocol: 'ws' } } }
  )
  t.strictSame(await faults(JSON.stringify(document)), [])
  const send = { action: 'send', channel: { $ref: '#/channels/ws_chat_room' } }
  for (const [wrong, found] of [
    [{ ...send, action: 'shout' }, /^operations\/x\/action/], [{ ...send, channel: { $ref: '#/channels/none' } }, /^operations\/x\/channel/]
  ] as const) {
    t.match(await faults(JSON.stringify({ ...document, operations: { x: wrong } })), [found], 'it finds what it looks for')
  }
  t.match(document, { asyncapi: '3.0.0', info: { title: 'Chat', version: '2.0.0' }, servers: { here: { protocol: 'ws' } } })
  t.strictSame(Object.entries(document.channels).map(([name, { address }]) => [name, address]), [
    ['ws_chat_room', '/ws/chat/{room}'], ['ws_open_room', '/ws/open/{room}'], ['api_id', '/api/{id}/{path}']
  ])
  t.match(document.channels.ws_chat_room, {
    summary: 'A chat',
    description: 'Rooms to talk in.',
    parameters: { room: { description: 'Its name', enum: ['a', 'b'] } },
    bindings: { ws: { method: 'GET', query: { properties: { since: { type: 'string' } } } } }
  })
  t.match(document.operations['ws_chat_room.receive.say'], {
    action: 'receive',
    description: 'Says something to everybody in the room.',
    messages: [{ $ref: '#/channels/ws_chat_room/messages/say' }],
    security: [{ $ref: '#/components/securitySchemes/bearer' }, { $ref: '#/components/securitySchemes/cookie_sid' }, {
      $ref: '#/components/securitySchemes/query_token'
    }],
    reply: { messages: [{ $ref: '#/channels/ws_chat_room/messages/say.reply' }, { $ref: '#/channels/ws_chat_room/messages/error' }] }
  })
  t.match(document.operations['ws_chat_room.send.said'], { action: 'send', reply: undefined })
  t.match(document.operations['ws_chat_room.send.ready'], {
    action: 'send',
    messages: [{ $ref: '#/channels/ws_chat_room/messages/ready' }],
    reply: { messages: [{ $ref: '#/channels/ws_chat_room/messages/ready.reply' }, { $ref: '#/channels/ws_chat_room/messages/error' }] }
  })
  t.match(document.components.messages['ws_chat_room.ready'], { payload: { properties: { id: {}, data: { type: 'string' } } } })
  t.match(document.components.messages['ws_chat_room.ready.reply'], { payload: { properties: { data: { properties: { yes: {} } } } } })
  t.match(document.operations['api_id.receive.say']?.security, [{ $ref: '#/components/securitySchemes/bearer' }])
  t.equal(document.operations['ws_open_room.receive.message']?.security, undefined)
  const { messages, schemas } = document.components
  t.match(messages['ws_chat_room.say'], {
    payload: { required: ['type', 'data'], properties: { type: { const: 'say' }, data: { properties: { text: { maxLength: 20 } } } } }
  })
  t.match(messages['ws_chat_room.move'], { payload: { properties: { data: { $ref: '#/components/schemas/point' } } } })
  t.match(schemas.point, { properties: { x: { type: 'integer' } } })
  t.match(messages['ws_chat_room.upload'], { contentType: 'application/octet-stream' })
  t.match(
    messages['ws_chat_room.zod'], { payload: { properties: { data: { properties: { n: { type: 'string' } } } } } }, 'what clients send'
  )
  t.match(messages['ws_chat_room.zod.reply'], { payload: { properties: { data: { properties: { n: { type: 'number' } } } } } })
})

t.test('an application without routes for sockets has a valid document, too, and it stands beside that of swagger', async t => {
  const { app } = await service(t)
  await app.register(swagger)
  app.get('/asyncapi.json', { schema: { hide: true } as object }, () => app.asyncapi())
  app.get('/users', async () => [])
  await app.ready()
  const { statusCode, body, headers } = await app.inject('/asyncapi.json')
  t.match([statusCode, headers['content-type']], [200, /application\/json/])
  t.strictSame(await faults(body), [])
  t.strictSame(Object.keys(app.swagger().paths ?? {}), ['/users'])
})

/** What a reference in the document leads to. */
function follow (document: object, { $ref }: { readonly $ref?: unknown }): Record<string, unknown> {
  const found = String($ref).slice(2).split('/').reduce<unknown>(
    (at, step) => (at as Record<string, unknown> | undefined)?.[step.replaceAll('~1', '/').replaceAll('~0', '~')], document
  )
  return found as Record<string, unknown>
}

t.test('messages and schemas of any name and kind are described as what they are', async t => {
  const { app } = await service(t)
  app.addSchema({
    $id: 'https://example.com/tree.json',
    type: 'object',
    properties: { name: { $ref: '#/definitions/name' }, children: { type: 'array', items: { $ref: '#' } } },
    definitions: { name: { type: 'string', maxLength: 7 } }
  })
  const messages = app.wsMessages({
    messages: {
      typing: { data: Type.Object({ at: Type.Integer() }), handler () {} },
      'chat/say:now': {
        data: {
          type: 'object',
          properties: { word: { $ref: '#/definitions/word' }, more: { $ref: 'inner' } },
          definitions: { word: { type: 'string', maxLength: 9 }, 'a/b': { $id: 'inner', type: 'boolean' } }
        },
        reply: {},
        handler () {}
      },
      'chat/say:now.reply': { handler () {} },
      tree: { data: { $ref: 'https://example.com/tree.json#' }, handler () {} },
      when: { reply: z.object({ at: z.date(), text: z.string() }), handler: () => ({ at: new Date(), text: '' }) }
    },
    events: { typing: Type.Object({ by: Type.String() }) }
  })
  const schema = { summary: 'of both' } as object
  for (const name of ['one', 'other']) {
    app.wsRoom(`/${name}/:room`, { auth: false, group: ({ room }) => `${name}:${room}`, messages, schema })
  }
  app.wsRoom('/a::b/:room', { auth: false, group: ({ room }) => `b:${room}` })
  await app.ready()
  const document = app.asyncapi()
  t.strictSame(await faults(JSON.stringify(document)), [])
  t.strictSame(Object.values(document.channels).map(({ address, summary }) => [address, summary]), [
    ['/one/{room}', 'of both'], ['/other/{room}', 'of both'], ['/a:b/{room}', undefined]
  ])
  type Ref = Readonly<Record<string, unknown>>
  const dataOf = (operation: string): Ref => {
    const [message = {}] = document.operations[operation]?.messages as readonly Ref[]
    const { payload } = follow(document, follow(document, message)) as { readonly payload: { readonly properties: { readonly data: Ref } } }
    return payload.properties.data
  }
  t.match(dataOf('one_room.receive.typing'), { properties: { at: { type: 'integer' } } })
  t.match(dataOf('one_room.send.typing'), { properties: { by: { type: 'string' } } }, 'an event may be called as a message is')
  const { properties: { word, more } } = dataOf('other_room.receive.chat_say_now') as { readonly properties: { word: Ref, more: Ref } }
  t.match(follow(document, word), { maxLength: 9 })
  t.match(follow(document, more), { type: 'boolean' })
  const tree = follow(document, dataOf('one_room.receive.tree')) as { readonly properties: { name: Ref, children: { items: Ref } } }
  t.match(follow(document, tree.properties.name), { maxLength: 7 })
  t.equal(follow(document, tree.properties.children.items), tree)
  t.match(document.components.messages['one_room.when.reply'], {
    payload: { properties: { data: { properties: { at: {}, text: { type: 'string' } } } } }
  }, 'what has no form in JSON Schema is anything, and the rest is told')
})

t.test('a token that a hook of the scope asks for is told, and so are the schemas of the scope of the messages', async t => {
  const { app } = await service(t, { authenticate: async token => userOf(token) })
  let messages: AnyMessages | undefined
  await app.register(async scope => {
    scope.addSchema({ $id: 'inner', type: 'string' })
    messages = scope.wsMessages({ messages: { say: { data: { $ref: 'inner#' }, handler () {} } } }) as AnyMessages
  })
  await app.register(async scope => {
    scope.addHook('preHandler', scope.wsAuth())
    scope.get('/kept', { websocket: true }, scope.wsHandler({ messages: messages as AnyMessages }))
  })
  app.wsRoom('/open/:room', { auth: false })
  await app.ready()
  const document = app.asyncapi()
  t.strictSame(await faults(JSON.stringify(document)), [])
  t.match(document.operations['kept.receive.say']?.security, [{ $ref: '#/components/securitySchemes/bearer' }])
  t.equal(document.operations['open_room.receive.message']?.security, undefined)
  t.match(document.components.schemas.inner, { type: 'string' })
})

t.test('scopes may give one $id to different schemas, and what they inherit is told once', async t => {
  const { app } = await service(t)
  app.addSchema({ $id: 'common', type: 'string' })
  for (const [name, type] of [['a', 'string'], ['b', 'integer']] as const) {
    await app.register(async scope => {
      scope.addSchema({ $id: 'item', type })
      const data = { type: 'object', properties: { own: { $ref: 'item#' }, common: { $ref: 'common#' } } }
      const messages = scope.wsMessages({ messages: { say: { data, handler () {} } } })
      scope.wsRoom(`/${name}/:room`, { auth: false, group: ({ room }) => `${name}:${room ?? ''}`, messages })
    })
  }
  await app.ready()
  const document = app.asyncapi()
  t.strictSame(await faults(JSON.stringify(document)), [])
  t.strictSame(Object.keys(document.components.schemas).sort(), ['common', 'item', 'item_2'])
  type Ref = Readonly<Record<string, unknown>>
  type Say = { readonly payload: { readonly properties: { readonly data: { readonly properties: { own: Ref, common: Ref } } } } }
  for (const [name, type] of [['a', 'string'], ['b', 'integer']] as const) {
    const { own, common } = (document.components.messages[`${name}_room.say`] as unknown as Say).payload.properties.data.properties
    t.match([follow(document, own), follow(document, common)], [{ type }, { type: 'string' }], name)
  }
})

t.test('routes are described also where the application registered @fastify/websocket itself', async t => {
  const { app } = bareService(t)
  await app.register(websocket)
  await app.register(websocketGroups)
  app.wsRoom('/ws/:room', { auth: false })
  app.get('/own', { websocket: true }, app.wsHandler({ onMessage () {} }))
  app.get('/hidden', { websocket: true, schema: { hide: true } as object }, app.wsHandler({ onMessage () {} }))
  await app.ready()
  t.strictSame(Object.keys(app.asyncapi().channels), ['ws_room', 'own'])
})

t.test('a client in another language needs the document alone', async t => {
  const { app, port } = await serve(t, {}, app => {
    routes(app)
    app.get(
      '/asyncapi.json',
      () => app.asyncapi({ servers: { here: { host: `127.0.0.1:${(app.server.address() as { port: number }).port}`, protocol: 'ws' } } })
    )
  })
  t.ok(app)
  const client = spawn('python3', [join(import.meta.dirname, 'client.py'), `http://127.0.0.1:${port}/asyncapi.json`, 'ann'])
  const output = await new Promise<string>((resolve, reject) => {
    let text = ''
    for (const stream of [client.stdout, client.stderr]) stream.on('data', (data: Buffer) => { text += data.toString() })
    client.on('error', reject)
    client.on('close', () => resolve(text))
  })
  const [event, reply, error] = output.trim().split('\n').map(line => JSON.parse(line) as object)
  t.strictSame(event, { type: 'said', data: { text: 'from Python' } })
  t.match(reply, { type: 'reply', id: 1, data: { position: /^[\w-]{24}$/ } })
  t.match(error, { type: 'error', id: 2, code: 'WSG_MESSAGE_INVALID' })
})
