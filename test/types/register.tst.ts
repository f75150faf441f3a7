import Fastify, { type FastifyRequest } from 'fastify'
import { expect, test } from 'tstyche'
import { connect } from '../../lib/client/index.ts'
import websocketGroups, { type Connection, type Identity, type Member, type WebsocketGroupsOptions } from '../../plugin.ts'

interface Info { readonly name: string, readonly avatar?: string }
interface User { readonly id: string, readonly admin: boolean }

declare module '../../plugin.ts' {
  interface Register {
    identity: User
    memberInfo: Info
    events: { config: { readonly version: number } }
    state: { messages?: number }
  }
}

declare module '../../lib/client/index.ts' {
  interface Register { memberInfo: Info }
}

declare const user: User
const app = Fastify()

test('an augmented Register is the identity everywhere', () => {
  expect<Identity>().type.toBe<User>()
  expect<FastifyRequest['identity']>().type.toBe<User | null>()
  expect<Connection['identity']>().type.toBe<User | null>()
  void app.register(websocketGroups, {
    authenticate: async () => user,
    userId: identity => identity.id,
    memberInfo: ({ identity }) => identity === null ? undefined : { name: identity.id }
  })
  app.wsAuth({ authorize: identity => identity.admin })
  app.wsRoom('/:room', { auth: true, onJoin ({ identity }) { expect(identity).type.toBe<User>() } })
  app.get('/a', { websocket: true }, app.wsHandler({ onMessage ({ identity }) { expect(identity).type.toBe<User | null>() } }))
})

test('what members show of themselves is what Register says, on both sides', async () => {
  expect<Member['info']>().type.toBe<Info | undefined>()
  const [member] = await app.registry.members('g')
  expect(member?.info?.name).type.toBe<string | undefined>()
  expect<WebsocketGroupsOptions>().type.not.toBeAssignableFrom({ memberInfo: () => 'a name' })
  const client = connect('ws://localhost')
  expect(client.members('g')[0]?.info).type.toBe<Info | undefined>()
  client.on('presence', ({ member }) => expect(member.info).type.toBe<Info | undefined>())
})

test('authenticate must return what Register says', () => {
  expect<NonNullable<Parameters<typeof websocketGroups>[1]['authenticate']>>().type.not.toBeAssignableFrom(
    async () => ({ name: 'no user' })
  )
})

test('what instances say to each other, and what a service keeps with a connection, is what Register says', () => {
  const { instances } = app.registry
  instances.on('config', ({ version }) => expect(version).type.toBe<number>())
  expect(instances.on).type.not.toBeCallableWith('other', () => {})
  expect(instances.emit).type.toBeCallableWith('config', { version: 1 })
  expect(instances.emit).type.not.toBeCallableWith('config', { version: 'one' })
  expect(instances.emit).type.not.toBeCallableWith('other', { version: 1 })
  expect(instances.ask).type.toBeCallableWith('config', { version: 1 }, { timeoutMs: 100 })
  expect(instances.ask).type.not.toBeCallableWith('config', {})
  expect<Connection['state']>().type.toBe<{ messages?: number }>()
})
