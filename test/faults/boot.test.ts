import t from 'tap'
import { connect, createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { byRoom, crowd, everyoneHears, spread } from '../helpers/crowd.ts'
import { closeClean, exact, startInstance, startInstances } from '../helpers/instance.ts'
import { group, Local } from '../helpers/local-instance.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { freePort } from '../helpers/ports.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'

noUnhandled(t)

const bootTimeoutMs = 1_500
/** Of a process that has much to load at that moment. */
const slackMs = 500
const rooms = spread(60, 20)

for (const absence of ['refuses connections', 'accepts connections and never answers'] as const) {
  t.test(`a Redis that ${absence} at boot: ready within bootTimeoutMs, and who joined meanwhile is registered within 2 s of its arrival`, async t => {
    const redis = await startRedis(t)
    const proxy = await startProxy(t, redis.port)
    const hides = async (on: boolean): Promise<void> => {
      if (absence === 'refuses connections') await proxy.refuse(on)
      else proxy.blackhole(on)
    }
    await hides(true)
    const instances = await startInstances(t, 2, { redisUrl: proxy.url, options: { bootTimeoutMs } })
    for (const { bootMs } of instances) t.ok(bootMs >= bootTimeoutMs && bootMs < bootTimeoutMs + slackMs, `ready after ${Math.round(bootMs)} ms`)
    for (const instance of instances) {
      const { status, ready, problems } = await instance.ask('health')
      t.strictSame({ status, ready }, { status: 'down', ready: true })
      t.not(problems.length, 0)
    }
    const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, rooms)))).flat()
    t.ok(guests.every(({ scope }) => scope === 'local'))
    t.equal((await instances[0]?.ask('broadcast', 'room-3', 'local'))?.scope, 'local')

    await hides(false)
    const tookMs = await exact(instances)
    t.ok(tookMs < 2_000, `exact ${Math.round(tookMs)} ms after Redis was there`)
    await everyoneHears(t, instances, byRoom([...rooms, ...rooms], guests), 'after')
    await closeClean(t, redis, instances)
  })
}

t.test('with outage.boot = fail an absent Redis stops the boot, and says why', async t => {
  const port = await freePort()
  const options = { bootTimeoutMs, outage: { boot: 'fail' } } as const
  const error = await startInstance(t, { redisUrl: `redis://127.0.0.1:${port}`, options }).then(() => undefined, (error: Error & { code?: string, afterMs?: number }) => error)
  t.equal(error?.code, 'WSG_BACKPLANE_UNAVAILABLE')
  t.match(error?.message, /at boot.*ECONNREFUSED/)
  t.ok((error?.afterMs ?? Infinity) < bootTimeoutMs + slackMs, `after ${Math.round(error?.afterMs ?? 0)} ms`)
})

t.test('a wrong password fails the boot clearly and at once', async t => {
  const redis = await startRedis(t)
  await redis.admin.config('SET', 'requirepass', 'right')
  for (const [url, reason] of [[redis.url, /NOAUTH/], [redis.url.replace('//', '//:wrong@'), /WRONGPASS|invalid password/]] as const) {
    const error = await startInstance(t, { redisUrl: url, options: { bootTimeoutMs: 5_000 } }).then(() => undefined, (error: Error & { afterMs?: number }) => error)
    t.match(error?.message, reason)
    t.ok((error?.afterMs ?? Infinity) < 1_000, `after ${Math.round(error?.afterMs ?? 0)} ms`)
  }
  const right = await startInstance(t, { redisUrl: redis.url.replace('//', '//:right@') })
  t.equal((await right.ask('health')).status, 'up')
  await redis.admin.auth('right')
  await closeClean(t, redis, [right])
})

t.test('a server older than 6.2 is refused by its version', async t => {
  const redis = await startRedis(t)
  const version = /redis_version:(\S+)/.exec(await redis.admin.info('server'))?.[1] ?? ''
  const older = `6.0.${'9'.repeat(version.length - 4)}`
  // Passes everything on, with another version of the same length in what the server says of itself.
  const server = createServer(client => {
    const upstream = connect(redis.port, '127.0.0.1')
    client.on('error', () => {}).on('close', () => upstream.destroy()).pipe(upstream)
    upstream.on('error', () => {}).on('close', () => client.destroy())
    upstream.on('data', data => client.write(Buffer.from(data.toString('latin1').replaceAll(version, older), 'latin1')))
  })
  t.teardown(() => server.close())
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const url = `redis://127.0.0.1:${(server.address() as AddressInfo).port}`
  await t.rejects(startInstance(t, { redisUrl: url }), { code: 'WSG_REDIS_UNSUPPORTED', message: new RegExp(`version ${older.replaceAll('.', '\\.')}, 6\\.2 or newer`) })
  t.strictSame(await redis.keys(), [], 'nothing was written to it')
})

t.test('an instance whose id is taken goes away without touching what the other one stored', async t => {
  const redis = await startRedis(t)
  const first = await new Local({ redis: redis.url }).start(t)
  await first.join('lobby', `${first.instanceId}.1`)
  await first.backplane.subscribe(group('lobby'))
  await t.rejects(new Local({ redis: redis.url }, first.instanceId).start(t), { code: 'WSG_INSTANCE_ID_TAKEN' })
  t.equal(await first.backplane.count('lobby'), 1)
  t.strictSame((await first.backplane.members('lobby')).map(({ connectionId }) => connectionId), [`${first.instanceId}.1`])
  await first.backplane.close()
  t.strictSame([...await redis.keys(), ...await redis.channels()], [])
})

t.test('an instance that is closed while it still waits for Redis ends at once', async t => {
  const local = new Local({ redis: `redis://127.0.0.1:${await freePort()}`, bootTimeoutMs: 10_000 })
  const began = performance.now()
  const started = local.start(t).then(() => 'started', (error: { code?: string }) => error.code)
  await local.backplane.close()
  t.equal(await started, 'WSG_CLOSED')
  t.ok(performance.now() - began < 1_000)
})

t.test('an instance that closes while Redis hangs does so within its time', async t => {
  const redis = await startRedis(t)
  const local = await new Local({ redis: redis.url }).start(t)
  await local.join('lobby', `${local.instanceId}.1`)
  await local.backplane.subscribe(group('lobby'))
  const instance = await startInstance(t, { redisUrl: redis.url })
  await crowd(t, instance.port, rooms)
  redis.stop()
  const began = performance.now()
  const whole = instance.close().then(() => performance.now() - began)
  await local.backplane.close()
  const tookMs = performance.now() - began
  t.ok(tookMs < 2_000 + slackMs, `the backplane closed after ${Math.round(tookMs)} ms`)
  t.ok(await whole < 5_000, `a whole application after ${Math.round(await whole)} ms`)
  redis.cont()
})
