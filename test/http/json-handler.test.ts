import t from 'tap'
import { WebSocket } from 'ws'
import { connect as connectClient } from '../../lib/client/index.ts'
import { connect } from '../helpers/client.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { bareService, serve } from '../helpers/service.ts'
import websocketGroups from '../../plugin.ts'

noUnhandled(t)

t.test('a handler that asks for JSON gets values, of clients of both kinds; what is none is an answer', async t => {
  const got: unknown[] = []
  const { url } = await serve(t, {}, app => app.get('/', { websocket: true }, app.wsHandler({
    json: true,
    async onMessage (connection, value) {
      got.push(value)
      await connection.sendJson({ echo: value })
    }
  })))
  const raw = connect(t, url)
  await raw.opened
  for (const text of ['{"a":[1,null]}', 'no JSON', '"text"', '[', `${'['.repeat(2_000)}${']'.repeat(2_000)}`, '7']) raw.send(text)
  raw.send(Buffer.from('{}'))
  raw.send('true')
  t.strictSame([await raw.next(), await raw.next(), await raw.next(), await raw.next()], [
    '{"echo":{"a":[1,null]}}', '{"echo":"text"}', '{"echo":7}', '{"echo":true}'
  ], 'a raw client stays, and what it said is passed over')

  const client = connectClient(url, { WebSocket })
  t.teardown(() => client.close())
  got.length = 0
  await client.send({ json: { b: 2 } })
  await client.send('{"c":3}')
  t.strictSame(got, [{ b: 2 }, { c: 3 }])
  for (const data of ['no JSON', new Uint8Array([1]), `${'['.repeat(2_000)}${']'.repeat(2_000)}`]) {
    await t.rejects(client.send(data), { code: 'WSG_MESSAGE_INVALID' })
  }
  t.equal(client.state, 'open')
})

t.test('json and messages exclude each other, and json is a boolean', async t => {
  const { app } = bareService(t)
  await app.register(websocketGroups)
  const messages = app.wsMessages({ messages: {} })
  const message = /wsHandler\.json is for `onMessage`/
  t.throws(() => app.wsHandler({ json: true, messages } as never), { code: 'WSG_OPTION_INVALID', message })
  t.throws(() => app.wsHandler({ json: 'yes', onMessage () {} } as never), { code: 'WSG_OPTION_INVALID', message: /wsHandler\.json/ })
})

t.test('the option group of a room may return a number', async t => {
  const { app, url } = await serve(t, {}, app => app.wsRoom('/:org/:room', {
    auth: false,
    schema: { params: { type: 'object', properties: { room: { type: 'integer' } } } } as const,
    group: ({ room }) => room,
    onJoin: (connection, group) => connection.send(`${typeof group} ${group}`)
  }))
  const client = connect(t, `${url}/x/42`)
  t.equal(await client.next(), 'string 42')
  t.equal(await app.registry.groupCount('42'), 1)
})
