import t from 'tap'
import { MemoryBackplane } from '../../lib/backplane/memory/index.ts'
import { memoryCluster } from '../../plugin.ts'
import { connect, upgradeStatus } from '../helpers/client.ts'
import { watchMachine } from '../helpers/machine.ts'
import { until } from '../helpers/until.ts'
import { gate, serve, service } from '../helpers/service.ts'

const machine = watchMachine(t)

t.test('close gives every client 1001, runs every onDisconnect, and empties the groups', async t => {
  const cluster = memoryCluster()
  const leaving = await service(t, { backplane: cluster.backplane() })
  const staying = await service(t, { backplane: cluster.backplane() })
  await staying.app.ready()
  let left = 0
  leaving.app.wsRoom('/ws/:room', { auth: false, onLeave () { left++ } })
  const url = await leaving.listen()
  const clients = Array.from({ length: 300 }, () => connect(t, `${url}/ws/x`))
  await until(async () => await staying.app.registry.groupCount('x') === 300)
  machine.restart()
  const started = performance.now()
  await leaving.app.close()
  machine.within(t, performance.now() - started, 2_000, 'done')
  t.equal(left, 300)
  t.strictSame(
    new Set((await Promise.all(clients.map(async client => await client.closed))).map(({ code, reason }) => `${code} ${reason}`)),
    new Set(['1001 server is going away'])
  )
  t.equal(await staying.app.registry.groupCount('x'), 0)
  t.equal(leaving.app.registry.count(), 0)
})

t.test('shutdownCode 1012 asks clients to come back', async t => {
  const { app, listen } = await service(t, { shutdownCode: 1012 })
  app.wsRoom('/ws/:room', { auth: false })
  const client = connect(t, `${await listen()}/ws/x`)
  await client.opened
  await app.close()
  t.match(await client.closed, { code: 1012 })
})

t.test('a client that never answers the close is terminated after the grace, and onDisconnect still runs once', async t => {
  const ends: unknown[] = []
  const { app, listen } = await service(t, { closeGraceMs: 200 })
  app.get('/ws', { websocket: true }, app.wsHandler({ onMessage () {}, onDisconnect (_, closed) { ends.push(closed) } }))
  const client = connect(t, `${await listen()}/ws`)
  await client.opened
  client.ws.pause()
  const started = performance.now()
  await app.close()
  const took = performance.now() - started
  t.ok(took >= 190, `${took} ms`)
  machine.within(t, took, 1_500, 'done')
  t.strictSame(ends, [{ code: 1001, reason: 'server is going away' }])
})

t.test('an onDisconnect that hangs does not hold up the close for longer than two graces', async t => {
  const { app, listen } = await service(t, { closeGraceMs: 100 })
  const never = gate()
  app.get('/ws', { websocket: true }, app.wsHandler({ onMessage () {}, onDisconnect: async () => await never.opened }))
  const client = connect(t, `${await listen()}/ws`)
  await client.opened
  machine.restart()
  const started = performance.now()
  await app.close()
  machine.within(t, performance.now() - started, 1_500, 'done')
  never.open()
})

t.test('while clients are being closed, upgrades are refused with 503', async t => {
  const { app, listen } = await service(t, { closeGraceMs: 500 })
  app.wsRoom('/ws/:room', { auth: false })
  const url = await listen()
  const client = connect(t, `${url}/ws/x`)
  await client.opened
  client.ws.pause()
  const closed = app.close()
  t.match(app.registry.health(), { ready: true })
  await until(() => app.registry.health().status === 'closing')
  t.equal((await upgradeStatus(`${url}/ws/x`)).statusCode, 503)
  await closed
})

t.test('by policy, upgrades are refused with 503 and Retry-After while the backplane is out', async t => {
  let state: 'up' | 'down' = 'up'
  class FlakyBackplane extends MemoryBackplane {
    override get state (): 'up' | 'down' { return state }
  }
  const { app, listen } = await service(t, { backplane: new FlakyBackplane(), outage: { upgrade: 'refuse' } })
  app.wsRoom('/ws/:room', { auth: false })
  app.get('/plain', async () => 'plain')
  const url = await listen()
  t.equal((await upgradeStatus(`${url}/ws/x`)).statusCode, 101)
  state = 'down'
  const { statusCode, headers, body } = await upgradeStatus(`${url}/ws/x`)
  t.equal(statusCode, 503)
  t.equal(headers['retry-after'], '5')
  t.match(JSON.parse(body), { statusCode: 503, code: 'WSG_REFUSED', error: 'Service Unavailable' })
  t.equal(app.registry.stats().upgradesRefused, 1)
  t.equal((await app.inject('/plain')).statusCode, 200)
  state = 'up'
  t.equal((await upgradeStatus(`${url}/ws/x`)).statusCode, 101)
})

t.test('no check that never ends keeps the process alive after the close', async t => {
  const never = async (): Promise<never> => await new Promise<never>(() => {})
  const timers = (): number => process.getActiveResourcesInfo().filter(kind => kind === 'Timeout').length
  let hanging = 0
  const hang = async (): Promise<never> => {
    hanging++
    return await never()
  }
  const { app, url } = await serve(t, {
    authenticate: async token => token === 'hang' ? await hang() : { userId: 'ann' }, authTimeoutMs: 600_000, closeGraceMs: 100
  }, app => {
    app.wsRoom('/auth/:room', { group: ({ room }) => `auth:${room}` })
    app.wsRoom('/group/:room', { group: hang })
    let refreshed = false
    app.wsRoom('/stay/:room', {
      group: ({ room }) => refreshed ? never() : `stay:${room}`,
      onMessage () { refreshed = true }
    })
    app.get('/http', { preHandler: app.wsAuth() }, async () => 'never')
  })
  const before = timers()
  const refreshing = connect(t, `${url}/stay/x`, { protocols: ['wsg.v1', 'bearer', 'good'] })
  await refreshing.opened
  refreshing.send('{"type":"hello"}')
  refreshing.send('{"type":"message","data":"x","id":1}')
  refreshing.send('{"type":"token","token":"good","id":2}')
  refreshing.send('{"type":"token","token":"hang","id":3}')
  connect(t, `${url}/auth/x`, { protocols: ['bearer', 'hang'] })
  connect(t, `${url}/group/x`, { protocols: ['bearer', 'good'] })
  const http = fetch(`${url.replace('ws', 'http')}/http`, { headers: { authorization: 'Bearer hang' } })
  await until(() => hanging === 3)
  await app.close()
  t.equal((await http).status, 503)
  t.ok(timers() <= before, `${timers()} timers, ${before} before`)
})
