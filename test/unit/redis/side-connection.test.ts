import t, { type Test } from 'tap'
import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { SideConnection } from '../../../lib/backplane/redis/link/side-connection.ts'
import { toBackplaneError } from '../../../lib/backplane/redis/link/reply-errors.ts'
import { startRedis } from '../../helpers/redis.ts'
import { startProxy } from '../../helpers/tcp-proxy.ts'
import { until } from '../../helpers/until.ts'

const options = { deadlineMs: 200, maxMs: 1_000, kind: 'bulk' } as const

function beside (t: Test, source: string, { idleMs = 10_000, address = undefined as { host: string, port: number } | undefined } = {}) {
  let missed = 0
  const link = { assertUp () {}, address: () => address, translate: toBackplaneError, missed: () => { missed++ } }
  const side = new SideConnection(source, link, 'received', idleMs)
  t.teardown(() => side.close())
  return {
    side,
    get missed () { return missed },
    clientId: async () => await side.run(async redis => Number(await redis.call('CLIENT', 'ID')), options)
  }
}

t.test('it is opened when it is needed, and closed when nothing needed it for a while', async t => {
  const redis = await startRedis(t)
  const { side, clientId } = beside(t, redis.url, { idleMs: 50 })
  await t.rejects(clientId(), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
  t.equal(await side.whenReady(2_000), true)
  const first = await clientId()
  t.equal(await side.run(async redis => {
    await new Promise(resolve => setTimeout(resolve, 150))
    return Number(await redis.call('CLIENT', 'ID'))
  }, options), first, 'not during a call')
  await until(() => !side.ready)
  t.equal(await side.whenReady(2_000), true)
  t.not(await clientId(), first)
  side.end()
  t.equal(side.ready, false)
  side.close()
  t.equal(await side.whenReady(2_000), false)
})

t.test('it is not closed as idle while somebody waits for it', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  proxy.delay(300)
  const { side } = beside(t, proxy.url, { idleMs: 100 })
  t.equal(await side.whenReady(10), false)
  // Its idle time begins when it is half way there, and again while the second caller waits.
  const [first, second] = await Promise.all([side.whenReady(20), side.whenReady(10_000)])
  t.equal(first, false)
  t.equal(second, true)
})

t.test('one that nobody answers on is given up', async t => {
  const redis = await startRedis(t)
  const rig = beside(t, redis.url)
  await rig.side.whenReady(2_000)
  const first = await rig.clientId()
  redis.stop()
  await t.rejects(rig.clientId(), { code: 'WSG_TIMEOUT' })
  t.equal(rig.missed, 1)
  t.equal(rig.side.ready, false)
  t.equal(await rig.side.whenReady(20), false)
  redis.cont()
  t.equal(await rig.side.whenReady(5_000), true)
  t.not(await rig.clientId(), first)
})

t.test('a dial that hangs is given up a minute later', async t => {
  const sockets: Socket[] = []
  const server = createServer(socket => sockets.push(socket)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const { side } = beside(t, `redis://127.0.0.1:${(server.address() as AddressInfo).port}`)
  t.equal(await side.whenReady(50), false)
  await until(() => sockets.length === 1)
  t.equal(await side.whenReady(50), false)
  t.equal(sockets.length, 1, 'not while the dial is young')
  const now = performance.now.bind(performance)
  t.intercept(performance, 'now', { value: () => now() + 60_001 })
  t.equal(await side.whenReady(50), false)
  await until(() => sockets.length === 2)
})

t.test('it leads to the server of the link, wherever its name leads by now', async t => {
  const [named, other] = [await startRedis(t), await startRedis(t)]
  const { side } = beside(t, named.url, { address: { host: '127.0.0.1', port: other.port } })
  t.equal(await side.whenReady(2_000), true)
  t.equal(await side.run(async redis => (await redis.config('GET', 'port') as string[])[1], options), String(other.port))
})

t.test('what is under way when it ends has an unknown outcome', async t => {
  const redis = await startRedis(t)
  const { side } = beside(t, redis.url)
  await side.whenReady(2_000)
  const running = side.run(async redis => await redis.call('DEBUG', 'SLEEP', '0.1'), options)
  side.end()
  await t.rejects(running, { code: 'WSG_TIMEOUT' })
})
