import t, { type Test } from 'tap'
import type { Connection } from '../../../plugin.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { serve } from '../../helpers/service.ts'
import { openFramed } from './framed-client.ts'

noUnhandled(t)

/** Long enough for a client to come and to send its next token, on a busy machine too. */
const shortMs = 1_500

/** Resolves when every token that ended before this call, or soon after, has been acted on: the server looks at all of them together. */
async function shortTokensEnded (t: Test, url: string): Promise<void> {
  const last = await openFramed(t, url, { token: `last~${shortMs}` })
  t.equal((await last.raw.closed).code, 4401)
}

t.test('a fresh token of the same user replaces the identity and moves the end', async t => {
  const connections: Connection[] = []
  const { url } = await serve(t, {}, app => app.get('/', { websocket: true, preHandler: app.wsAuth() }, app.wsHandler({
    onConnect: connection => { connections.push(connection) },
    onMessage: connection => { connection.sendJson(connection.identity) }
  })))
  const client = await openFramed(t, url, { token: `ann~${shortMs}` })
  client.send({ type: 'token', token: 'ann~60000', id: 1 })
  t.strictSame(await client.next(), { type: 'ack', id: 1 })
  const [connection] = connections
  t.ok(Number(connection?.identity?.expiresAt) > Date.now() + 50_000)
  await shortTokensEnded(t, url)
  t.equal(client.raw.ws.readyState, 1, 'it outlived its first token')

  client.send({ type: 'token', token: 'ann~1000', id: 2 })
  await client.next()
  t.strictSame(await client.raw.closed, { code: 4401, reason: 'token expired' }, 'and ends with its latest')
})

t.test('a token without an end takes the end away', async t => {
  const { url } = await serve(t, {}, app => app.get('/', { websocket: true, preHandler: app.wsAuth() }, app.wsHandler({ onMessage () {} })))
  const client = await openFramed(t, url, { token: `ann~${shortMs}` })
  client.send({ type: 'token', token: 'ann', id: 1 })
  t.strictSame(await client.next(), { type: 'ack', id: 1 })
  await shortTokensEnded(t, url)
  t.equal(client.raw.ws.readyState, 1)
})

t.test('a bad token is an error, and the connection lives until the old one ends', async t => {
  const { url } = await serve(t, {}, app => {
    app.get('/', { websocket: true, preHandler: app.wsAuth() }, app.wsHandler({ onMessage () {} }))
    app.get('/open', { websocket: true }, app.wsHandler({ onMessage () {} }))
    const authenticate = (token: string): { userId: string } => {
      if (token === 'later') throw Object.assign(new Error('auth-3 is down'), { statusCode: 503 })
      return { userId: token }
    }
    const outage = app.wsAuth({ authenticate, authorize: (_, request) => request.url === '/outage' })
    app.get('/outage', { websocket: true, preHandler: outage }, app.wsHandler({ onMessage () {} }))
    let admitted = true
    app.get('/banned', {
      websocket: true, preHandler: app.wsAuth({ authorize: () => admitted })
    }, app.wsHandler({ onMessage () { admitted = false } }))
  })
  const client = await openFramed(t, url, { token: 'ann~1500' })
  for (const [id, token] of ['nobody', 'ann~-1'].entries()) {
    client.send({ type: 'token', token, id })
    t.match(await client.next(), { type: 'error', id, code: 'WSG_UNAUTHORIZED' })
  }
  client.send({ type: 'token', token: 'nobody' })
  t.equal((await client.raw.closed).code, 4401)

  const open = await openFramed(t, `${url}/open`)
  open.send({ type: 'token', token: 'ann', id: 1 })
  t.match(await open.next(), { type: 'error', id: 1, code: 'WSG_UNAUTHORIZED' }, 'a route without auth knows no good token')

  const outage = await openFramed(t, `${url}/outage`, { token: 'ann' })
  outage.send({ type: 'token', token: 'later', id: 1 })
  t.strictSame(
    await outage.next(), { type: 'error', id: 1, code: 'WSG_HANDLER_FAILED', message: 'the server could not handle the request' }
  )
  outage.send({ type: 'token', token: 'ann', id: 2 })
  t.strictSame(await outage.next(), { type: 'ack', id: 2 }, 'authorize sees the request that opened the connection')

  const banned = await openFramed(t, `${url}/banned`, { token: 'ann' })
  banned.send({ type: 'message', data: 'ban me' })
  banned.send({ type: 'token', token: 'ann', id: 1 })
  t.match(await banned.next(), { type: 'error', id: 1, code: 'WSG_FORBIDDEN' })
})

t.test('a token of another user closes with 4403, also where there was no user', async t => {
  const { url, app } = await serve(
    t, {}, app => app.get('/', { websocket: true, preHandler: app.wsAuth({ required: false }) }, app.wsHandler({ onMessage () {} }))
  )
  for (const token of ['ann', undefined]) {
    const client = await openFramed(t, url, token === undefined ? {} : { token })
    client.send({ type: 'token', token: 'bob', id: 1 })
    t.strictSame(await client.raw.closed, { code: 4403, reason: 'the token belongs to another user' })
  }
  t.equal(await app.registry.sendToUser('bob', 'hi').then(({ localRecipients }) => localRecipients), 0)
})

t.test('the token in the list of protocols is not what the server answers with', async t => {
  const { url } = await serve(t, {}, app => app.wsRoom('/:room', {}))
  const client = await openFramed(t, `${url}/lobby`, { token: 'wsg.v2' })
  t.equal(client.raw.ws.protocol, 'wsg.v1')
  t.match(await client.next(), { type: 'joined' })
})
