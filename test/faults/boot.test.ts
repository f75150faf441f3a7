import t from 'tap'
import { connect, createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import type { WebsocketGroupsOptions } from '../../plugin.ts'
import { byRoom, crowd, everyoneHears, spread } from '../helpers/crowd.ts'
import { closeClean, exactWithin, startInstance, startInstances } from '../helpers/instance.ts'
import { group, Local } from '../helpers/local-instance.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { freePort } from '../helpers/ports.ts'
import { startRedis } from '../helpers/redis.ts'
import { service } from '../helpers/service.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'

noUnhandled(t)
const machine = watchMachine(t)

const bootTimeoutMs = 1_500
/** Of a process that has much to load at that moment. */
const slackMs = 500
const rooms = spread(60, 20)

for (const absence of ['refuses connections', 'accepts connections and never answers'] as const) {
  t.test(`a Redis that ${absence} at boot: ready within bootTimeoutMs, and members are registered within 2 s of its arrival`, async t => {
    const redis = await startRedis(t)
    const proxy = await startProxy(t, redis.port)
    const hides = async (on: boolean): Promise<void> => {
      if (absence === 'refuses connections') await proxy.refuse(on)
      else proxy.blackhole(on)
    }
    await hides(true)
    machine.restart()
    const instances = await startInstances(t, 2, { redisUrl: proxy.url, options: { bootTimeoutMs } })
    for (const { bootMs } of instances) {
      t.ok(bootMs >= bootTimeoutMs)
      machine.within(t, bootMs, bootTimeoutMs + slackMs, 'ready')
    }
    for (const instance of instances) {
      const { status, ready, problems } = await instance.ask('health')
      t.strictSame({ status, ready }, { status: 'down', ready: true })
      t.not(problems.length, 0)
    }
    const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, rooms)))).flat()
    t.ok(guests.every(({ scope }) => scope === 'local'))
    t.equal((await instances[0]?.ask('broadcast', 'room-3', 'local', { volatile: true }))?.scope, 'local')

    await hides(false)
    await exactWithin(t, machine, 2_000, 'Redis is there and', instances)
    await everyoneHears(t, instances, byRoom([...rooms, ...rooms], guests), 'after')
    await closeClean(t, redis, instances)
  })
}

t.test('with outage.boot = fail an absent Redis stops the boot, and says why', async t => {
  const port = await freePort()
  const options = { bootTimeoutMs, outage: { boot: 'fail' } } as const
  machine.restart()
  const error = await startInstance(t, { redisUrl: `redis://127.0.0.1:${port}`, options }).then(
    () => undefined, (error: Error & { code?: string, afterMs?: number }) => error
  )
  t.equal(error?.code, 'WSG_BACKPLANE_UNAVAILABLE')
  t.match(error?.message, /at boot.*ECONNREFUSED/)
  machine.within(t, error?.afterMs ?? Infinity, bootTimeoutMs + slackMs, 'refused')
})

t.test('a wrong password fails the boot clearly and at once', async t => {
  const redis = await startRedis(t)
  await redis.admin.config('SET', 'requirepass', 'right')
  for (const [url, reason] of [[redis.url, /NOAUTH/], [redis.url.replace('//', '//:wrong@'), /WRONGPASS|invalid password/]] as const) {
    machine.restart()
    const error = await startInstance(t, { redisUrl: url, options: { bootTimeoutMs: 5_000 } }).then(
      () => undefined, (error: Error & { afterMs?: number }) => error
    )
    t.match(error?.message, reason)
    machine.within(t, error?.afterMs ?? Infinity, 1_000, 'refused')
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
  await t.rejects(startInstance(t, { redisUrl: url }), {
    code: 'WSG_REDIS_UNSUPPORTED', message: new RegExp(`version ${older.replaceAll('.', '\\.')}; 6\\.2 or newer`)
  })
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

t.test('where Fastify waits for less than bootTimeoutMs, the boot without Redis comes in time', async t => {
  const hole = createServer(socket => { t.teardown(() => socket.destroy()) })
  t.teardown(() => hole.close())
  await new Promise<void>(resolve => hole.listen(0, '127.0.0.1', resolve))
  const redis = `redis://127.0.0.1:${(hole.address() as AddressInfo).port}`
  const pluginTimeout = 3_000
  const { app } = await service(t, { redis }, { pluginTimeout })
  await app.ready()
  t.match(app.registry.health(), { status: 'down', ready: true })

  const { app: failing } = await service(t, { redis, outage: { boot: 'fail' } }, { pluginTimeout })
  await t.rejects(async () => await failing.ready(), { code: 'WSG_BACKPLANE_UNAVAILABLE', message: /after 2000 ms/ })
  const { app: short } = await service(t, { redis }, { pluginTimeout: 900 })
  t.match(short.registry.describe(), { options: { bootTimeoutMs: 600 } })
})

t.test('a Redis that answers, but not when it has to write, holds the boot up for bootTimeoutMs and no longer', async t => {
  const redis = await startRedis(t)
  await redis.admin.call('CLIENT', 'PAUSE', 60_000, 'WRITE')
  const { app } = await service(t, { redis: redis.url, bootTimeoutMs, operationTimeoutMs: 2_000 })
  machine.restart()
  const startedAt = performance.now()
  await app.ready()
  machine.within(t, performance.now() - startedAt, bootTimeoutMs + slackMs, 'ready')
  t.match(app.registry.health(), { ready: true, problems: [/./] })
  t.not(app.registry.health().status, 'up')
  await redis.admin.call('CLIENT', 'UNPAUSE')
})

t.test('a bootTimeoutMs that is longer than Fastify waits is refused, with the numbers', async t => {
  const register = async (pluginTimeout: number, options: WebsocketGroupsOptions): Promise<void> => {
    await service(t, options, { pluginTimeout })
  }
  const redis = `redis://127.0.0.1:${await freePort()}`
  await t.rejects(register(10_000, { redis, bootTimeoutMs: 12_000 }), {
    code: 'WSG_OPTION_INVALID',
    message: /bootTimeoutMs is 12000, .* pluginTimeout of 10000 ms .* at most 9000/
  })
  await register(0, { redis, bootTimeoutMs: 12_000 })
  await register(10_000, { bootTimeoutMs: 12_000 })
})
