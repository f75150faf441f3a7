import Fastify, { type FastifyRequest } from 'fastify'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import { Type } from 'typebox'
import { expect, test } from 'tstyche'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import { z } from 'zod'
import { connect, type MessageClient } from '../../lib/client/messages.ts'
import type { AnyMessages, BroadcastResult, Connection, ContractOf, Identity, Messages, StandardSchema } from '../../plugin.ts'

const app = Fastify().withTypeProvider<TypeBoxTypeProvider>()
const text = Type.Object({ text: Type.String() })
declare const toDate: StandardSchema<string, Date>

type ContractIn<Set> = Set extends Messages<infer D, infer R, infer E, infer P> ? ContractOf<D, R, E, P> : never

test('data, reply and events have the types of their schemas', () => {
  const chat = app.wsMessages({
    events: { said: Type.Object({ text: Type.String(), from: Type.String() }), at: toDate, frame: 'binary' },
    messages: {
      say: {
        data: text,
        reply: Type.Object({ position: Type.String() }),
        limit: { perSecond: 5 },
        preHandler: ({ data }) => expect(data).type.toBe<{ text: string }>(),
        authorize (identity, { data }) {
          expect(data).type.toBe<unknown>()
          return identity !== null
        },
        async handler ({ name, data, connection, userId = '', group, request, emit }) {
          expect(data).type.toBe<{ text: string }>()
          expect(name).type.toBe<string>()
          expect(connection).type.toBe<Connection>()
          expect(group).type.toBe<string>()
          expect(request).type.toBe<FastifyRequest>()
          expect(emit).type.not.toBeCallableWith('said', { text: 'no sender' })
          expect(emit).type.not.toBeCallableWith('unheard', {})
          const result = await emit('said', { text: data.text, from: userId })
          expect(result).type.toBe<BroadcastResult>()
          return { position: result.position ?? '' }
        }
      },
      upload: { data: 'binary', reply: 'binary', handler: ({ data }) => { expect(data).type.toBe<Buffer>(); return data } },
      at: { data: toDate, handler: ({ data }) => expect(data).type.toBe<Date>() },
      anything: { handler ({ data }) { expect(data).type.toBe<unknown>() } }
    }
  })
  expect(chat.emit).type.toBeCallableWith('group', 'said', { text: 'a', from: 'b' })
  expect(chat.emit).type.toBeCallableWith(['a', 'b'], 'at', '2026-01-01', { volatile: true })
  expect(chat.emit).type.toBeCallableWith('group', 'frame', new Uint8Array())
  expect(chat.emit).type.not.toBeCallableWith('group', 'said', { text: 1, from: 'b' })
  expect(chat.emitToUser).type.toBeCallableWith('ann', 'said', { text: 'a', from: 'b' })

  expect<ContractIn<typeof chat>['messages']['say']>().type.toBe<{
    readonly data: { text: string }, readonly reply: { position: string }
  }>()
  expect<ContractIn<typeof chat>['messages']['at']>().type.toBe<{ readonly data: string, readonly reply: undefined }>()
  expect<ContractIn<typeof chat>['messages']['upload']['data']>().type.toBe<Uint8Array>()
  expect<ContractIn<typeof chat>['events']['at']>().type.toBe<Date>()
  expect(chat).type.toBeAssignableTo<AnyMessages>()
  app.wsRoom('/:room', { messages: chat })
  app.get(
    '/', { websocket: true }, app.wsHandler({ messages: chat, onConnect (connection) { expect(connection).type.toBe<Connection>() } })
  )
})

test('with auth, whoever sends a message is known', () => {
  app.wsMessages({
    auth: true,
    events: { said: text },
    messages: {
      say: {
        data: text,
        authorize: identity => expect(identity).type.toBe<Identity>() === undefined,
        async handler ({ connection, emitToUser }) {
          expect(connection.identity).type.toBe<Identity>()
          expect(await emitToUser('ann', 'said', { text: 'a' })).type.toBe<BroadcastResult>()
          expect(emitToUser).type.not.toBeCallableWith('ann', 'said', { text: 1 })
        }
      }
    }
  })
  app.wsMessages({ messages: { say: { handler ({ connection }) { expect(connection.identity).type.toBe<Identity | null>() } } } })
})

test('with the type provider of Zod handlers get what a schema lets through, and clients send what it takes', () => {
  const chat = app.withTypeProvider<ZodTypeProvider>().wsMessages({
    messages: {
      add: {
        data: z.object({ n: z.string().transform(Number) }),
        reply: z.object({ sum: z.number() }),
        handler ({ data }) {
          expect(data).type.toBe<{ n: number }>()
          return { sum: data.n }
        }
      }
    },
    events: { summed: z.object({ sum: z.number() }) }
  })
  expect(chat.emit).type.toBeCallableWith('group', 'summed', { sum: 1 })
  expect(chat.emit).type.not.toBeCallableWith('group', 'summed', { sum: 'one' })
  expect<ContractIn<typeof chat>['messages']['add']>().type.toBe<{ readonly data: { n: string }, readonly reply: { sum: number } }>()
})

test('a handler must return what its reply says, and nothing where there is no reply', () => {
  expect(app.wsMessages).type.not.toBeCallableWith({ messages: { a: { reply: Type.String(), handler: () => 1 } } })
  app.wsMessages({ messages: { a: { reply: Type.String(), handler: async () => 'yes' }, b: { handler: () => 1 } } })
})

test('a route takes onMessage or messages', () => {
  const set = app.wsMessages({ messages: { a: { handler () {} } } })
  expect(app.wsHandler).type.not.toBeCallableWith({ messages: set, onMessage () {} })
  expect(app.wsHandler).type.not.toBeCallableWith({})
})

test('the client has the types of the server, from its typeof alone', async () => {
  const chat = app.wsMessages({
    events: { said: text, frame: 'binary' },
    messages: {
      say: { data: text, reply: Type.Object({ position: Type.String() }), handler: () => ({ position: '' }) },
      note: { handler () {} }
    }
  })
  app.wsRoom('/ws/:room', { messages: chat })
  const client = connect<typeof chat>('/ws/lobby')
  expect(await client.request('say', { text: 'a' })).type.toBe<{ position: string }>()
  expect(await client.request('note')).type.toBe<undefined>()
  expect(client.request).type.toBeCallableWith('say', { text: 'a' }, { timeoutMs: 5, idempotent: true })
  expect(client.request).type.not.toBeCallableWith('say')
  expect(client.request).type.not.toBeCallableWith('say', { text: 1 })
  expect(client.request).type.not.toBeCallableWith('unheard', {})
  expect(client.emit).type.toBeCallableWith('note')
  client.on('said', (data, info) => {
    expect(data).type.toBe<{ text: string }>()
    expect(info.group).type.toBe<string | undefined>()
  })
  client.group('a').on('frame', data => expect(data).type.toBe<Buffer>())
  expect(client.on).type.not.toBeCallableWith('unsaid', () => {})
  const { events: [past] } = await client.history('lobby', { limit: 5 })
  if (past?.name === 'said') expect(past.data).type.toBe<{ text: string }>()
  expect(past?.name).type.toBe<'said' | 'frame' | undefined>()
  const untyped: MessageClient = connect('/ws/lobby')
  expect(untyped.request).type.toBeCallableWith('anything', { any: 'data' })
  expect(await untyped.request('anything')).type.toBe<unknown>()
})

test('questions have the types of their schemas, on both sides', async () => {
  const polls = app.wsMessages({
    messages: {},
    questions: { ready: { data: Type.String(), reply: Type.Boolean() }, ping: {} }
  })
  const { replies, missing } = await polls.ask('team', 'ready', 'now?', { timeoutMs: 100 })
  expect(replies[0]?.data).type.toBe<boolean | undefined>()
  expect(missing).type.toBe<readonly string[]>()
  expect(polls.ask).type.not.toBeCallableWith('team', 'ready', 5)
  expect(polls.ask).type.toBeCallableWith({ userId: 'ann' }, 'ping', undefined)
  const client = connect<typeof polls>('/ws/team')
  client.answer('ready', question => {
    expect(question).type.toBe<string>()
    return true
  })
  expect(client.answer).type.not.toBeCallableWith('ready', () => 'yes')
})
