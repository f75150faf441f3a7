import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { byRoom, crowd, doubled, everyoneHears, spread } from '../helpers/crowd.ts'
import { closeClean, exact, exactWithin, startInstance, startInstances, sum, type Instance } from '../helpers/instance.ts'
import { Local } from '../helpers/local-instance.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const machine = watchMachine(t)

t.test('a black hole of 6 s is noticed within 5 s, healed within 2 s of its end, and doubles nothing', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const instances = await startInstances(t, 2, { redisUrl: proxy.url, options: { leaseMs: 15_000 } })
  const [a, b] = instances as [Instance, Instance]
  const rooms = spread(100, 20)
  const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, rooms)))).flat()
  await exact(instances)

  proxy.blackhole(true)
  machine.restart()
  const beganAt = performance.now()
  const noticed = Promise.all(
    instances.map(async one => await until(async () => (await one.ask('health')).status === 'down', { timeoutMs: 60_000 }))
  )
  // One busy, one idle: an idle instance has to notice by itself.
  const stream = a.ask('stream', 'room-3', 'a', 10, 5_500, { volatile: true })
  await noticed
  machine.within(t, performance.now() - beganAt, 5_000, 'both noticed')
  t.not((await b.ask('health')).problems[0], undefined)
  const { count, scopes, slowestMs } = await stream
  t.same(scopes, { local: count }, 'volatile messages reach the members of this instance')
  machine.within(t, slowestMs, 550, 'the slowest broadcast decided')
  for (const guest of guests.splice(0, 20)) guest.close()
  await sleep(Math.max(0, 6_000 - (performance.now() - beganAt)))
  proxy.blackhole(false)

  await exactWithin(t, machine, 2_000, 'the hole is gone and', instances)
  await everyoneHears(t, instances, byRoom([...rooms, ...rooms].slice(20), guests), 'after')
  t.strictSame(doubled(guests), [])
  await closeClean(t, redis, instances)
})

t.test('an instance that alone is cut off for longer than its lease is reaped by the others, and comes back exact', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const options = { leaseMs: 2_000 }
  const cutOff = await startInstance(t, { redisUrl: proxy.url, options })
  const others = await startInstances(t, 2, { redisUrl: redis.url, options })
  const instances = [cutOff, ...others]
  const rooms = spread(120, 30)
  const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, rooms)))).flat()
  await exact(instances)

  proxy.blackhole(true)
  const began = performance.now()
  await exact(others, { groups: rooms })
  t.pass(`the others count without it after ${Math.round(performance.now() - began)} ms`)
  // On a busy machine one of the others may lose its lease as well, and come back at once: each is cleaned up after once.
  const reapedOnce = async (): Promise<boolean> => {
    const reaped = await sum(instances, 'instancesReaped')
    return reaped >= 1 && reaped <= 1 + await sum(others, 'leasesLost')
  }
  await until(reapedOnce, { what: 'exactly one of them to have done it' })
  const [stays] = guests.splice(0, 1)
  stays?.close()
  await until(async () => (await cutOff.ask('health')).status === 'down')
  proxy.blackhole(false)

  await exactWithin(t, machine, 2_000, 'it was let back and', instances)
  t.ok(((await cutOff.ask('stats')).leasesLost ?? 0) >= 1, 'it knows that it was declared dead')
  t.ok(await reapedOnce(), 'it was done once')
  await everyoneHears(t, instances, byRoom([...rooms, ...rooms, ...rooms].slice(1), guests), 'after')
  t.strictSame(doubled(guests), [])
  await closeClean(t, redis, instances)
})

t.test('after an outage for all that was longer than a lease, nobody who lives is cleaned up after', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const leaseMs = 1_500
  const first = await new Local({ redis: redis.url, leaseMs }).start(t)
  const second = await new Local({ redis: proxy.url, leaseMs }).start(t)
  for (const one of [first, second]) await one.join('lobby', `${one.instanceId}.1`)
  await proxy.refuse(true)
  proxy.cut()
  redis.stop()
  await sleep(2 * leaseMs)
  redis.cont()
  await until(() => first.backplane.state === 'up')
  // The other one needs a little longer.
  await sleep(leaseMs / 3)
  await proxy.refuse(false)
  await until(() => second.backplane.state === 'up')
  t.equal(await first.backplane.count('lobby'), 2)
  t.match(first.backplane.stats(), { instancesReaped: 0, membersReaped: 0 })
  t.equal(second.backplane.stats().leasesLost, 0)
})

t.test('a write that comes late, out of a connection that was given up, does not bring back a member that left meanwhile', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const instances = await Promise.all([proxy.url, redis.url].map(async redisUrl => await startInstance(t, { redisUrl })))
  const [late] = instances as [Instance, Instance]
  const [guest, stays] = await crowd(t, late.port, ['-', 'lobby'])
  await exact(instances)

  // From here on everything takes 6 s, which is longer than a silent connection is kept.
  proxy.delay(6_000)
  const [joined] = await late.ask('time', 'join', [guest?.id ?? '', 'lobby'])
  t.same(joined?.value, { scope: 'local' })
  machine.restart()
  const sentAt = performance.now()
  proxy.delay(0)
  await until(async () => (await late.ask('health')).status === 'down', { timeoutMs: 60_000 })
  await late.ask('leave', guest?.id ?? '', 'lobby')
  await exact(instances, { groups: ['lobby'] })
  machine.within(t, performance.now() - sentAt, 5_900, 'the instance is back before the write arrives')

  await sleep(Math.max(0, 7_000 - (performance.now() - sentAt)))
  await exactWithin(t, machine, 1_000, 'the write has arrived and', instances, { groups: ['lobby'] })
  stays?.close()
  await exact(instances, { groups: ['lobby'] })
  await closeClean(t, redis, instances)
})
