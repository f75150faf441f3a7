import t from 'tap'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import autoload from '@fastify/autoload'
import websocket from '@fastify/websocket'
import { setImmediate } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import websocketGroups, { type WebsocketGroupsOptions } from '../../plugin.ts'
import { childEnvironment, nodeArguments } from '../helpers/child.ts'
import { connect, upgradeStatus } from '../helpers/client.ts'
import { watchMachine } from '../helpers/machine.ts'
import { until } from '../helpers/until.ts'
import { bareService, service } from '../helpers/service.ts'

const machine = watchMachine(t)

t.test('a wrong option fails the registration and names the option, the value and what is allowed', async t => {
  const wrong: ReadonlyArray<readonly [object, RegExp]> = [
    [{ heartbeatIntervalMs: '30s' }, /heartbeatIntervalMs must be an integer from 0 to 2147483647 \(ms, 0 disables\), got '30s'/],
    [{ redis: 6379 }, /redis must be a URL .*got 6379/],
    [{ hartbeat: 1 }, /there is no option hartbeat \(got 1\); there are: .*heartbeatIntervalMs/],
    [{ outage: { join: 'x' } }, /outage\.join must be 'local' or 'reject', got 'x'/],
    [{ rooms: { '/ws/:room': { onOpen () {} } } }, /no option wsRoom\('\/ws\/:room'\)\.onOpen/],
    [{ rooms: { '/ws': true } }, /wsRoom\('\/ws'\) must have a parameter/],
    [{ rooms: { '/ws/:room': true } }, /wsRoom\('\/ws\/:room'\) does not say who may enter: .* write auth: false/],
    [{ authenticate: undefined, rooms: { '/ws/:room': { presence: true } } }, /does not say who may enter/],
    [{
      authenticate: () => null, rooms: { '/a/:room': true, '/b/:name': true }
    }, /'\/b\/:name'\) and wsRoom\('\/a\/:room'\) could lead to the same group/]
  ]
  for (const [options, message] of wrong) {
    const { app } = bareService(t)
    await t.rejects(
      async () => await app.register(websocketGroups, options as WebsocketGroupsOptions), { code: 'WSG_OPTION_INVALID', message }
    )
  }
})

t.test('a second registration says what to do', async t => {
  const { app } = await service(t)
  await t.rejects(async () => await app.register(websocketGroups), { code: 'WSG_ALREADY_REGISTERED', message: /register it once/ })

  const siblings = bareService(t)
  await siblings.app.register(async scope => { await scope.register(websocketGroups) })
  await t.rejects(
    async () => await siblings.app.register(async scope => { await scope.register(websocketGroups) }), { code: 'WSG_ALREADY_REGISTERED' }
  )
})

t.test('in an encapsulated scope with a prefix, routes and decorators belong to the scope', async t => {
  const { app, listen } = bareService(t)
  let scoped: FastifyInstance | undefined
  await app.register(async scope => {
    await scope.register(websocketGroups, { rooms: { '/rooms/:room': { auth: false, group: ({ room = '' }) => room } } })
    scoped = scope
    scope.get('/echo', { websocket: true }, scope.wsHandler({ onMessage: (connection, data) => connection.send(data) }))
    await scope.register(async child => { child.wsRoom('/deep/:room', { auth: false, group: ({ room }) => room }) }, { prefix: '/child' })
  }, { prefix: '/v1' })
  app.get('/plain', async () => 'plain')
  const url = await listen()
  t.equal(app.hasDecorator('registry'), false)
  const echo = connect(t, `${url}/v1/echo`)
  await echo.opened
  echo.send('hi')
  t.equal(await echo.next(), 'hi')
  connect(t, `${url}/v1/rooms/a`)
  connect(t, `${url}/v1/child/deep/b`)
  await until(async () => await scoped?.registry.groupCount('a') === 1 && await scoped?.registry.groupCount('b') === 1)
  t.equal((await app.inject('/plain')).body, 'plain')
  t.equal((await upgradeStatus(`${url}/rooms/a`)).statusCode, 404)
})

t.test('beside @fastify/autoload, which adds options of its own', async t => {
  const dir = t.testdir({
    groups: {
      'index.js': 'export default async (app, options) => app.websocketGroupsTest(options)\n' +
        "export const autoConfig = { instanceLabel: 'auto' }\n"
    },
    chat: {
      'index.js': "export default async app => { app.wsRoom('/:room', { auth: false }) }\n"
    }
  })
  const { app, listen } = await service(t)
  const seen: object[] = []
  app.decorate('websocketGroupsTest', async (options: object) => {
    seen.push(options)
    // The options that autoload hands to a plugin are fine for this one, were it the plugin that autoload loads.
    await service(t, options)
  })
  await app.register(autoload, { dir })
  const url = await listen()
  t.match(seen, [{ prefix: '/groups', instanceLabel: 'auto' }])
  connect(t, `${url}/chat/lobby`)
  await until(async () => await app.registry.groupCount('lobby') === 1)
})

t.test('@fastify/websocket that the service registered itself is used, and keeps its options', async t => {
  const { app, listen } = bareService(t)
  await app.register(websocket, { options: { maxPayload: 10 } })
  app.get('/raw', { websocket: true }, socket => { socket.send('raw') })
  await app.register(websocketGroups)
  app.wsRoom('/ws/:room', { auth: false })
  const url = await listen()
  t.equal(await connect(t, `${url}/raw`).next(), 'raw')
  const client = connect(t, `${url}/ws/x`, { protocols: ['bearer', 'token'] })
  await client.opened
  t.equal(client.ws.protocol, 'bearer')
  client.send('short')
  t.equal(await client.next(), 'short')
  client.send('longer than ten')
  t.match(await client.closed, { code: 1009 })
})

t.test('@fastify/websocket that the service registers later says what to do', async t => {
  // The error of a plugin that takes a callback goes past the boot and ends the process, so each is one of its own.
  const boot = async (line: string): Promise<string> => {
    const program = `import Fastify from 'fastify'
      import websocket from '@fastify/websocket'
      import groups from './plugin.ts'
      const app = Fastify()
      await app.register(groups)
      ${line}
      await app.ready()
      console.error('it is up')
      await app.close()`
    const args = [...nodeArguments, '--input-type=module', '--eval', program]
    const cwd = join(import.meta.dirname, '..', '..')
    return await new Promise(resolve => {
      execFile(process.execPath, args, { cwd, env: childEnvironment() }, (_error, _out, text) => resolve(text))
    })
  }
  const [late, nested, other] = await Promise.all([
    boot('app.register(websocket)'),
    boot('app.register(async scope => { scope.register(websocket) })'),
    boot("app.decorateRequest('mine', null).register(async scope => { scope.decorateRequest('ws2', null) })")
  ])
  for (const text of [late, nested]) {
    t.match(text, /WSG_OPTION_INVALID/)
    t.match(text, /registers @fastify\/websocket after fastify-websocket-groups.*: leave it out, .* or register it before/)
  }
  t.equal(other.trim(), 'it is up', 'other decorators are as ever')
})

t.test('a message may have 1 MiB unless maxPayload says otherwise', async t => {
  for (const [options, size, fits] of [
    [{}, 1_048_576, true], [{}, 1_048_577, false],
    [{ options: { maxPayload: 100 } }, 100, true], [{ options: { maxPayload: 100 } }, 101, false]
  ] as const) {
    const { app, listen } = await service(t, options)
    app.get('/ws', { websocket: true }, app.wsHandler({ onMessage: (connection, data) => connection.send(String(data.length)) }))
    const client = connect(t, `${await listen()}/ws`)
    await client.opened
    client.send(Buffer.alloc(size))
    if (fits) t.equal(await client.next(), String(size))
    else t.match(await client.closed, { code: 1009 })
  }
})

t.test('callbacks are checked when wsHandler is called', async t => {
  const { app } = await service(t)
  const wsHandler = app.wsHandler as (callbacks: unknown) => unknown
  const wrong: ReadonlyArray<readonly [unknown, RegExp]> = [
    [{}, /needs `onMessage`/],
    [{ onMessage: 'x' }, /wsHandler\.onMessage must be a function, got 'x'/],
    [{ onMessage () {}, onClose () {} }, /no option wsHandler\.onClose .*onDisconnect/],
    [() => {}, /wsHandler must be an object, got a function/],
    [undefined, /wsHandler must be an object, got undefined/]
  ]
  for (const [callbacks, message] of wrong) t.throws(() => wsHandler(callbacks), { code: 'WSG_OPTION_INVALID', message })
})

t.test('callbacks may be the methods of an object, which stays their this', async t => {
  const { app, listen } = await service(t)
  class Greeter {
    readonly #text = 'hello'
    onConnect (connection: { send (data: string): boolean }): void { connection.send(this.#text) }
    onMessage (): void {}
  }
  class Named {
    readonly messages = app.wsMessages({ messages: {} })
    readonly #text = 'hello, too'
    onConnect (connection: { send (data: string): boolean }): void { connection.send(this.#text) }
  }
  app.get('/ws', { websocket: true }, app.wsHandler(new Greeter()))
  app.get('/named', { websocket: true }, app.wsHandler(new Named()))
  const url = await listen()
  t.equal(await connect(t, `${url}/ws`).next(), 'hello')
  t.equal(await connect(t, `${url}/named`).next(), 'hello, too')
})

t.test('a refused upgrade holds up the close of the server nowhere, also not outside of the scope', async t => {
  const { app, listen } = bareService(t)
  await app.register(async scope => {
    await scope.register(websocketGroups)
    scope.get('/refused', {
      websocket: true, preHandler: async (_, reply) => await reply.code(418).send('no')
    }, scope.wsHandler({ onMessage () {} }))
    scope.get('/late', {
      websocket: true, preHandler: async (_, reply) => await setImmediate().then(async () => await reply.code(418).send('no'))
    }, scope.wsHandler({ onMessage () {} }))
  }, { prefix: '/v1' })
  const url = await listen()
  for (const [path, status] of [['/nowhere', 404], ['/v1/nowhere', 404], ['/v1/refused', 418], ['/v1/late', 418]] as const) {
    t.equal((await upgradeStatus(url + path)).statusCode, status)
  }
  machine.restart()
  const started = performance.now()
  await app.close()
  machine.within(t, performance.now() - started, 2_000, 'done')
})

t.test('a plain GET of a websocket route is a 404, as @fastify/websocket has it', async t => {
  const { app } = await service(t)
  app.wsRoom('/ws/:room', { auth: false })
  t.equal((await app.inject('/ws/x')).statusCode, 404)
  t.equal((await app.inject({ method: 'HEAD', url: '/ws/x' })).statusCode, 404)
})

t.test('injectWS of @fastify/websocket works without a port', async t => {
  const { app } = await service(t)
  app.get('/ws', { websocket: true }, app.wsHandler({ onMessage: (connection, data) => connection.send(data) }))
  await app.ready()
  const socket = await app.injectWS('/ws')
  const answer = new Promise(resolve => socket.once('message', (data: Buffer) => resolve(data.toString())))
  socket.send('hi')
  t.equal(await answer, 'hi')
  socket.terminate()
})
