import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { startInstance as startApp } from '../helpers/app.ts'
import { crowd, spread } from '../helpers/crowd.ts'
import { startInstance } from '../helpers/instance.ts'
import { group, Local } from '../helpers/local-instance.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { freePort } from '../helpers/ports.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'
import { Wire } from './chaos/wire.ts'

noUnhandled(t)
const machine = watchMachine(t)

const slackMs = 500

t.test('an instance that is closed while it still waits for Redis ends at once', async t => {
  const local = new Local({ redis: `redis://127.0.0.1:${await freePort()}`, bootTimeoutMs: 10_000 })
  machine.restart()
  const began = performance.now()
  const started = local.start(t).then(() => 'started', (error: { code?: string }) => error.code)
  await local.backplane.close()
  t.equal(await started, 'WSG_CLOSED')
  machine.within(t, performance.now() - began, 1_000, 'done')
})

t.test('an instance that closes while Redis hangs does so within its time', async t => {
  const redis = await startRedis(t)
  const local = await new Local({ redis: redis.url }).start(t)
  await local.join('lobby', `${local.instanceId}.1`)
  await local.backplane.subscribe(group('lobby'))
  const instance = await startInstance(t, { redisUrl: redis.url })
  await crowd(t, instance.port, spread(60, 20))
  redis.stop()
  machine.restart()
  const began = performance.now()
  const whole = instance.close().then(() => performance.now() - began)
  await local.backplane.close()
  machine.within(t, performance.now() - began, 2_000 + slackMs, 'the backplane closed')
  machine.within(t, await whole, 5_000, 'a whole application closed')
  redis.cont()
})

// A quarter of what an instance manages to give back in its time on two cores with nothing else to do.
t.test('an application with 3,000 memberships gives all of them back within its time', async t => {
  const redis = await startRedis(t)
  const instance = await startInstance(t, { redisUrl: redis.url })
  const rooms = Array.from({ length: 30 }, (_, guest) => spread(100, 100, `g${guest}`).join())
  await crowd(t, instance.port, rooms)
  t.ok((await redis.keys()).length > 6_000)
  machine.restart()
  const began = performance.now()
  await instance.close()
  machine.within(t, performance.now() - began, 3_000, 'closed')
  t.strictSame(await redis.leftovers(), [])
})

t.test('an instance gives all of its members back, however slowly Redis answers, as long as it does', async t => {
  const redis = await startRedis(t)
  const leaseMs = 3_000
  const wire = await Wire.start(redis.port)
  t.teardown(() => wire.close())
  // On a busy machine an answer may take much longer than the wire holds it back.
  const local = await new Local({ redis: wire.url, operationTimeoutMs: 5_000, leaseMs }).start(t)
  // Removed in ten calls. A busy machine may take too long to store one: what counts is that all are there.
  await Promise.all(Array.from({ length: 2_000 }, async (_, n) => await until(async () => {
    await local.join(`room ${n}`, `${local.instanceId}.1`)
    return true
  })))
  wire.delay('command', 300)
  // Right after a beat: what is compared then is waited for, too.
  await until(() => (local.backplane.stats().leaseAgeMs ?? 0) > leaseMs / 4)
  await until(() => (local.backplane.stats().leaseAgeMs ?? 0) < leaseMs / 5, { everyMs: 5 })
  await local.backplane.close()
  t.strictSame(await redis.keys(), [])
})

t.test('an application whose Redis hangs and whose clients are mute closes within its grace and a second', async t => {
  const redis = await startRedis(t)
  const closeGraceMs = 500
  const instance = await startApp(t, { redis: redis.url, closeGraceMs })
  const mute = [await instance.enter('room'), await instance.enter('room')]
  for (const { client } of mute) client.ws.pause()
  redis.stop()
  machine.restart()
  const began = performance.now()
  await instance.app.close()
  machine.within(t, performance.now() - began, closeGraceMs + 1_000 + slackMs, 'the application closed')
  redis.cont()
})

t.test('an instance whose subscribe link alone hangs gives its members back all the same', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const local = await new Local({ redis: proxy.url }).start(t)
  await local.join('lobby', `${local.instanceId}.1`)
  await local.backplane.subscribe(group('lobby'))
  proxy.delay(60_000, 'subscribers')
  await local.backplane.close()
  t.strictSame(await redis.keys(), [])
})

t.test('an instance that closes in the middle of a reconnect leaves nothing in Redis, and nothing running here', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const running = (): string[] => process.getActiveResourcesInfo().filter(kind => kind === 'Timeout' || kind === 'TCPSocketWrap').sort()
  const before = running()
  // Each step of coming back takes 40 ms: the handshake, INFO, the beat, the memberships.
  for (let afterMs = 0; afterMs <= 400; afterMs += 40) {
    const local = await new Local({ redis: proxy.url }).start(t)
    await local.join('lobby', `${local.instanceId}.1`)
    await local.backplane.subscribe(group('lobby'))
    proxy.delay(20)
    proxy.cut()
    await until(() => local.backplane.state === 'down')
    // At once when it is connected again, or a little later.
    await until(() => local.backplane.stats().redisUp === 1, { everyMs: 1 })
    await sleep(afterMs)
    await local.backplane.close()
    proxy.delay(0)
    await until(async () => (await redis.channels()).length === 0)
    await sleep(60)                                             // what is still on its way
    t.strictSame(await redis.keys(), [], `closed ${afterMs} ms after the link was back`)
  }
  await until(() => running().length <= before.length, { what: 'timers and sockets to be gone' })
})
