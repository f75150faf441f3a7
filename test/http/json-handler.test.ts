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
  for (const data of ['no JSON', '{"a":{"__proto__":{}}}', new Uint8Array([1]), `${'['.repeat(2_000)}${']'.repeat(2_000)}`]) {
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
  const ofRooms = /wsRoom\('\/:room'\)\.json is for `onMessage`/
  t.throws(() => app.wsRoom('/:room', { auth: false, json: true, messages } as never), { code: 'WSG_OPTION_INVALID', message: ofRooms })
  t.throws(() => app.wsHandler({ json: 'yes', onMessage () {} } as never), { code: 'WSG_OPTION_INVALID', message: /wsHandler\.json/ })
})

t.test('a room that asks for JSON hands values to onMessage, or relays them', async t => {
  const got: unknown[] = []
  const { app, url } = await serve(t, {
    rooms: {
      '/option/:room': {
        auth: false,
        group: ({ room }) => `option:${room}`,
        json: true,
        onMessage: (connection, value, group) => connection.sendJson({ group, value })
      }
    }
  }, app => {
    app.wsRoom('/told/:room', {
      auth: false,
      group: ({ room }) => `told:${room}`,
      json: true,
      onMessage (connection, value, group) {
        got.push(value)
        return app.registry.broadcastJson(group, { value })
      }
    })
    app.wsRoom('/relayed/:room', { auth: false, group: ({ room }) => `relayed:${room}`, json: true })
  })
  const [told, relayed, option] = ['told', 'relayed', 'option'].map(kind => connect(t, `${url}/${kind}/x`))
  for (const client of [told, relayed, option]) {
    await client?.opened
    for (const text of ['no JSON', ' { "a" : 1 } ', 'null']) client?.send(text)
    client?.send(Buffer.from('{}'))
    client?.send('[]')
  }
  t.strictSame([await told?.next(), await told?.next(), await told?.next()], ['{"value":{"a":1}}', '{"value":null}', '{"value":[]}'])
  t.strictSame(got, [{ a: 1 }, null, []])
  t.strictSame([await relayed?.next(), await relayed?.next(), await relayed?.next()], ['{"a":1}', 'null', '[]'], 'JSON alone is relayed')
  t.equal(await option?.next(), '{"group":"option:x","value":{"a":1}}')

  const client = connectClient(`${url}/relayed/x`, { WebSocket })
  t.teardown(() => client.close())
  await t.rejects(client.send('no JSON'), { code: 'WSG_MESSAGE_INVALID' })
  t.type((await client.send({ json: 7 })).position, 'string')
  t.match((await app.registry.history('relayed:x')).messages.at(-1), { data: '7', from: { connectionId: String } })
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
