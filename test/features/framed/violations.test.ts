import t from 'tap'
import { watchMachine } from '../../helpers/machine.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { serve } from '../../helpers/service.ts'
import { until } from '../../helpers/until.ts'
import { connectFramed, openFramed } from './framed-client.ts'

noUnhandled(t)
const machine = watchMachine(t)

t.test('what breaks the protocol closes with 4400 and says why', async t => {
  let handled = 0
  let disconnected = 0
  const { url } = await serve(t, {}, app => app.get('/', { websocket: true }, app.wsHandler({
    onMessage () { handled++ },
    onDisconnect () { disconnected++ }
  })))
  const wrong: Record<string, string | Uint8Array> = {
    'a frame must be JSON': 'hello',
    'a frame must be a JSON object': '[1]',
    'type must be a string': '{"data":"x"}',
    'frames must be text': Buffer.from('{"type":"ping"}'),
    'hello must be sent once': '{"type":"hello"}',
    'message: data must be a string': '{"type":"message","data":{}}',
    'message: data is not base64': '{"type":"message","data":"?","binary":true}',
    'message: id must be an integer': '{"type":"message","data":"x","id":"a"}',
    'join: group must be a string': '{"type":"join"}',
    'token: token must be a string': '{"type":"token"}',
    'JSON has at most 20000 values, 100 deep': `{"type":"x","deep":${'['.repeat(2_000)}`
  }
  for (const [why, frame] of Object.entries(wrong)) {
    const { raw } = await openFramed(t, url)
    raw.send(frame)
    raw.send('{"type":"message","data":"after"}')
    t.strictSame(await raw.closed, { code: 4400, reason: why }, why)
  }
  t.equal(handled, 0, 'what comes after it is not handled')
  await until(() => disconnected === Object.keys(wrong).length, { what: 'each to be disconnected once' })
})

t.test('anything but a ping before the hello closes with 4400, and no callback hears of the connection', async t => {
  const heard: string[] = []
  const { url, app } = await serve(t, {}, app => app.get('/', { websocket: true }, app.wsHandler({
    onConnect () { heard.push('connect') },
    onMessage () { heard.push('message') },
    onDisconnect () { heard.push('disconnect') },
    onError () { heard.push('error') }
  })))
  for (const first of [
    '{"type":"message","data":"x"}', '{"type":"unheard-of"}', 'text', Buffer.from('bytes'), '{"type":"hello","session":7}',
    '{"type":"hello","resume":{"g":"here"}}'
  ]) {
    const raw = connectFramed(t, url)
    await raw.opened
    raw.send('{"type":"ping"}')
    raw.send(first)
    t.equal((await raw.closed).code, 4400, String(first))
    t.strictSame(raw.messages, ['{"type":"pong"}'])
  }
  const gone = connectFramed(t, url)
  await gone.opened
  await gone.close(1000)
  await until(() => app.registry.count() === 0, { what: 'all to be forgotten' })
  t.strictSame(heard, [])
  t.equal(app.registry.stats().connectionsClosed, 7)
})

t.test('who says nothing is closed with 4408 after ten seconds', async t => {
  const { url } = await serve(t, {}, app => app.get('/', { websocket: true }, app.wsHandler({ onMessage () {} })))
  const before = performance.now()
  const raw = connectFramed(t, url)
  const greeted = await openFramed(t, url)
  t.strictSame(await raw.closed, { code: 4408, reason: 'no hello in time' })
  t.ok(performance.now() - before > 9_900)
  t.equal(greeted.raw.ws.readyState, 1)
})

t.test('a shutdown does not wait for a hello', async t => {
  const { url, app } = await serve(t, {}, app => app.get('/', { websocket: true }, app.wsHandler({ onMessage () {} })))
  const raw = connectFramed(t, url)
  await raw.opened
  machine.restart()
  const before = performance.now()
  await app.close()
  machine.within(t, performance.now() - before, 1_000, 'done')
  t.equal((await raw.closed).code, 1001)
  t.strictSame(raw.messages, [])
})

t.test('an onConnect that refuses closes as for raw clients, after the welcome', async t => {
  const { url } = await serve(t, {}, app => app.get('/', { websocket: true }, app.wsHandler({
    onConnect () { throw Object.assign(new Error('full'), { closeCode: 4000, closeReason: 'full' }) },
    onMessage () {}
  })))
  const { raw } = await openFramed(t, url)
  t.strictSame(await raw.closed, { code: 4000, reason: 'full' })
})
