import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { Cluster, Redis as IoRedis } from 'ioredis'
import { Type } from 'typebox'
import { describe, expect, test } from 'tstyche'
import type { Member as ClientMember } from '../../lib/client/index.ts'
import websocketGroups, {
  type AnyConnection, type Connection, type DefaultIdentity, type Identity, type Json, type Member, type PathParams,
  type PublisherOptions, type Registry, type RoomOptions, type WebsocketGroupsOptions
} from '../../plugin.ts'

interface User { readonly id: string, readonly admin: boolean }
declare const user: User
const app = Fastify()

test('register takes the options, all of them optional', () => {
  void app.register(websocketGroups)
  void app.register(websocketGroups, { redis: 'redis://localhost', options: { maxPayload: 1024 }, outage: { join: 'reject' } })
  void app.register(websocketGroups, { redis: { host: 'localhost' }, rooms: { '/ws/:room': true, '/ws/open/:room': { auth: false } } })
  expect<WebsocketGroupsOptions>().type.not.toBeAssignableFrom({ redis: 6379 })
  expect<WebsocketGroupsOptions>().type.not.toBeAssignableFrom({ outage: { join: 'queue' } })
  expect<WebsocketGroupsOptions>().type.not.toBeAssignableFrom({ shutdownCode: 1000 })
  expect<WebsocketGroupsOptions>().type.not.toBeAssignableFrom({ rooms: { '/:room': 7 } })
  expect<WebsocketGroupsOptions>().type.not.toBeAssignableFrom({ rooms: { '/:room': { onMesage () {} } } })
})

test('redis takes clients and options of another copy of ioredis, which has types of its own', () => {
  abstract class Connector { protected readonly connecting = false }
  class Redis {
    declare private readonly own: true
    readonly options: { readonly host?: string, readonly Connector?: Connector } = {}
    duplicate (override?: { readonly host?: string }): Redis { return override === undefined ? this : new Redis() }
    defineCommand (name: string, definition: { readonly lua: string }): void {}
  }
  expect<WebsocketGroupsOptions>().type.toBeAssignableFrom({ redis: new Redis() })
  expect<WebsocketGroupsOptions>().type.toBeAssignableFrom({ redis: new Redis().options })
  expect<PublisherOptions>().type.toBeAssignableFrom({ redis: new Redis() })
  expect<WebsocketGroupsOptions>().type.toBeAssignableFrom({ redis: {} as IoRedis })
  expect<WebsocketGroupsOptions>().type.toBeAssignableFrom({ redis: {} as Cluster })
  expect<WebsocketGroupsOptions>().type.not.toBeAssignableFrom({ redis: { hots: 'localhost' } })
  expect<WebsocketGroupsOptions>().type.not.toBeAssignableFrom({ redis: new Date() })
})

test('without Register, what members show of themselves is any JSON, and unknown to clients', () => {
  expect<Member['info']>().type.toBe<Json | undefined>()
  expect<ClientMember['info']>().type.toBe<unknown>()
  expect<WebsocketGroupsOptions>().type.toBeAssignableFrom({ memberInfo: () => 'a name' })
  expect<WebsocketGroupsOptions>().type.not.toBeAssignableFrom({ memberInfo: () => new Date() })
})

test('without Register, an identity has the fields that the plugin understands', () => {
  expect<Identity>().type.toBe<DefaultIdentity>()
  expect<FastifyRequest['identity']>().type.toBe<DefaultIdentity | null>()
})

describe('wsHandler', () => {
  test('without a declaration, params are strings by name', () => {
    app.get('/a/:room', { websocket: true }, app.wsHandler({
      onConnect (connection, request) {
        expect(connection.params).type.toBe<Record<string, string>>()
        expect(request.params).type.toBe<Record<string, string>>()
        expect(connection.identity).type.toBe<DefaultIdentity | null>()
      },
      onMessage (connection, data) {
        expect(connection.params).type.toBe<Record<string, string>>()
        expect(data).type.toBe<string | Buffer>()
      },
      onDisconnect (connection, closed) {
        expect(connection.params).type.toBe<Record<string, string>>()
        expect(closed).type.toBe<{ readonly code: number, readonly reason: string }>()
      },
      onError (connection, error) {
        expect(connection.params).type.toBe<Record<string, string>>()
        expect(error).type.toBe<Error>()
        return true
      }
    }))
  })

  test('params are those of the route', () => {
    app.get<{ Params: { room: string } }>('/b/:room', { websocket: true, preHandler: app.wsAuth() }, app.wsHandler({
      onConnect (connection, request) {
        expect(connection.params).type.toBe<{ room: string }>()
        expect(request.params).type.toBe<{ room: string }>()
      },
      async onMessage (connection) {
        expect(connection.params).type.toBe<{ room: string }>()
        await app.registry.broadcastToGroup(connection.params.room, 'hi', { except: connection })
      }
    }))
  })

  test('params are those of the full route declaration', () => {
    app.route<{ Params: { room: string } }>({
      method: 'GET',
      url: '/c/:room',
      websocket: true,
      preHandler: [app.wsAuth()],
      handler: app.wsHandler({
        onMessage (connection) {
          expect(connection.params).type.toBe<{ room: string }>()
        }
      })
    })
  })

  test('params are those of a TypeBox schema', () => {
    const typed = app.withTypeProvider<TypeBoxTypeProvider>()
    const schema = { params: Type.Object({ room: Type.String(), page: Type.Integer() }) }
    typed.get('/d/:room/:page', { websocket: true, schema, preHandler: typed.wsAuth() }, typed.wsHandler({
      onConnect (connection, request) {
        expect(connection.params).type.toBe<{ room: string, page: number }>()
        expect(request.params).type.toBe<{ room: string, page: number }>()
      },
      onMessage (connection) {
        expect(connection.params).type.toBe<{ room: string, page: number }>()
      }
    }))
  })

  test('params and identity can be said', () => {
    app.get('/e/:room', { websocket: true }, app.wsHandler<{ room: string }, User>({
      onMessage (connection) {
        expect(connection.params).type.toBe<{ room: string }>()
        expect(connection.identity).type.toBe<User>()
      }
    }))
    app.get('/f/:room', { websocket: true }, app.wsHandler({
      onMessage (connection: Connection<{ room: string }, User>) {
        expect(connection.params).type.toBe<{ room: string }>()
      }
    }))
  })

  test('onMessage is required, other callbacks are known by name', () => {
    expect(app.wsHandler).type.not.toBeCallableWith({})
    expect(app.wsHandler).type.not.toBeCallableWith({ onMessage () {}, onOpen () {} })
  })

  test('is a handler for websocket routes only', () => {
    const handler = app.wsHandler({ onMessage () {} })
    expect(app.get).type.toBeCallableWith('/g', { websocket: true as const }, handler)
    expect(app.get).type.not.toBeCallableWith('/h', handler)
  })
})

describe('wsAuth', () => {
  test('fits any route, also a plain one with a type provider', () => {
    const typed = app.withTypeProvider<TypeBoxTypeProvider>()
    app.post('/plain', { preHandler: app.wsAuth({ required: false }) }, async (request, reply) => {
      expect(request.identity).type.toBe<DefaultIdentity | null>()
      expect(reply).type.toBe<FastifyReply>()
    })
    app.post<{ Params: { room: string }, Body: { text: string } }>(
      '/plain/:room', { preHandler: [app.wsAuth()] }, async request => request.params.room
    )
    typed.post('/typed/:id', { schema: { params: Type.Object({ id: Type.Integer() }) }, preHandler: typed.wsAuth() }, async request => {
      expect(request.params).type.toBe<{ id: number }>()
    })
  })

  test('authorize gets what the authenticate beside it returns', () => {
    app.wsAuth({
      authenticate: async () => user,
      authorize (identity) {
        expect(identity).type.toBe<User>()
        return identity.admin
      }
    })
    app.wsAuth({
      authorize (identity) {
        expect(identity).type.toBe<DefaultIdentity>()
        return true
      }
    })
  })
})

describe('wsRoom', () => {
  test('infers params from the path', () => {
    app.wsRoom('/ws/chat/:room')
    app.wsRoom('/ws/:org/chat/:room', {
      group (params) {
        expect(params).type.toBe<{ readonly org: string, readonly room: string }>()
        return `${params.org}/${params.room}`
      },
      onJoin (connection, group, request) {
        expect(connection.params).type.toBe<{ readonly org: string, readonly room: string }>()
        expect(request.params).type.toBe<{ readonly org: string, readonly room: string }>()
        expect(group).type.toBe<string>()
      }
    })
    expect<PathParams<'/:a-:b/:c.json/:d(^\\d+$)/:e?'>>().type
      .toBe<{ readonly a: string, readonly b: string, readonly c: string, readonly d: string, readonly e: string }>()
    expect<PathParams<'/a::b/:id(^(?:x|y)$)-:c'>>().type.toBe<{ readonly id: string, readonly c: string }>()
    expect<PathParams<'/none'>>().type.toBe<{}>()
    expect<PathParams<string>>().type.toBe<Record<string, string>>()
  })

  test('params have the types that the schema says, JSON or TypeBox', () => {
    app.wsRoom('/ws/:page', {
      schema: { params: { type: 'object', properties: { page: { type: 'integer' }, org: { type: 'string' }, open: { type: 'boolean' } } } },
      group ({ page, org }) { return `${org}/${page}` },
      auth: { authorize: (_identity, { params: { page } }) => page > 0 },
      onJoin ({ params }) { expect(params).type.toBe<{ readonly page: number, readonly org: string, readonly open: boolean }>() }
    })
    app.wsRoom('/ws/:page/:kind', {
      schema: { params: Type.Object({ page: Type.Integer() }) },
      onJoin ({ params }) { expect(params).type.toBe<{ readonly page: number, readonly kind: string }>() }
    })
  })

  test('with json a message is a value', () => {
    app.wsRoom('/ws/:room', { onMessage (_, data, group) { expect([data, group]).type.toBe<Array<string | Buffer>>() } })
    app.wsRoom('/ws/:room', { json: false, onMessage (_, data) { expect(data).type.toBe<string | Buffer>() } })
    app.wsRoom('/ws/:room', {
      json: true,
      onMessage ({ params }, value) { expect([params.room, value]).type.toBe<unknown[]>() }
    })
    void app.register(websocketGroups, {
      rooms: {
        '/ws/:room': { json: true, onMessage (_, value) { expect(value).type.toBe<unknown>() } },
        '/other/:room': { onMessage (_, data) { expect(data).type.toBe<string | Buffer>() } }
      }
    })
  })

  test('the identity follows the auth of the room', () => {
    app.wsRoom('/1/:room', { onJoin ({ identity }) { expect(identity).type.toBe<DefaultIdentity | null>() } })
    app.wsRoom('/2/:room', { auth: true, onJoin ({ identity }) { expect(identity).type.toBe<DefaultIdentity>() } })
    app.wsRoom('/3/:room', { auth: false, onJoin ({ identity }) { expect(identity).type.toBe<null>() } })
    app.wsRoom('/4/:room', {
      auth: { authenticate: async () => user, authorize: identity => identity.admin },
      group: (params, identity) => `${identity.id}:${params.room}`,
      onJoin ({ identity }) { expect(identity).type.toBe<User>() },
      onMessage ({ identity }) { expect(identity).type.toBe<User>() },
      onLeave ({ identity }) { expect(identity).type.toBe<User>() },
      onError ({ identity }) {
        expect(identity).type.toBe<User>()
        return true
      }
    })
    app.wsRoom('/5/:room', {
      auth: { authenticate: async token => ({ token }), required: false },
      onJoin ({ identity }) { expect(identity).type.toBe<{ token: string } | null>() }
    })
    app.wsRoom('/6/:room', { auth: { cookie: 'sid' }, onJoin ({ identity }) { expect(identity).type.toBe<DefaultIdentity>() } })
    app.wsRoom('/7/:room', { auth: { required: false }, onJoin ({ identity }) { expect(identity).type.toBe<DefaultIdentity | null>() } })
    expect<RoomOptions>().type.toBeAssignableFrom({ auth: { cookie: 'sid' }, onJoin (connection: Connection) { connection.send('hi') } })
  })
})

describe('registry', () => {
  test('takes a connection of any route, or an id', () => {
    const registry: Registry = app.registry
    const typed = {} as Connection<{ room: string, page: number }, User>
    expect(typed).type.toBeAssignableTo<AnyConnection>()
    expect({} as Connection).type.toBeAssignableTo<AnyConnection>()
    expect({} as Connection<{}, null>).type.toBeAssignableTo<AnyConnection>()
    void registry.join(typed, 'a')
    void registry.leaveAll('id')
    void registry.disconnect(typed)
    void registry.disconnect({ userId: 'u' }, { code: 4000 })
    void registry.broadcastToGroup(['a', 'b'], new Uint8Array(), { except: [typed, 'id'] })
    expect(registry.join).type.not.toBeCallableWith({ id: 'x' }, 'a')
  })

  test('members are a list with an age', async () => {
    const members = await app.registry.members('a')
    expect(members[0]).type.toBe<Member | undefined>()
    expect(members.ageMs).type.toBe<number>()
  })
})
