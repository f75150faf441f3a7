import t from 'tap'
import type { Connection } from '../../../plugin.ts'
import { connect } from '../../helpers/client.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { serve } from '../../helpers/service.ts'
import { startProxy } from '../../helpers/tcp-proxy.ts'
import { until } from '../../helpers/until.ts'
import { clientFrame, rawConnection, upgradeHead } from '../../http/raw.ts'
import { openFramed } from './framed-client.ts'

noUnhandled(t)

t.test('the server answers with the protocol, greets, and tells what the client needs to know', async t => {
  const { url } = await serve(t, { heartbeatIntervalMs: 7_000, presenceGraceMs: 5_000 }, app => app.wsRoom('/:room', { auth: false }))
  const client = await openFramed(t, `${url}/lobby`)
  t.equal(client.raw.ws.protocol, 'wsg.v1')
  t.match(client.welcome, { type: 'welcome', connectionId: /^\w{10}\.\w+$/, session: /^[\w-]{22}$/, pingMs: 7_000, resumeMs: 5_000 })
  t.match(await client.next(), { type: 'joined', group: 'lobby' })
})

t.test('a session that was drawn by a server is kept, any other text is replaced', async t => {
  const { url } = await serve(t, {}, app => app.wsRoom('/:room', { auth: false }))
  const first = await openFramed(t, `${url}/lobby`)
  const again = await openFramed(t, `${url}/lobby`, { hello: { session: first.welcome.session } })
  t.equal(again.welcome.session, first.welcome.session)
  const made = await openFramed(t, `${url}/lobby`, { hello: { session: 'mine' } })
  t.match(made.welcome.session, /^[\w-]{22}$/)
})

t.test('a message goes to the route, comes back to all as a frame, and to raw clients as it is', async t => {
  const { url } = await serve(t, {}, app => app.wsRoom('/:room', { auth: false }))
  const framed = await openFramed(t, `${url}/lobby`)
  const raw = connect(t, `${url}/lobby`)
  await raw.opened
  await framed.nextOf('joined')
  raw.send('warm')
  t.equal(await raw.next(), 'warm')
  t.match(await framed.nextOf('message'), { group: 'lobby', data: 'warm' })

  framed.send({ type: 'message', data: 'text "with" quotes, ünï and \u0000', id: 1 })
  t.match(await framed.nextOf('message'), { group: 'lobby', data: 'text "with" quotes, ünï and \u0000' })
  t.equal(await raw.next(), 'text "with" quotes, ünï and \u0000')

  const bytes = Buffer.from([0, 1, 2, 250, 255])
  framed.send({ type: 'message', data: bytes.toString('base64'), binary: true })
  t.match(await framed.nextOf('message'), { group: 'lobby', data: bytes.toString('base64'), binary: true })
  t.strictSame(await raw.next(), bytes)
  raw.send(bytes)
  t.match(await framed.nextOf('message'), { data: bytes.toString('base64'), binary: true })
})

t.test('callbacks see strings and buffers, and what they send to the connection alone has no group', async t => {
  const seen: unknown[] = []
  const { url, app } = await serve(t, {}, app => app.get('/', { websocket: true }, app.wsHandler({
    onConnect: connection => { connection.send('hello') },
    onMessage (connection, data) {
      seen.push(data)
      connection.send(data)
      connection.sendJson({ got: data.length })
    }
  })))
  const client = await openFramed(t, url)
  t.strictSame(await client.next(), { type: 'message', data: 'hello' })
  client.send({ type: 'message', data: 'one' })
  t.strictSame(await client.next(), { type: 'message', data: 'one' })
  t.strictSame(await client.next(), { type: 'message', data: '{"got":3}' })
  client.send({ type: 'message', data: 'AAE=', binary: true })
  t.strictSame(await client.next(), { type: 'message', data: 'AAE=', binary: true })
  await client.next()
  t.strictSame(seen, ['one', Buffer.from([0, 1])])
  await app.registry.sendTo(String(client.welcome.connectionId), 'direct')
  t.strictSame(await client.next(), { type: 'message', data: 'direct' })
  await app.registry.broadcastToAll('all')
  t.match(await client.next(), { type: 'message', data: 'all', at: Number })
})

t.test('onConnect waits for the hello, and nothing is sent before it', async t => {
  const connections: Connection[] = []
  const { url, app } = await serve(t, {}, app => app.get('/', { websocket: true }, app.wsHandler({
    onConnect: connection => { connections.push(connection) },
    onMessage () {}
  })))
  const raw = connect(t, url, { protocols: 'wsg.v1' })
  await raw.opened
  const answer = new Promise(resolve => raw.ws.once('message', data => resolve(String(data))))
  raw.send('{"type":"ping"}')
  t.equal(await answer, '{"type":"pong"}')
  await app.registry.broadcastToAll('too early')
  t.equal(connections.length, 0)
  t.notOk(app.registry.all()[0]?.send('too early'))
  raw.send('{"type":"hello"}')
  t.match(JSON.parse(String(await raw.nextWhere(text => !String(text).includes('pong')))), { type: 'welcome' })
  t.equal(connections.length, 1)
})

t.test('acks come in order, when onMessage is done, and say where a broadcast stands in the log', async t => {
  const release: Array<() => void> = []
  const { url } = await serve(t, {}, app => {
    app.wsRoom('/rooms/:room', { auth: false })
    app.get('/slow', { websocket: true }, app.wsHandler({
      onMessage: async (_, data) => data === 'fast' ? undefined : await new Promise<void>(resolve => release.push(resolve))
    }))
    app.get('/sync', { websocket: true }, app.wsHandler({ onMessage: () => ({ position: 'here' }) }))
  })
  const slow = await openFramed(t, `${url}/slow`)
  slow.send({ type: 'message', data: 'slow', id: 7 })
  slow.send({ type: 'message', data: 'fast', id: -1 })
  slow.send({ type: 'ping' })
  t.strictSame(await slow.next(), { type: 'pong' }, 'a ping does not wait')
  release[0]?.()
  t.strictSame(await slow.next(), { type: 'ack', id: 7 })
  t.strictSame(await slow.next(), { type: 'ack', id: -1 })

  const sync = await openFramed(t, `${url}/sync`)
  sync.send({ type: 'message', data: 'x', id: 1 })
  t.strictSame(await sync.next(), { type: 'ack', id: 1, position: 'here' })

  const room = await openFramed(t, `${url}/rooms/lobby`)
  room.send({ type: 'message', data: 'x', id: 1 })
  const message = await room.nextOf('message')
  const ack = room.frames.find(frame => frame.type === 'ack') ?? await room.nextOf('ack')
  t.match(message.position, /^[\w-]{24}$/)
  t.equal(ack.position, message.position)
})

t.test('an error that the connection survives is answered; what it says stays inside unless it was meant for the client', async t => {
  const failures: Record<string, Error> = {
    internal: new Error('database db-7 is gone'),
    coded: Object.assign(new Error('10.0.0.1 refused'), { code: 'ECONNREFUSED' }),
    meant: Object.assign(new Error('too long'), { code: 'TOO_LONG', statusCode: 413, details: { max: 5 } }),
    invalid: Object.assign(new Error('no text'), { statusCode: 400, validation: [{ instancePath: '/text' }] }),
    circle: Object.assign(
      new Error('no'), { statusCode: 400, details: (() => { const a: Record<string, unknown> = {}; return (a.a = a) })() }
    )
  }
  const { url, app } = await serve(t, {}, app => {
    const onMessage = (_: unknown, data: string | Buffer): void => { throw failures[String(data)] ?? new Error('fatal') }
    app.get('/kept', { websocket: true }, app.wsHandler({ onMessage }))
    app.get('/', { websocket: true }, app.wsHandler({ onMessage, onError: () => false }))
  })
  const kept = await openFramed(t, `${url}/kept`)
  kept.send({ type: 'message', data: 'internal' })
  kept.send({ type: 'message', data: 'internal', id: 1 })
  t.strictSame(await kept.next(), { type: 'error', id: 1, code: 'WSG_HANDLER_FAILED', message: 'the server could not handle the request' })
  kept.send({ type: 'message', data: 'coded', id: 2 })
  t.strictSame(await kept.next(), { type: 'error', id: 2, code: 'WSG_HANDLER_FAILED', message: 'the server could not handle the request' })
  kept.send({ type: 'message', data: 'meant', id: 3 })
  t.strictSame(await kept.next(), { type: 'error', id: 3, code: 'TOO_LONG', message: 'too long', details: { max: 5 } })
  kept.send({ type: 'message', data: 'invalid', id: 4 })
  t.match(await kept.next(), { id: 4, code: 'WSG_HANDLER_FAILED', message: 'no text', details: [{ instancePath: '/text' }] })
  kept.send({ type: 'message', data: 'circle', id: 5 })
  t.strictSame(await kept.next(), { type: 'error', id: 5, code: 'WSG_HANDLER_FAILED', message: 'no' }, 'JSON has no form of the details')

  t.equal(app.registry.stats().messagesFailed, 6)

  const closed = await openFramed(t, url)
  closed.send({ type: 'message', data: 'internal', id: 1 })
  closed.send({ type: 'message', data: 'meant', id: 2 })
  t.match(await closed.next(), { type: 'error', id: 1, code: 'WSG_HANDLER_FAILED' }, 'the sender knows why')
  t.equal((await closed.raw.closed).code, 1011)
})

t.test('a client may join and leave groups where the route lets it', async t => {
  const asked: string[] = []
  const { url, app } = await serve(t, { maxGroupsPerConnection: 3 }, app => {
    app.wsRoom('/free/:room', {
      auth: false, group: ({ room }) => room, mayJoin: async (_, group) => { asked.push(group); return group !== 'secret' }
    })
    app.wsRoom('/closed/:room', { auth: false, group: ({ room }) => room })
  })
  const client = await openFramed(t, `${url}/free/lobby`)
  await client.nextOf('joined')
  client.send({ type: 'join', group: 'news', id: 1 })
  t.match(await client.next(), { type: 'joined', group: 'news' })
  t.match(await client.next(), { type: 'ack', id: 1 })
  await app.registry.broadcastToGroup('news', 'hot')
  t.match(await client.next(), { type: 'message', group: 'news', data: 'hot' })
  client.send({ type: 'join', group: 'secret', id: 2 })
  t.match(await client.next(), { type: 'error', id: 2, code: 'WSG_FORBIDDEN' })
  client.send({ type: 'join', group: '', id: 3 })
  t.match(await client.next(), { type: 'error', id: 3, code: 'WSG_GROUP_NAME_INVALID' })
  client.send({ type: 'join', group: 'far', since: 'nowhere', id: 4 })
  t.match(await client.next(), { type: 'error', id: 4, code: 'WSG_POSITION_INVALID' })
  client.send({ type: 'join', group: 'third' })
  t.match(await client.next(), { type: 'joined', group: 'third' })
  client.send({ type: 'join', group: 'fourth', id: 5 })
  t.match(await client.next(), { type: 'error', id: 5, code: 'WSG_TOO_MANY_GROUPS' })
  client.send({ type: 'leave', group: 'news', id: 6 })
  t.strictSame(await client.next(), { type: 'left', group: 'news' })
  t.strictSame(await client.next(), { type: 'ack', id: 6 })
  client.send({ type: 'leave', group: 'news', id: 7 })
  t.strictSame(await client.next(), { type: 'ack', id: 7 }, 'it is not in the group, which is what was asked for')
  t.strictSame(asked, ['news', 'secret', 'far', 'third', 'fourth'], 'a bad name is not asked for')

  const closed = await openFramed(t, `${url}/closed/lobby`)
  await closed.nextOf('joined')
  for (const type of ['join', 'leave']) {
    closed.send({ type, group: 'lobby', id: 1 })
    t.match(await closed.next(), { type: 'error', id: 1, code: 'WSG_FORBIDDEN' })
  }
})

t.test('a mayJoin that throws is answered, and ends the connection where onError says so', async t => {
  const { url } = await serve(t, {}, app => {
    const mayJoin = (): boolean => { throw new Error('no idea') }
    app.wsRoom('/kept/:room', { auth: false, group: ({ room }) => room, mayJoin })
    app.wsRoom('/:room', { auth: false, group: ({ room }) => room, mayJoin, onError: () => false })
  })
  const kept = await openFramed(t, `${url}/kept/lobby`)
  kept.send({ type: 'join', group: 'x', id: 1 })
  t.match(await kept.nextOf('error'), { id: 1, code: 'WSG_HANDLER_FAILED' })
  const closed = await openFramed(t, `${url}/lobby`)
  closed.send({ type: 'join', group: 'x', id: 1 })
  t.match(await closed.nextOf('error'), { id: 1, code: 'WSG_HANDLER_FAILED' })
  t.equal((await closed.raw.closed).code, 1011)
})

t.test('frames of a kind that this version does not know are ignored, as are fields', async t => {
  const { url } = await serve(t, {}, app => app.get('/', { websocket: true }, app.wsHandler({ onMessage () {} })))
  const client = await openFramed(t, url, { hello: { colour: 'red' } })
  client.send({ type: 'dance', id: {}, data: 7 })
  client.send({ type: 'message', data: 'x', id: 1, colour: 'red' })
  t.strictSame(await client.next(), { type: 'ack', id: 1 })
})

t.test('a client that asks too fast waits as a raw one does', async t => {
  let open = (): void => {}
  const opened = new Promise<void>(resolve => { open = resolve })
  const { url, app } = await serve(
    t, { maxQueuedMessages: 5 }, app => app.get('/', { websocket: true }, app.wsHandler({ onMessage: async () => await opened }))
  )
  const client = await openFramed(t, url)
  for (let id = 0; id < 20; id++) client.send({ type: 'message', data: 'x', id })
  await until(() => app.registry.stats().socketsPaused === 1)
  open()
  for (let id = 0; id < 20; id++) t.strictSame(await client.next(), { type: 'ack', id })
})

t.test('a shutdown tells clients when to come back before it closes', async t => {
  for (const shutdownCode of [1001, 1012] as const) {
    const { url, app } = await serve(t, { shutdownCode }, app => app.get('/', { websocket: true }, app.wsHandler({ onMessage () {} })))
    const client = await openFramed(t, url)
    await app.close()
    const frame = await client.next()
    t.equal(frame.type, 'reconnect')
    t.ok(Number.isInteger(frame.afterMs) && Number(frame.afterMs) >= 0 && Number(frame.afterMs) <= 500)
    t.equal((await client.raw.closed).code, shutdownCode)
  }
})

t.test('before a shutdown closes a client, all that it sent before it was told is handled and answered, on slow links, too', async t => {
  const served = await serve(
    t, { closeGraceMs: 1_000 }, app => app.get('/ws', { websocket: true }, app.wsHandler({ onMessage () {} }))
  )
  const far = await startProxy(t, Number(new URL(served.url).port))
  far.delay(25)
  const client = await openFramed(t, `ws://127.0.0.1:${far.port}/ws`)
  let sent = 0
  const sending = setInterval(() => {
    if (client.frames.some(({ type }) => type === 'reconnect')) clearInterval(sending)
    else client.send({ type: 'message', id: ++sent, data: 'x' })
  }, 2)
  await until(() => sent > 40)
  await served.app.close()
  clearInterval(sending)
  t.equal((await client.raw.closed).code, 1001)
  t.ok(sent > 3, String(sent))
  t.equal(client.frames.filter(({ type }) => type === 'ack').length, sent)
})

t.test('all that a client sent before its side ended is handled, whatever protocol it speaks', async t => {
  const count = 600
  for (const protocol of ['raw', 'wsg.v1']) {
    const handled: unknown[] = []
    let isGone = false
    const { port } = await serve(t, { maxQueuedMessages: 50 }, app => app.get('/chat', { websocket: true }, app.wsHandler({
      async onMessage (_, data) {
        await new Promise(resolve => setImmediate(resolve))
        handled.push(data)
      },
      onDisconnect () { isGone = true }
    })))
    const client = await rawConnection(t, `http://127.0.0.1:${port}`)
    client.write(upgradeHead('/chat', protocol === 'raw' ? {} : { 'Sec-WebSocket-Protocol': protocol }))
    await client.answers(1)
    const texts = Array.from({ length: count }, (_, n) => `message ${n}`)
    const framed = [{ type: 'hello' }, ...texts.map(data => ({ type: 'message', data }))]
    const sent = protocol === 'raw' ? texts : framed.map(frame => JSON.stringify(frame))
    client.socket.end(Buffer.concat(sent.map(text => clientFrame(1, text))))
    await until(() => isGone)
    t.strictSame(handled, texts, protocol)
  }
})
