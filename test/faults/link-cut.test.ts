import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { byRoom, crowd, everyoneHears, spread } from '../helpers/crowd.ts'
import { closeClean, exact, exactWithin, startInstance, startInstances, type Instance } from '../helpers/instance.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'

const joinMs = 1_000
const slackMs = 50
/** Every instance has an inbox and listens to broadcasts to all. */
const ownChannels = (instances: readonly Instance[]): number => instances.length + 1

noUnhandled(t)
const machine = watchMachine(t)

t.test('a link with 5,000 channels is back within 2 s, also when it is cut again and again while they are being subscribed', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const instances = [await startInstance(t, { redisUrl: proxy.url, options: { maxGroupsPerConnection: 10_000 } })]
  const [only] = instances as [Instance]
  const rooms = Array.from({ length: 50 }, (_, guest) => spread(100, 100, `room-${guest}`).join())
  const guests = await crowd(t, only.port, rooms)
  const names = rooms.flatMap(room => room.split(','))
  await exact(instances)
  const channels = await redis.channels()
  t.equal(channels.length, names.length + ownChannels(instances))

  proxy.cut()
  await exactWithin(t, machine, 2_000, 'after the cut', instances, { every: 10 })
  t.strictSame(await redis.channels(), channels, 'all channels are back')

  for (let round = 0; round < 40; round++) {
    proxy.cut()
    // Into every phase: dialling, the handshake, the first and the last SUBSCRIBE.
    await sleep(round * 5)
  }
  proxy.cut()
  await exactWithin(t, machine, 2_000, 'after the last cut', instances, { every: 10 })
  t.strictSame(await redis.channels(), channels, 'all channels are back')
  t.equal((await only.ask('stats')).channelsSubscribed, channels.length)
  t.equal((await only.ask('stats')).channelsWanted, channels.length)
  await redis.admin.publish(channels.find(channel => channel.endsWith('room-49-99')) ?? '', 'nothing that could be understood')
  await until(async () => (await only.ask('stats')).envelopesUnknown === 1)
  await everyoneHears(t, instances, new Map([...byRoom(rooms, guests)].filter((_, index) => index % 100 === 0)), 'after')

  for (const guest of guests) guest.close()
  await exact(instances, { groups: names.filter((_, index) => index % 50 === 0) })
  await closeClean(t, redis, instances)
})

t.test('joins and leaves under way when the link breaks for good settle within their deadline, and are exact when it is back', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const instances = await startInstances(t, 2, { redisUrl: proxy.url })
  const rooms = spread(150, 30)
  const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, rooms)))).flat()
  const others = spread(12, 12, 'other')
  for (let round = 0; round < 6; round++) {
    machine.restart()
    const storm =
      Promise.all(instances.flatMap(instance => guests.filter(({ id }) => id.startsWith(instance.id)).map(async ({ id }, index) => {
      // Not all in one tick: some begin while the write before theirs is on its way.
        await sleep(index % 8)
        return await instance.ask('time', (index + round) % 2 === 0 ? 'join' : 'leave', [id, others[index % 12] ?? ''])
      })))
    await sleep(2 + round)
    await proxy.refuse(true)
    proxy.cut()
    const timed = (await Promise.race([storm, sleep(10_000, [], { ref: false })])).flat()
    t.equal(timed.length, guests.length, 'all settled')
    const slowest = Math.max(...timed.map(({ ms }) => ms))
    machine.within(t, slowest, joinMs + slackMs, `round ${round}: the slowest of ${timed.length} calls`)
    t.strictSame(timed.filter(({ code }) => code !== undefined), [], 'none failed')
    for (const guest of guests.splice(0, 20)) guest.terminate()
    await proxy.refuse(false)
    await exactWithin(t, machine, 2_000, 'when the link is back', instances, { groups: [...rooms, ...others] })
  }
  await closeClean(t, redis, instances)
})
