import Fastify, { type FastifyRequest } from 'fastify'
import { expect, test } from 'tstyche'
import websocketGroups, { type Connection, type Identity } from '../../plugin.ts'

interface User { readonly id: string, readonly admin: boolean }

declare module '../../plugin.ts' {
  interface Register { identity: User }
}

declare const user: User
const app = Fastify()

test('an augmented Register is the identity everywhere', () => {
  expect<Identity>().type.toBe<User>()
  expect<FastifyRequest['identity']>().type.toBe<User | null>()
  expect<Connection['identity']>().type.toBe<User | null>()
  void app.register(websocketGroups, { authenticate: async () => user, userId: identity => identity.id, memberInfo: connection => connection.identity?.id })
  app.wsAuth({ authorize: identity => identity.admin })
  app.wsRoom('/:room', { auth: true, onJoin ({ identity }) { expect(identity).type.toBe<User>() } })
  app.get('/a', { websocket: true }, app.wsHandler({ onMessage ({ identity }) { expect(identity).type.toBe<User | null>() } }))
})

test('authenticate must return what Register says', () => {
  expect<NonNullable<Parameters<typeof websocketGroups>[1]['authenticate']>>().type.not.toBeAssignableFrom(async () => ({ name: 'no user' }))
})
