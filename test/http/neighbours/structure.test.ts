// Plugins that shape a service: how it is put together, documented, proxied, traced and closed.
import t, { type Test } from 'tap'
import autoload from '@fastify/autoload'
import httpProxy from '@fastify/http-proxy'
import { fastifyRequestContext, requestContext } from '@fastify/request-context'
import fastifyStatic from '@fastify/static'
import swagger from '@fastify/swagger'
import type { FastifyInstance } from 'fastify'
import mercurius, { type MercuriusContext as Context } from 'mercurius'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WebSocket } from 'ws'
import websocketGroups from '../../../plugin.ts'
import { childEnvironment, nodeArguments } from '../../helpers/child.ts'
import { connect, upgradeStatus } from '../../helpers/client.ts'
import { bareService, service } from '../../helpers/service.ts'
import { until } from '../../helpers/until.ts'

declare module '@fastify/request-context' {
  interface RequestContextData { tenant: string }
}

const group = ({ room = '' }: Readonly<Record<string, string>>): string => `chat:${room}`

t.test('@fastify/autoload: a folder whose prefix has a parameter names rooms by it', async t => {
  const routes = t.testdir()
  const folder = join(routes, 'orgs', '_org', 'rooms')
  await mkdir(folder, { recursive: true })
  await writeFile(join(folder, 'index.mjs'), `export default async app => {
    app.wsRoom('/:room', { auth: false, group: ({ org, room }) => org + ':' + room })
  }`)
  const { app, listen } = await service(t)
  await app.register(autoload, { dir: routes, routeParams: true, forceESM: true })
  const url = await listen()
  const client = connect(t, `${url}/orgs/acme/rooms/lobby`)
  await client.opened
  await until(async () => await app.registry.groupCount('acme:lobby') === 1)
})

t.test('@fastify/request-context: the store of the upgrade request is there in every callback', async t => {
  const { app, listen } = await service(t)
  const seen: Array<string | undefined> = []
  const look = (): void => { seen.push(requestContext.get('tenant')) }
  await app.register(fastifyRequestContext)
  app.addHook('onRequest', async request => { requestContext.set('tenant', String(request.headers['x-tenant'])) })
  app.get('/ws', { websocket: true }, app.wsHandler({ onConnect: look, onMessage: look, onDisconnect: look }))
  const url = await listen()
  const clients = ['acme', 'other'].map(tenant => connect(t, `${url}/ws`, { headers: { 'x-tenant': tenant } }))
  for (const client of clients) await client.opened
  await until(() => seen.length === 2)
  for (const client of clients) client.send('hi')
  await until(() => seen.length === 4)
  for (const client of clients) await client.close()
  await until(() => seen.length === 6)
  t.strictSame(seen.sort(), ['acme', 'acme', 'acme', 'other', 'other', 'other'])
})

t.test('@fastify/swagger: documents the other routes and leaves out those with websocket: true, as OpenAPI has no sockets', async t => {
  const { app, listen } = await service(t)
  await app.register(swagger)
  await app.register(async scope => {
    scope.get('/health', async () => 'ok')
    scope.wsRoom('/ws/:room', { auth: false, group, schema: { params: { type: 'object', properties: { room: { type: 'string' } } } } })
  })
  const url = await listen()
  t.strictSame(Object.keys((app.swagger() as { readonly paths: object }).paths), ['/health'])
  await connect(t, `${url}/ws/lobby`).opened
})

t.test('@fastify/static with a wildcard beside rooms: files are served, rooms open, an upgrade to a file is refused', async t => {
  const root = t.testdir({ 'index.html': '<h1>hello</h1>' })
  const { app, listen } = await service(t)
  await app.register(fastifyStatic, { root })
  app.wsRoom('/ws/:room', { auth: false, group })
  const url = await listen()
  t.equal(await (await fetch(`${url}/index.html`)).text(), '<h1>hello</h1>')
  await connect(t, `${url}/ws/lobby`).opened
  t.equal((await upgradeStatus(`${url}/index.html`)).statusCode, 404)
})

/** An echo that has nothing to do with the plugin. */
async function upstream (t: Test): Promise<string> {
  const { app, listen } = await service(t)
  app.get('/echo', { websocket: true }, socket => { socket.on('message', (data: Buffer) => socket.send(`echo ${data.toString()}`)) })
  app.get('/hello', async () => 'hello')
  return await listen()
}

// The other way round @fastify/websocket answers the proxy's upgrades first, with or without this plugin: see docs/neighbours.md.
t.test('@fastify/http-proxy with websocket: true, registered before: its sockets and ours', async t => {
  const target = await upstream(t)
  const { app, listen } = bareService(t)
  await app.register(httpProxy, { upstream: target, prefix: '/api', websocket: true, wsUpstream: target.replace('http', 'ws') })
  await app.register(websocketGroups, {})
  app.wsRoom('/ws/:room', { auth: false, group })
  const url = await listen()
  t.equal(await (await fetch(`${url}/api/hello`)).text(), 'hello')
  const proxied = connect(t, `${url}/api/echo`)
  await proxied.opened
  proxied.send('hi')
  t.equal(await proxied.next(), 'echo hi')
  const own = connect(t, `${url}/ws/lobby`)
  await own.opened
  await until(async () => await app.registry.groupCount('chat:lobby') === 1)
  own.send('hi')
  t.equal(await own.next(), 'hi')
  await Promise.all([proxied.close(), own.close()])
})

for (const order of ['before', 'after'] as const) {
  t.test(`mercurius with subscriptions, registered ${order}: its sockets and ours`, async t => {
    const { app, listen } = bareService(t)
    const graphql = async (): Promise<unknown> => await app.register(mercurius, {
      schema: 'type Query { hello: String } type Subscription { said: String }',
      resolvers: {
        Query: { hello: () => 'world' },
        Subscription: { said: { subscribe: async (_root: unknown, _args: unknown, { pubsub }: Context) => await pubsub.subscribe('said') } }
      },
      subscription: true
    })
    if (order === 'before') await graphql()
    await app.register(websocketGroups, {})
    if (order === 'after') await graphql()
    await app.register(async scope => { scope.wsRoom('/ws/:room', { auth: false, group }) })
    const url = await listen()
    const own = connect(t, `${url}/ws/lobby`)
    await own.opened
    const socket = new WebSocket(`${url.replace('http', 'ws')}/graphql`, 'graphql-transport-ws')
    t.teardown(() => socket.terminate())
    await once(socket, 'open')
    const received = async (): Promise<unknown> => JSON.parse(String((await once(socket, 'message'))[0]))
    socket.send(JSON.stringify({ type: 'connection_init' }))
    t.match(await received(), { type: 'connection_ack' })
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: 'subscription { said }' } }))
    const said = received()
    await until(async () => {
      await (app as FastifyInstance & { readonly graphql: { readonly pubsub: { publish (event: object): void } } })
        .graphql.pubsub.publish({ topic: 'said', payload: { said: 'hi' } })
      return await Promise.race([said.then(() => true), new Promise(resolve => setTimeout(resolve, 20, false))]) === true
    })
    t.match(await said, { payload: { data: { said: 'hi' } } })
    own.send('hi')
    t.equal(await own.next(), 'hi')
  })
}

t.test('close-with-grace: a signal closes the sockets with 1001, runs every onDisconnect, and ends the process with 0', async t => {
  const program = fileURLToPath(new URL('./close-with-grace.ts', import.meta.url))
  const child = spawn(process.execPath, [...nodeArguments, program], { env: childEnvironment(), stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => { output += chunk.toString() })
  await until(() => output.includes('\n'), { timeoutMs: 30_000 })
  const clients = Array.from({ length: 5 }, () => connect(t, `${output.trim()}/ws/lobby`))
  for (const client of clients) t.equal(await client.next(), 'joined')
  child.kill('SIGTERM')
  const [code] = await once(child, 'exit') as [number]
  t.equal(code, 0)
  for (const client of clients) t.equal((await client.closed).code, 1001)
  t.equal(output.split('\n').filter(line => line === 'left').length, 5)
})
