import { STATUS_CODES } from 'node:http'
import { runInNewContext } from 'node:vm'
import t, { type Test } from 'tap'
import type { FastifyReply, FastifyRequest, preHandlerHookHandler } from 'fastify'
import type { Identity, WebsocketGroupsOptions, WsAuthOptions } from '../../plugin.ts'
import { connect, upgradeStatus } from '../helpers/client.ts'
import { until } from '../helpers/until.ts'
import { service, type Service } from '../helpers/service.ts'

const bearer = { headers: { authorization: 'Bearer x', origin: 'https://app.example' } }
/** What must not get out. */
const secret = 'db-7.internal password=hunter2'
const never = async (): Promise<never> => await new Promise<never>(() => {})

interface Guarded extends Service {
  readonly url: string
  /** Identities that got through to onConnect. */
  readonly entered: unknown[]
}

async function guarded (t: Test, auth: object, options: object = {}): Promise<Guarded> {
  const built = await service(t, { authenticate: () => ({ userId: 'john' }), ...options } as WebsocketGroupsOptions)
  const entered: unknown[] = []
  built.app.get('/ws', { websocket: true, preHandler: built.app.wsAuth(auth as WsAuthOptions) }, built.app.wsHandler({
    onConnect (connection) { entered.push(connection.identity) },
    onMessage () {}
  }))
  return { ...built, entered, url: `${await built.listen()}/ws` }
}

t.test('authenticate lets in with an object alone', async t => {
  const answers = [
    false, '', 0, null, undefined, true, 'john', 1, [], ['john'], new Error('no'), () => {}, Symbol('john'), 1n,
    Object(false), Object('john'), new Date(), /john/, Buffer.from('john'), new Map([['userId', 'john']]), new Set(), new Response('no'),
    runInNewContext('new Error("no")'), runInNewContext('new Boolean(false)')
  ] as unknown[]
  for (const answer of answers) {
    for (const authenticate of [() => answer, async () => answer]) {
      const { url, entered } = await guarded(t, { authenticate })
      const { statusCode, headers } = await upgradeStatus(url, bearer)
      t.strictSame([statusCode, headers['www-authenticate']], [401, 'Bearer error="invalid_token"'], String(answer))
      t.strictSame(entered, [])
    }
  }
})

t.test('authenticate lets in with an object of any class and realm', async t => {
  class User { readonly userId = 'ann' }
  for (const identity of [new User(), Object.assign(Object.create(null), { userId: 'ann' }), runInNewContext('({ userId: "ann" })')]) {
    const { url } = await guarded(t, { authenticate: () => identity })
    t.equal((await upgradeStatus(url, bearer)).statusCode, 101)
  }
})

t.test('what is no identity but looks like a yes is told in the log', async t => {
  const { url, logs } = await guarded(t, { authenticate: () => true })
  await upgradeStatus(url, bearer)
  const warning = logs.find(({ level }) => level === 40)
  t.match(warning, { event: 'identity_invalid', returned: 'true' })
})

t.test('authorize and allowedOrigins let in with true alone, async or not', async t => {
  for (const answer of [false, undefined, null, 1, 'yes', {}]) {
    for (const name of ['authorize', 'allowedOrigins']) {
      for (const check of [() => answer, async () => answer]) {
        t.equal((await upgradeStatus((await guarded(t, { [name]: check })).url, bearer)).statusCode, 403, `${name}: ${String(answer)}`)
      }
    }
  }
  const allowedOrigins = async (origin: string): Promise<boolean> => origin === 'https://app.example'
  const { url } = await guarded(t, { authorize: async () => true, allowedOrigins })
  t.equal((await upgradeStatus(url, bearer)).statusCode, 101)
})

t.test('an error before the upgrade is answered without its text, which goes to the log', async t => {
  const errors: ReadonlyArray<readonly [unknown, number]> = [
    [new Error(secret), 500], [Object.assign(new Error(secret), { statusCode: 503, code: 'ECONNREFUSED' }), 503],
    [Object.assign(new Error(secret), { status: 404 }), 500], [secret, 500], [{ statusCode: 403, message: secret }, 500], [null, 500]
  ]
  for (const [error, statusCode] of errors) {
    for (const name of ['authorize', 'allowedOrigins']) {
      for (const fail of [() => { throw error }, async () => { throw error }]) {
        const { url, logs } = await guarded(t, { [name]: fail })
        const answer = await upgradeStatus(url, bearer)
        t.strictSame(JSON.parse(answer.body), {
          statusCode,
          code: 'WSG_HANDLER_FAILED',
          error: statusCode === 503 ? 'Service Unavailable' : 'Internal Server Error',
          message: 'the server could not handle the request'
        })
        if (error instanceof Error) t.ok(JSON.stringify(logs).includes(secret), 'it is in the log')
      }
    }
  }
  const outage = await guarded(t, { authenticate () { throw Object.assign(new Error(secret), { statusCode: 503 }) } })
  const { statusCode, body } = await upgradeStatus(outage.url, bearer)
  t.equal(statusCode, 503)
  t.notMatch(body, /hunter2/)
})

t.test('an error with a status from 400 to 499 was made for the client', async t => {
  for (const statusCode of [101, 200, 399, -1, 400.5]) {
    const { url } = await guarded(t, { authorize () { throw Object.assign(new Error(secret), { statusCode }) } })
    t.notMatch((await upgradeStatus(url, bearer)).body, /hunter2/)
  }
  const { url } = await guarded(t, { authorize () { throw Object.assign(new Error('pay first'), { statusCode: 402, code: 'UNPAID' }) } })
  t.match(JSON.parse((await upgradeStatus(url, bearer)).body), { statusCode: 402, code: 'UNPAID', message: 'pay first' })
})

t.test('a check that does not end is answered with 503 when its time is over', async t => {
  for (const auth of [{ authenticate: never }, { authorize: never }, { allowedOrigins: never }]) {
    const { url, entered } = await guarded(t, auth, { authTimeoutMs: 50 })
    const { body } = await upgradeStatus(url, bearer)
    t.match(JSON.parse(body), { statusCode: 503, code: 'WSG_AUTH_TIMEOUT', message: 'the token could not be checked in time' })
    t.strictSame(entered, [])
  }
})

t.test('a room that does not name its group in time answers with 503', async t => {
  const { app, listen, logs } = await service(t, { authTimeoutMs: 50 })
  app.wsRoom('/ws/:room', { auth: false, group: never })
  const { body } = await upgradeStatus(`${await listen()}/ws/x`)
  t.match(JSON.parse(body), { statusCode: 503, code: 'WSG_HANDLER_FAILED' })
  t.match(JSON.stringify(logs), /group of wsRoom\('\/ws\/:room'\) took longer than 50 ms/)
})

t.test('after the time is over authorize is not asked any more', async t => {
  let asked = 0
  let answer: (identity: Identity) => void = () => {}
  const { url } = await guarded(t, {
    authenticate: async () => await new Promise(resolve => { answer = resolve }),
    authorize () { asked++ }
  }, { authTimeoutMs: 50 })
  t.equal((await upgradeStatus(url, bearer)).statusCode, 503)
  answer({ userId: 'john' })
  await new Promise(resolve => setImmediate(resolve))
  t.equal(asked, 0)
})

t.test('an identity that cannot be understood is refused, with the reason in the log', async t => {
  for (const [options, identity, reason] of [
    [{ userId: async () => 'john' }, {}, /user id.*a promise: the option cannot be async/], [{ userId: () => 7 }, {}, /user id.*got 7/],
    [{ userId () { throw new Error(secret) } }, {}, /hunter2/], [{}, { userId: 'x'.repeat(256) }, /user id/],
    [{ expiresAt: async () => 1 }, {}, /the expiry.*a promise/], [{ expiresAt: async () => { throw new Error('late') } }, {}, /a promise/],
    [{}, { expiresAt: 'soon' }, /the expiry.*'soon'/], [{}, { exp: {} }, /the expiry.*an object/]
  ] as const) {
    const { url, logs, entered } = await guarded(t, { authenticate: () => identity }, options)
    const { statusCode, body } = await upgradeStatus(url, bearer)
    t.equal(statusCode, 500)
    t.notMatch(body, reason)
    t.match(JSON.stringify(logs), reason)
    t.strictSame(entered, [])
  }
})

t.test('an identity that a hook of the service set is read as one of authenticate, before the upgrade', async t => {
  const { app, logs, listen } = await service(t)
  let connected = 0
  app.get('/ws', {
    websocket: true,
    preHandler: async request => { request.identity = { userId: 'john', expiresAt: 'soon' } }
  }, app.wsHandler({ onConnect () { connected++ }, onMessage () {} }))
  const { statusCode, body } = await upgradeStatus(`${await listen()}/ws`)
  t.equal(statusCode, 500)
  t.match(JSON.parse(body), { code: 'WSG_IDENTITY_INVALID' })
  t.notMatch(body, 'soon')
  t.equal(connected, 0)
  t.ok(logs.some(({ msg }) => msg === 'an upgrade could not be admitted'))
})

t.test('memberInfo that returns a promise fails the join', async t => {
  for (const memberInfo of [async () => ({ name: 'x' }), async () => { throw new Error('late') }]) {
    const { app, logs, listen } = await service(t, { memberInfo } as unknown as WebsocketGroupsOptions)
    app.wsRoom('/ws/:room', { auth: false })
    t.match(await connect(t, `${await listen()}/ws/lobby`).closed, { code: 1011 })
    t.match(JSON.stringify(logs), /memberInfo returned a promise/)
    await until(async () => await app.registry.groupCount('lobby') === 0)
  }
})

t.test('group and preHandler of a room fail as wsAuth does, and group may be async', async t => {
  const { app, listen } = await service(t)
  const fail = (): never => { throw new Error(secret) }
  app.wsRoom('/named/:room', { auth: false, group: async ({ room }) => room })
  app.wsRoom('/broken/:room', { auth: false, group: async () => fail() })
  app.wsRoom('/empty/:room', { auth: false, group: async () => '' })
  app.wsRoom('/hook/:room', { auth: false, group: ({ room }) => room, preHandler: async () => fail() })
  app.wsRoom('/callback/:room', {
    auth: false,
    group: ({ room }) => room,
    preHandler: ((_request: unknown, _reply: unknown, done: (error?: Error) => void) => done(new Error(secret))) as never
  })
  app.wsRoom('/meant/:room', {
    auth: false,
    group: ({ room }) => room,
    preHandler: async () => { throw Object.assign(new Error('full'), { statusCode: 429 }) }
  })
  const url = await listen()
  t.equal((await upgradeStatus(`${url}/named/x`)).statusCode, 101)
  t.equal((await upgradeStatus(`${url}/empty/x`)).statusCode, 400)
  for (const path of ['broken', 'hook', 'callback']) {
    const { body } = await upgradeStatus(`${url}/${path}/x`)
    t.match(JSON.parse(body), { statusCode: 500, code: 'WSG_HANDLER_FAILED', message: 'the server could not handle the request' })
  }
  t.match(JSON.parse((await upgradeStatus(`${url}/meant/x`)).body), { statusCode: 429, message: 'full' })
})

t.test('a preHandler with a callback works in a room as on any route: done(null), and a throw', async t => {
  const { app, logs, listen } = await service(t)
  type Hook = (request: unknown, reply: unknown, done: (error?: Error | null) => void) => void
  const room = (path: string, preHandler: Hook): void => {
    app.wsRoom(path, { auth: false, group: () => 'lobby', preHandler: preHandler as never })
  }
  room('/well/:room', (_request, _reply, done) => done(null))
  room('/throws/:room', (_request, _reply, _done) => { throw new Error(secret) })
  const url = await listen()
  t.equal((await upgradeStatus(`${url}/well/x`)).statusCode, 101)
  const failed = { statusCode: 500, code: 'WSG_HANDLER_FAILED', message: 'the server could not handle the request' }
  t.match(JSON.parse((await upgradeStatus(`${url}/throws/x`)).body), failed)
  t.equal(app.registry.stats().upgradesRefused, 1)
  t.match(await (await fetch(`${url.replace('ws', 'http')}/throws/x`)).json(), failed, 'without an upgrade, too')
  t.ok(JSON.stringify(logs).includes(secret), 'it is in the log')
})

t.test('whichever hook throws before the upgrade, its text stays inside, unless the application answers errors itself', async t => {
  const fail = async (): Promise<never> => { throw Object.assign(new Error(secret), { statusCode: 503 }) }
  for (const name of ['onRequest', 'preParsing', 'preValidation', 'preHandler']) {
    const { app, logs, listen } = await service(t)
    const hook: object = { [name]: fail }
    app.get('/ws', { websocket: true, ...hook }, app.wsHandler({ onMessage () {} }))
    app.wsRoom('/room/:room', { auth: false, ...hook })
    const url = await listen()
    for (const path of ['/ws', '/room/x']) {
      const { statusCode, body } = await upgradeStatus(url + path)
      t.equal(statusCode, 503, `${name} of ${path}`)
      t.match(JSON.parse(body), { statusCode: 503, code: 'WSG_HANDLER_FAILED', message: 'the server could not handle the request' })
    }
    t.ok(JSON.stringify(logs).includes(secret), 'it is in the log')
  }
})

t.test('what hooks throw is answered with the status and code that Fastify gives it, and with its text from 400 to 499', async t => {
  const { app, listen } = await service(t)
  const hooks: Readonly<Record<string, (reply: FastifyReply) => unknown>> = {
    error: () => Object.assign(new Error('slow down'), { statusCode: 429, code: 'SLOW' }),
    status: () => Object.assign(new Error('not here'), { status: 404 }),
    object: () => ({ statusCode: 429, message: 'slow down', retry: 'later' }),
    reply: reply => {
      reply.code(401).header('www-authenticate', 'Basic')
      return new Error('who are you?')
    },
    replyLimit: reply => {
      reply.code(429)
      return new Error('slow down')
    }
  }
  const outages: typeof hooks = {
    text: () => secret,
    outage: () => ({ statusCode: 503, message: secret }),
    status: () => Object.assign(new Error(secret), { status: 504 }),
    reply: reply => {
      reply.code(503)
      return new Error(secret)
    },
    replyText: reply => {
      reply.code(502)
      return secret
    },
    errorFirst: reply => {
      reply.code(429)
      return Object.assign(new Error(secret), { statusCode: 503 })
    },
    redirect: reply => {
      reply.code(302)
      return new Error(secret)
    },
    odd: reply => {
      reply.code(503)
      return Object.assign(new Error(secret), { statusCode: 200 })
    },
    code: () => Object.assign(new Error(secret), { statusCode: 503, code: 'FST_ERR_CIRCUIT_BREAKER_OPEN' }),
    codeAlone: () => Object.assign(new Error(secret), { code: 'FST_ERR_X' }),
    foreignCode: () => Object.assign(new Error(secret), { statusCode: 503, code: 'ECONNREFUSED' }),
    textAsCode: () => Object.assign(new Error(secret), { statusCode: 503, code: `FST_${secret}` })
  }
  const hook = async (request: FastifyRequest, reply: FastifyReply): Promise<never> => {
    const [kind, name = ''] = String(request.headers['x-hook']).split(' ')
    throw (kind === 'outages' ? outages : hooks)[name]?.(reply)
  }
  app.get('/ws', { websocket: true, onRequest: hook }, app.wsHandler({ onMessage () {} }))
  const callback: preHandlerHookHandler = (request, reply, done) => { void hook(request, reply).catch(done) }
  app.wsRoom('/async/:room', { auth: false, group: ({ room }) => room, preHandler: hook })
  app.wsRoom('/callback/:room', { auth: false, group: ({ room }) => room, preHandler: callback as never })
  app.get('/http', { onRequest: hook }, async () => 'never')
  const url = await listen()
  const answer = async (path: string, name: string): Promise<unknown> => {
    const { statusCode, body } = await upgradeStatus(url + path, { headers: { 'x-hook': name } })
    return { statusCode, body: JSON.parse(body) as unknown }
  }
  const http = async (name: string): Promise<{ statusCode: number, body: Record<string, unknown> }> => {
    const answer = await app.inject({ url: '/http', headers: { 'x-hook': name } })
    const isJson = answer.headers['content-type']?.toString().includes('json') === true
    return { statusCode: answer.statusCode, body: isJson ? answer.json() : {} }
  }
  for (const path of ['/ws', '/async/x', '/callback/x']) {
    // A room hides the text of an error with the `status` of another server's answer.
    const told = Object.keys(hooks).filter(name => path === '/ws' || name !== 'status')
    for (const name of told) t.strictSame(await answer(path, `hooks ${name}`), await http(`hooks ${name}`), `${name} of ${path}`)
    for (const name of Object.keys(outages)) {
      const { statusCode, body } = await http(`outages ${name}`)
      const code = /^FST_[A-Z_]+$/.test(String(body.code)) ? body.code : 'WSG_HANDLER_FAILED'
      const said = { code, error: STATUS_CODES[statusCode], message: 'the server could not handle the request', statusCode }
      t.strictSame(await answer(path, `outages ${name}`), { statusCode, body: said }, `${name} of ${path}`)
    }
  }
})

t.test('what a hook throws and cannot be read is answered without the text of what reading throws', async t => {
  const fail = (): never => { throw new Error(secret) }
  for (const field of ['statusCode', 'status', 'code', 'message', 'headers']) {
    for (const status of [200, 404, 503]) {
      const { app, listen } = await service(t)
      app.addHook('onRequest', async (_request, reply) => {
        reply.code(status)
        throw Object.defineProperty(new Error('no'), field, { get: fail })
      })
      app.get('/ws', { websocket: true }, app.wsHandler({ onMessage () {} }))
      const { statusCode, body } = await upgradeStatus(`${await listen()}/ws`)
      t.equal(statusCode, status === 200 ? 500 : status, field)
      t.notMatch(body, /hunter2/, `${field}, ${status}`)
    }
  }
})

t.test('error handlers of the application get what hooks throw, once each and in their order', async t => {
  const { app, listen } = await service(t)
  const calls: unknown[] = []
  app.setErrorHandler(async (error, request, reply) => {
    calls.push(['outer', request.url, error])
    reply.code(418)
    return { from: 'outer' }
  })
  const thrown = { first: new Error(secret), second: new Error('again') }
  app.addHook('onRequest', async () => { throw thrown.first })
  app.wsRoom('/outer/:room', { group: ({ room }) => `outer:${room}`, auth: false })
  await app.register(async scope => {
    scope.wsRoom('/inner/:room', { group: ({ room }) => `inner:${room}`, auth: false })
    scope.setErrorHandler(async (error, request) => {
      calls.push(['inner', request.url, error])
      throw thrown.second
    })
    scope.wsRoom('/own/:room', { group: ({ room }) => `own:${room}`, auth: false, errorHandler: async () => ({ from: 'route' }) })
  })
  const url = await listen()
  const answers = []
  for (const path of ['/outer/x', '/inner/x', '/own/x']) {
    const { statusCode, body } = await upgradeStatus(url + path)
    answers.push([statusCode, JSON.parse(body)])
  }
  t.strictSame(answers, [[418, { from: 'outer' }], [418, { from: 'outer' }], [200, { from: 'route' }]])
  t.strictSame(calls, [
    ['outer', '/outer/x', thrown.first], ['inner', '/inner/x', thrown.first], ['outer', '/inner/x', thrown.second]
  ])
})

t.test('a group that throws or rejects with nothing at all, or names no number, leads nowhere', async t => {
  const { app, listen } = await service(t)
  const fail = (thrown: unknown): never => { throw thrown }
  const groups: ReadonlyArray<(params: Readonly<Record<string, string>>) => string | Promise<string>> = [
    () => fail(undefined),
    async () => fail(undefined),
    () => fail(null),
    ({ room }) => Number(room) as unknown as string,
    async () => Infinity as unknown as string
  ]
  for (const [index, group] of groups.entries()) app.wsRoom(`/${index}/:room`, { auth: false, group })
  const url = await listen()
  for (const index of groups.keys()) t.equal((await upgradeStatus(`${url}/${index}/x`)).statusCode, index < 3 ? 500 : 400)
})

t.test('a number that a schema made of the room names the group', async t => {
  const { app, listen } = await service(t)
  app.wsRoom('/ws/:room', { auth: false, schema: { params: { type: 'object', properties: { room: { type: 'integer' } } } } })
  connect(t, `${await listen()}/ws/42`)
  await until(async () => await app.registry.groupCount('42') === 1)
})

t.test('a room has to say who may enter, where the plugin does not', async t => {
  for (const options of [{}, { authenticate: undefined }]) {
    const { app } = await service(t, options)
    t.throws(() => app.wsRoom('/ws/:room'), { code: 'WSG_OPTION_INVALID', message: /does not say who may enter.*auth: false/ })
    t.throws(() => app.wsRoom('/ws/:room', { auth: {} }), { code: 'WSG_OPTION_INVALID', message: /needs `authenticate`/ })
    t.doesNotThrow(() => app.wsRoom('/ws/:room', { auth: { authenticate: () => null } }))
  }
})

t.test('room routes that could lead to one group have to name their groups', async t => {
  const group = ({ room = '' }: Readonly<Record<string, string>>): string => `staff:${room}`
  for (const [first, second] of [[{}, {}], [{ group }, {}], [{}, { group }]]) {
    const { app } = await service(t, { authenticate: () => null })
    app.wsRoom('/staff/:room', first)
    const scoped = app.register(async scope => { scope.wsRoom('/chat/:name', second) }, { prefix: '/v2' })
    await t.rejects(async () => await scoped, {
      code: 'WSG_OPTION_INVALID',
      message: /wsRoom\('\/v2\/chat\/:name'\) and wsRoom\('\/staff\/:room'\) could lead to the same group.*the option group/
    })
  }
  const { app } = await service(t, { authenticate: () => null })
  app.wsRoom('/staff/:room', { group })
  t.doesNotThrow(() => app.wsRoom('/chat/:room', { group: ({ room }) => `chat:${room}` }))
})

t.test('a raw client that was put out of its room cannot post into it', async t => {
  const { app, listen } = await service(t)
  app.wsRoom('/ws/:room', { auth: false })
  const url = await listen()
  const [out, stays] = [connect(t, `${url}/ws/lobby`), connect(t, `${url}/ws/lobby`)]
  await out.opened
  await until(async () => await app.registry.groupCount('lobby') === 2)
  out.send('in')
  t.equal(await stays.next(), 'in')
  const [first] = app.registry.all()
  t.equal(await app.registry.leave(String(first?.id), 'lobby'), true)
  out.send('out')
  t.strictSame(await out.closed, { code: 1008, reason: 'no longer in the group' })
  stays.send('last')
  t.equal(await stays.next(), 'last')
})
