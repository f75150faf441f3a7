import t from 'tap'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { byRoom, crowd, everyoneHears, spread } from '../helpers/crowd.ts'
import { closeClean, exact, exactWithin, startInstances } from '../helpers/instance.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'

const perInstance = 150
const groups = 30
const backWithinMs = 2_000
const rooms = spread(perInstance, groups)

noUnhandled(t)
const machine = watchMachine(t)

for (const kept of [false, true]) {
  t.test(`after a SIGKILL and a restart ${kept ? 'with its data' : 'without any data'}, all members are back within 2 s`, async t => {
    const folder = mkdtempSync(join(tmpdir(), 'redis-aof-'))
    t.teardown(() => rmSync(folder, { recursive: true }))
    const redis = await startRedis(t, kept ? { appendonly: folder } : {})
    const instances = await startInstances(t, 3, { redisUrl: redis.url })
    const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, rooms)))).flat()
    await exact(instances)
    await everyoneHears(t, instances, byRoom([...rooms, ...rooms, ...rooms], guests), 'before')

    await redis.kill()
    await until(
      async () => (await Promise.all(instances.map(async one => await one.ask('health')))).every(({ status }) => status === 'down')
    )

    // Life goes on meanwhile: some leave, some vanish, some come, some of them into groups that did not exist.
    for (const guest of guests.splice(0, 20)) guest.close()
    for (const guest of guests.splice(0, 20)) guest.terminate()
    const late = [...spread(30, 15), ...spread(10, 5, 'new')]
    const arrived = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, late)))).flat()
    t.ok(arrived.every(({ scope }) => scope === 'local'), 'who joins meanwhile is told that it counts here only')

    await redis.restart()
    await exactWithin(t, machine, backWithinMs, 'Redis is back and', instances)
    const everyone = byRoom([...rooms, ...rooms, ...rooms, ...late, ...late, ...late].slice(40), [...guests, ...arrived])
    await everyoneHears(t, instances, everyone, 'after')

    for (const guest of [...guests, ...arrived]) guest.close()
    await exact(instances, { groups: [...rooms, ...late] })
    await closeClean(t, redis, instances)
  })
}

t.test('a Redis that comes back with older data than it had is corrected, also where the number of members is the same', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'redis-aof-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const redis = await startRedis(t, { appendonly: folder })
  const proxy = await startProxy(t, redis.port)
  const instances = await startInstances(t, 2, { redisUrl: proxy.url })
  const [first] = instances
  const [old, stays] = await crowd(t, first?.port ?? 0, ['lobby', 'lobby'])
  await exact(instances)
  const key = (await redis.keys()).find(key => key.endsWith(`m:lobby:${first?.id ?? ''}`)) ?? ''
  const before = await redis.admin.hgetall(key)

  old?.close()
  const [replacement] = await crowd(t, first?.port ?? 0, ['lobby'])
  await exact(instances)

  // What a replica without the latest writes, or an append-only file that was not synced, would have.
  await redis.kill()
  await proxy.refuse(true)
  await redis.restart()
  await redis.admin.del(key)
  await redis.admin.hset(key, before)
  await proxy.refuse(false)

  await exactWithin(t, machine, backWithinMs, 'Redis is back and', instances)
  for (const guest of [stays, replacement]) guest?.close()
  await exact(instances, { groups: ['lobby'] })
  await closeClean(t, redis, instances)
})

t.test('a Redis that needs seconds to load its data is waited for', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'redis-aof-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const redis = await startRedis(t, { appendonly: folder, args: ['--key-load-delay', '1500'] })
  const instances = await startInstances(t, 2, { redisUrl: redis.url })
  const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, rooms)))).flat()
  await redis.admin.eval("for i = 1, 4000 do redis.call('SET', 'filler-' .. i, i) end", 0)
  await exact(instances)

  const began = performance.now()
  await redis.restart()
  t.ok(performance.now() - began > 4_000, `it was loading for ${Math.round(performance.now() - began)} ms`)
  await exactWithin(t, machine, backWithinMs, 'the data is loaded and', instances)
  await everyoneHears(t, instances, byRoom([...rooms, ...rooms], guests), 'after')
  await redis.admin.eval("for i = 1, 4000 do redis.call('DEL', 'filler-' .. i) end", 0)
  await closeClean(t, redis, instances)
})
