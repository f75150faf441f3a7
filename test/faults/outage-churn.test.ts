import t from 'tap'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { byRoom, crowd, everyoneHears, Guest, spread } from '../helpers/crowd.ts'
import { closeClean, exact, exactWithin, startInstances, type Instance } from '../helpers/instance.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const machine = watchMachine(t)

const isDown = async (instance: Instance): Promise<boolean> => (await instance.ask('health')).status === 'down'

t.test('thousands of connections and groups that come and go while Redis is down cost no memory, and are gone when it is back', async t => {
  const redis = await startRedis(t)
  const instances = await startInstances(t, 2, { redisUrl: redis.url }) as [Instance, Instance]
  const [churned] = instances
  const rooms = spread(100, 20)
  const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, rooms)))).flat()
  await exact(instances)
  await redis.kill()
  await until(async () => await isDown(churned))

  let came = 0
  const wave = async (): Promise<void> => {
    const visitors = Array.from(
      { length: 200 }, () => new Guest(churned.port, `/ws/${spread(5, 5, `visit-${++came}`).join()},room-${came % 20}`, `user-${came}`)
    )
    await until(() => visitors.every(({ id }) => id !== ''), { timeoutMs: 60_000 })
    for (const [index, visitor] of visitors.entries()) {
      if (index % 2 === 0) visitor.close()
      else visitor.terminate()
    }
    await until(async () => (await churned.ask('stats')).connections === 100)
  }
  // The first waves fill what has a limit: 200 visitors bring 1,000 groups.
  for (let warm = 0; warm < 12; warm++) await wave()
  const before = await churned.ask('heap')
  for (let more = 0; more < 13; more++) await wave()
  const grown = (await churned.ask('heap')) - before
  t.ok(grown < 2_000_000, `${came} connections with ${came * 5} groups came and went; the latter half left ${Math.round(grown / 1000)} KB`)
  await until(
    async () => (await churned.ask('stats')).channelsWanted === 20 + 2, { what: 'only the channels of those who stayed to be wanted' }
  )

  await redis.restart()
  await exactWithin(t, machine, 2_000, 'Redis is back and', instances)
  t.notOk((await redis.keys()).some(key => key.includes('visit')), 'no trace of the visitors')
  t.notOk((await redis.channels()).some(channel => channel.includes('visit')), 'nor of their channels')
  await everyoneHears(t, instances, byRoom([...rooms, ...rooms], guests), 'after')
  for (const guest of guests) guest.close()
  await exact(instances, { groups: rooms })
  await closeClean(t, redis, instances)
})

t.test('12,000 groups whose members were all replaced during an outage that Redis survived with its data are exact afterwards', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'redis-aof-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const redis = await startRedis(t, { appendonly: folder, args: ['--appendfsync', 'everysec'] })
  const instances = await startInstances(t, 2, { redisUrl: redis.url }) as [Instance, Instance]
  const [replaced] = instances
  const rooms = Array.from({ length: 120 }, (_, guest) => spread(100, 100, `g${guest}`).join())
  const names = rooms.flatMap(room => room.split(','))
  const old = await crowd(t, replaced.port, rooms)
  await exact(instances, { every: 7 })

  await redis.kill()
  await until(async () => await isDown(replaced))
  for (const guest of old) guest.terminate()
  await until(async () => (await replaced.ask('stats')).connections === 0)
  const present = await crowd(t, replaced.port, rooms)

  machine.restart()
  const began = performance.now()
  await redis.restart()
  await until(async () => (await replaced.ask('health')).status === 'up', { timeoutMs: 60_000 })
  machine.within(t, performance.now() - began, 5_000, 'from the start of the server until all is stored')
  await exact(instances, { every: 7 })
  t.equal((await redis.keys()).filter(key => key.includes(':r:')).length, names.length)
  // More than a close gives back within its two seconds on a busy machine.
  for (const guest of present) guest.terminate()
  await exact(instances, { groups: names, every: 7 })
  await closeClean(t, redis, instances)
})
