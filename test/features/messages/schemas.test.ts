import t, { type Test } from 'tap'
import type { FastifyInstance, FastifySchemaCompiler } from 'fastify'
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import type { AnyMessages, StandardSchema } from '../../../plugin.ts'
import { connect } from '../../helpers/client.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { serve, service } from '../../helpers/service.ts'
import { until } from '../../helpers/until.ts'

noUnhandled(t)

const open = { auth: false } as const

/** Sends a message, and resolves with what comes back. */
async function ask (t: Test, url: string, message: object): Promise<unknown> {
  const client = connect(t, url)
  await client.opened
  client.send(JSON.stringify({ id: 1, ...message }))
  const answer: unknown = JSON.parse(String(await client.next()))
  client.terminate()
  return answer
}

const echo = (app: FastifyInstance, data: object | undefined, reply: object): AnyMessages =>
  app.wsMessages({ messages: { echo: { data, reply, handler: ({ data }) => data } } })

t.test('schemas are those of the scope: shared ones, compilers, and options of Ajv', async t => {
  const { url } = await serve(t, {}, app => {
    app.addSchema({
      $id: 'point', type: 'object', required: ['x'], properties: { x: { type: 'integer', default: 0 }, y: { type: 'integer', default: 7 } }
    })
    app.wsRoom('/root/:room', { ...open, group: () => 'root', messages: echo(app, { $ref: 'point#' }, { $ref: 'point#' }) })
    void app.register(async scope => {
      scope.addSchema({ $id: 'name', type: 'string', minLength: 2 })
      scope.wsRoom('/child/:room', { ...open, group: () => 'child', messages: echo(scope, { $ref: 'name#' }, { $ref: 'name#' }) })
    })
    void app.register(async scope => {
      scope.setValidatorCompiler(() => data => data === 'yes' ? { value: { answer: 'YES' } } : { error: new Error('say yes') })
      scope.setSerializerCompiler(() => data => JSON.stringify({ by: 'scope', data }))
      scope.wsRoom('/own/:room', { ...open, group: () => 'own', messages: echo(scope, { any: 'thing' }, { any: 'thing' }) })
    })
    app.wsRoom('/option/:room', {
      ...open,
      group: () => 'option',
      messages: app.wsMessages({
        validatorCompiler: () => data => ({ value: [data] }),
        serializerCompiler: () => data => JSON.stringify({ by: 'option', data }),
        messages: { echo: { data: {}, reply: {}, handler: ({ data }) => data } }
      })
    })
  })
  t.strictSame(await ask(t, `${url}/root/a`, { type: 'echo', data: { x: '3' } }), { type: 'reply', id: 1, data: { x: 3, y: 7 } })
  t.match(await ask(t, `${url}/root/a`, { type: 'echo', data: { x: 'z' } }), {
    code: 'WSG_MESSAGE_INVALID', message: /echo: data\/x must be integer/
  })
  t.strictSame(await ask(t, `${url}/child/a`, { type: 'echo', data: 'ann' }), { type: 'reply', id: 1, data: 'ann' })
  t.match(await ask(t, `${url}/child/a`, { type: 'echo', data: 'a' }), { code: 'WSG_MESSAGE_INVALID' })
  t.strictSame(
    await ask(t, `${url}/own/a`, { type: 'echo', data: 'yes' }), { type: 'reply', id: 1, data: { by: 'scope', data: { answer: 'YES' } } }
  )
  t.match(await ask(t, `${url}/own/a`, { type: 'echo', data: 'no' }), {
    code: 'WSG_MESSAGE_INVALID', message: /say yes/, details: [{ message: 'say yes' }]
  })
  t.strictSame(await ask(t, `${url}/option/a`, { type: 'echo', data: 1 }), { type: 'reply', id: 1, data: { by: 'option', data: [1] } })
})

t.test('the type provider of Zod works as on the routes of the scope', async t => {
  const { url } = await serve(t, {}, plain => {
    const app = plain.withTypeProvider<ZodTypeProvider>()
    app.setValidatorCompiler(validatorCompiler)
    app.setSerializerCompiler(serializerCompiler)
    const messages = app.wsMessages({
      messages: {
        add: {
          data: z.object({ n: z.string().transform(Number), by: z.number().default(2) }),
          reply: z.object({ sum: z.number() }),
          handler: ({ data: { n, by } }) => ({ sum: n + by, secret: 'x' })
        },
        wrong: { reply: z.object({ sum: z.number() }), handler: () => ({ sum: 'none' as unknown as number }) }
      },
      events: { summed: z.object({ sum: z.number() }) }
    })
    app.wsRoom('/zod/:room', { ...open, messages: messages as AnyMessages })
  })
  t.strictSame(await ask(t, `${url}/zod/a`, { type: 'add', data: { n: '40' } }), { type: 'reply', id: 1, data: { sum: 42 } })
  t.match(await ask(t, `${url}/zod/a`, { type: 'add', data: { n: 40 } }), {
    type: 'error', code: 'WSG_MESSAGE_INVALID', message: /data\/n/, details: [{ code: 'invalid_type', path: ['n'] }]
  })
  t.match(await ask(t, `${url}/zod/a`, { type: 'wrong' }), { type: 'error', code: 'WSG_HANDLER_FAILED' })
})

t.test('a Standard Schema checks by itself, at once or later', async t => {
  const trimmed = (later: boolean): StandardSchema<string> => ({
    '~standard': {
      version: 1,
      vendor: 'test',
      validate (value) {
        const result = typeof value === 'string'
          ? { value: value.trim() }
          : { issues: [{ message: 'no text', path: ['a', { key: 'b' }] }] }
        return later ? Promise.resolve(result) : result
      }
    }
  })
  const { url } = await serve(t, {}, app => {
    for (const later of [true, false]) {
      app.wsRoom(`/${later}/:room`, {
        ...open,
        group: () => `${later}`,
        messages: app.wsMessages({
          events: { heard: trimmed(later) },
          messages: {
            echo: { data: trimmed(later), reply: trimmed(later), handler: ({ data }) => `${data} ` },
            tell: { async handler ({ emit }) { await emit('heard', ' x ') } },
            mumble: { async handler ({ emit }) { await emit('heard', 1 as unknown as string) } }
          }
        })
      })
    }
  })
  for (const later of ['true', 'false']) {
    t.strictSame(
      await ask(t, `${url}/${later}/a`, { type: 'echo', data: ' hi ' }), { type: 'reply', id: 1, data: 'hi' }, 'checked replies are sent'
    )
    t.match(await ask(t, `${url}/${later}/a`, { type: 'echo', data: 1 }), {
      code: 'WSG_MESSAGE_INVALID', message: /data\/a\/b no text/, details: [{ path: ['a', { key: 'b' }] }]
    })
    t.strictSame(await ask(t, `${url}/${later}/a`, { type: 'tell' }), { type: 'heard', data: 'x' })
    t.match(await ask(t, `${url}/${later}/a`, { type: 'mumble' }), {
      code: 'WSG_EVENT_INVALID', details: undefined
    }, 'a bug of the server is not blamed on the client')
  }
})

t.test('a validator may take its time: what it rejects with is an answer where it lists what is wrong, else a bug', async t => {
  const thenable = (value: object): StandardSchema => ({
    // As libraries with promises of their own do.
    '~standard': { version: 1, vendor: 'test', validate: () => ({ then (resolve: (result: object) => void) { resolve(value) } }) as never }
  })
  const rejecting = (error: unknown): FastifySchemaCompiler<object> => () => (async () => { throw error }) as never
  const { url } = await serve(t, {}, app => {
    const room = (name: string, messages: AnyMessages): void => { app.wsRoom(`/${name}/:room`, { ...open, group: () => name, messages }) }
    room('ajv', echo(app, { $async: true, type: 'object', required: ['n'], properties: { n: { type: 'integer' } } }, {}))
    room('refused', echo(app, thenable({ issues: [null, { message: 'not this' }] }), {}))
    room('taken', echo(app, thenable({ value: 'this' }), {}))
    const bugs = [new Error('db-7.internal'), new AggregateError([new Error('db-7.internal')]), 'db-7.internal', undefined]
    for (const [index, bug] of bugs.entries()) {
      room(`bug${index}`, app.wsMessages({
        validatorCompiler: rejecting(bug), messages: { echo: { data: {}, reply: {}, handler: ({ data }) => data } }
      }))
    }
  })
  t.strictSame(await ask(t, `${url}/ajv/a`, { type: 'echo', data: { n: 1 } }), { type: 'reply', id: 1, data: { n: 1 } })
  t.match(await ask(t, `${url}/ajv/a`, { type: 'echo', data: { n: 'x' } }), {
    code: 'WSG_MESSAGE_INVALID', message: /data\/n must be integer/, details: [{ instancePath: '/n' }]
  })
  t.match(await ask(t, `${url}/refused/a`, { type: 'echo', data: 1 }), { code: 'WSG_MESSAGE_INVALID', message: /not this/ })
  t.strictSame(await ask(t, `${url}/taken/a`, { type: 'echo', data: 1 }), { type: 'reply', id: 1, data: 'this' })
  for (const index of [0, 1, 2, 3]) {
    const answer = await ask(t, `${url}/bug${index}/a`, { type: 'echo', data: 1 })
    t.match(answer, { code: 'WSG_HANDLER_FAILED' })
    t.notMatch(JSON.stringify(answer), /db-7/)
  }
})

t.test('a Standard Schema may be a function, as those of ArkType are', async t => {
  const validate = (value: unknown): object => (
    typeof value === 'string' ? { value: value.toUpperCase() } : { issues: [{ message: 'no text' }] }
  )
  const shout = Object.assign(() => {}, { '~standard': { version: 1, vendor: 'test', validate } } as const)
  const { app, url } = await serve(t, {}, app => { app.wsRoom('/:room', { ...open, messages: echo(app, shout, shout) }) })
  t.strictSame(await ask(t, `${url}/a`, { type: 'echo', data: 'hi' }), { type: 'reply', id: 1, data: 'HI' })
  t.match(await ask(t, `${url}/a`, { type: 'echo', data: 1 }), { code: 'WSG_MESSAGE_INVALID', details: [{ message: 'no text' }] })
  t.match(app.asyncapi().components.messages['room.echo'], { payload: { properties: { data: {} } } })
})

t.test('events are checked where that is on, and never changed for the caller', async t => {
  const schema = { type: 'object', required: ['n'], additionalProperties: false, properties: { n: { type: 'integer', maximum: 9 } } }
  const { app, url } = await serve(t, {}, () => {})
  t.equal(typeof url, 'string')
  const { app: unchecked } = await service(t, {})
  const sets = [true, false].map(validateEvents => {
    const scope = unchecked
    return { validateEvents, set: scope.wsMessages({ validateEvents, events: { n: schema, bytes: 'binary' }, messages: {} }) }
  })
  await unchecked.ready()
  for (const { validateEvents, set } of sets) {
    const data = { n: 1, extra: true }
    await set.emit('g', 'n', data)
    t.strictSame(data, { n: 1, extra: true })
    if (validateEvents) await t.rejects(set.emit('g', 'n', { n: 10 }), { code: 'WSG_EVENT_INVALID' })
    else t.match(await set.emit('g', 'n', { n: 10 }), { position: /./ })
    await t.rejects(set.emit('g', 'bytes', 'text' as never), { code: 'WSG_EVENT_INVALID' })
    await t.rejects(set.emit('g', 'unheard' as never, 1 as never), { code: 'WSG_EVENT_INVALID', message: /'unheard'; there are: n, bytes/ })
  }
  const { messages } = await unchecked.registry.history('g')
  t.strictSame(messages.map(({ data }) => data), [1, 1, 10].map(n => `{"type":"n","data":{"n":${n}}}`))
  t.throws(() => app.wsMessages({ messages: {} }), { code: 'WSG_OPTION_INVALID', message: /before app.ready/ })
})

t.test('what a serializer cannot write is an error with a code, and nothing is sent; what has no form in JSON is null', async t => {
  const circle: Record<string, unknown> = {}
  circle.self = circle
  const values: Readonly<Record<string, unknown>> = { circle, big: 1n, nothing: undefined, fn: () => 1, text: 'x' }
  const handler = ({ data }: { readonly data: unknown }): never => values[String(data)] as never
  const unwritable = (app: FastifyInstance) => app.wsMessages({
    validateEvents: false,
    messages: { any: { reply: {}, handler }, number: { reply: { type: 'integer' }, handler }, standard: { reply: z.any(), handler } },
    events: { any: {}, number: { type: 'integer' }, standard: z.any() },
    questions: { any: {} }
  })
  const sets: Array<ReturnType<typeof unwritable>> = []
  const { url } = await serve(t, {}, app => {
    sets.push(unwritable(app))
    app.wsRoom('/:room', { ...open, messages: sets[0] as AnyMessages })
  })
  const [messages] = sets
  if (messages === undefined) throw new Error('no set')
  const failed = { code: 'WSG_HANDLER_FAILED' }
  for (const [type, data, answer] of [
    ['any', 'circle', failed], ['any', 'big', failed], ['any', 'nothing', { data: null }], ['any', 'fn', { data: null }],
    ['number', 'text', failed], ['standard', 'circle', failed], ['standard', 'nothing', { data: null }]
  ] as const) t.match(await ask(t, `${url}/a`, { type, data }), { id: 1, ...answer }, `${type} ${data}`)

  const witness = connect(t, `${url}/b`)
  await witness.opened
  await until(() => messages.emit('b', 'any', 'first').then(({ localRecipients }) => localRecipients === 1))
  for (const [name, value] of [['any', 'circle'], ['any', 'big'], ['number', 'text'], ['standard', 'big']] as const) {
    await t.rejects(messages.emit('b', name, values[value] as never), { code: 'WSG_EVENT_INVALID' }, `${name} ${value}`)
  }
  await messages.emit('b', 'any', undefined)
  t.strictSame(JSON.parse(String(await witness.nextWhere(text => !String(text).includes('first')))), { type: 'any', data: null })

  const asking = messages.ask('b', 'any', undefined)
  const { id } = JSON.parse(String(await witness.next())) as { readonly id: string }
  witness.send(JSON.stringify({ type: 'reply', id, data: 1 }))
  t.match(await asking, { replies: [{ data: 1 }], missing: [] })
  for (const [target, code] of [
    ['', 'WSG_GROUP_NAME_INVALID'], [null, 'WSG_CONNECTION_GONE'], [{}, 'WSG_CONNECTION_GONE'], [7, 'WSG_CONNECTION_GONE'],
    [{ userId: 7 }, 'WSG_USER_ID_INVALID']
  ] as const) await t.rejects(messages.ask(target as never, 'any', undefined), { code }, JSON.stringify(target))
  await t.rejects(messages.ask('b', 'any', undefined, { timeout: 1 } as never), { code: 'WSG_OPTION_INVALID' })
})

t.test('what is wrong with a definition is told when it is made, or when the application starts', async t => {
  const { app } = await service(t)
  const make = (definition: unknown): unknown => app.wsMessages(definition as Parameters<typeof app.wsMessages>[0])
  const handler = (): void => {}
  const wrong: ReadonlyArray<readonly [unknown, RegExp]> = [
    [undefined, /wsMessages must be an object/],
    [{}, /wsMessages.messages must be an object/],
    [{ messages: {}, event: {} }, /no option wsMessages.event/],
    [{ messages: { 'a b': { handler } } }, /a name must match/],
    [{ messages: { a: {} } }, /wsMessages.messages.a.handler must be a function/],
    [{ messages: { a: { handler, replies: {} } } }, /no option wsMessages.messages.a.replies/],
    [{ messages: { a: { handler, data: 'text' } } }, /a.data must be a schema or 'binary'/],
    [{ messages: { a: { handler, limit: { perSecond: 0 } } } }, /a.limit must be/],
    [{ messages: { a: { handler, maxBytes: 0.5 } } }, /a.maxBytes must be/],
    [{ messages: {}, events: { error: {} } }, /events.error: this name is reserved for answers/],
    [{ messages: {}, events: { a: 1 } }, /events.a must be a schema/]
  ]
  for (const [definition, message] of wrong) t.throws(() => make(definition), { code: 'WSG_OPTION_INVALID', message })
  const set = app.wsMessages({ messages: {} })
  t.throws(() => app.wsRoom('/:room', { ...open, messages: {} as AnyMessages }), { message: /messages must be what app.wsMessages/ })
  t.throws(() => app.wsRoom('/:room', { ...open, messages: set, onMessage () {} }), { message: /onMessage or messages, not both/ })
  t.throws(() => app.wsHandler({ messages: set, onMessage () {} } as never), { message: /not both/ })
  t.throws(() => app.wsHandler({} as never), { message: /needs `onMessage`/ })
  const { wsMessages } = app
  t.throws(() => wsMessages({ messages: {} }), { message: /called without its instance/ })

  app.wsMessages({ messages: { bad: { data: { type: 'no such type' }, handler } } })
  await t.rejects(async () => await app.ready(), { code: 'WSG_OPTION_INVALID', message: /a schema of bad cannot be compiled/ })
})

t.test('a message has limits of its own, and says who may send it', async t => {
  const order: string[] = []
  const { url, registry } = await serve(t, {}, app => {
    const set = app.wsMessages({
      messages: {
        once: { limit: { perSecond: 0.001 }, handler () {} },
        small: { maxBytes: 60, reply: {}, handler: () => 'fits' },
        staff: {
          data: { type: 'integer' },
          authorize (identity, { data }) {
            order.push(`authorize ${String(data)}`)
            return identity?.userId === 'ann'
          },
          preHandler: [({ data }) => { order.push(`first ${String(data)}`) }, async () => { order.push('second') }],
          handler () { order.push('handler') }
        },
        stopped: {
          preHandler: () => { throw Object.assign(new Error('not now'), { statusCode: 409 }) },
          handler () { order.push('never') }
        }
      }
    })
    app.wsRoom('/:room', { auth: { required: false }, messages: set })
  })
  const ann = connect(t, `${url}/lobby`, { protocols: ['bearer', 'ann'] })
  const bob = connect(t, `${url}/lobby`)
  await Promise.all([ann.opened, bob.opened])
  const say = async (client: typeof ann, type: string, data?: unknown): Promise<unknown> => {
    client.send(JSON.stringify({ type, id: 1, data }))
    return JSON.parse(String(await client.next())) as unknown
  }
  t.match(await say(bob, 'once'), { type: 'reply' })
  t.match(await say(bob, 'once'), { code: 'WSG_RATE_LIMITED' })
  t.match(await say(ann, 'once'), { type: 'reply' }, 'the limit is of one connection')
  t.match(await say(bob, 'small', 'x'.repeat(20)), { data: 'fits' })
  t.match(await say(bob, 'small', 'ü'.repeat(20)), { code: 'WSG_MESSAGE_LIMIT' }, 'bytes, not characters')
  t.equal(registry.stats().messagesRefused, 2)
  t.match(await say(bob, 'staff', 1), { code: 'WSG_FORBIDDEN' })
  t.match(await say(ann, 'staff', 'x'), { code: 'WSG_MESSAGE_INVALID' })
  t.match(await say(ann, 'staff', 1), { type: 'reply' })
  t.strictSame(order, ['authorize undefined', 'authorize undefined', 'authorize undefined', 'first 1', 'second', 'handler'])
  t.match(await say(ann, 'stopped'), { code: 'WSG_HANDLER_FAILED', message: 'not now' })
})
