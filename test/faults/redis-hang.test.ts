import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { byRoom, crowd, doubled, everyoneHears, spread } from '../helpers/crowd.ts'
import { closeClean, exact, exactWithin, startInstances, type Instance } from '../helpers/instance.ts'
import type { Timed } from '../helpers/instance-process.ts'
import { Local } from '../helpers/local-instance.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

const slackMs = 50
const operationMs = 500
const joinMs = 1_000
const fastMs = 5
const hangMs = 5_000

noUnhandled(t)
const machine = watchMachine(t)

const slowest = (timed: readonly Timed[]): number => Math.max(...timed.map(({ ms }) => ms))
const isDown = async (instance: Instance): Promise<boolean> => (await instance.ask('health')).status === 'down'

t.test('while Redis hangs for 5 s every call settles within its deadline, later at once; nobody gets a message twice', async t => {
  const redis = await startRedis(t)
  const instances = await startInstances(t, 2, { redisUrl: redis.url })
  const [a, b] = instances as [Instance, Instance]
  const rooms = spread(100, 20)
  const users = (index: number): string => `user-${index % 10}`
  const [here, there] = await Promise.all([a, b].map(async ({ port }) => await crowd(t, port, rooms, { user: users })))
  const guests = [...here ?? [], ...there ?? []]
  await exact(instances)
  const local = here?.[0]?.id ?? ''
  const remote = there?.[0]?.id ?? ''
  await a.ask('lag')

  machine.restart()
  const allAlong = watchMachine(t)
  redis.stop()
  const stoppedAt = performance.now()
  // All at once: the breaker is closed, so each of these waits for an answer of its own.
  const calls = await Promise.all([
    a.ask('time', 'broadcast volatile', ['room-0', 'in flight one']),
    a.ask('time', 'broadcast', ['room-1', 'in flight two']),
    a.ask('time', 'members', ['room-0']),
    a.ask('time', 'groupCount', ['room-0']),
    a.ask('time', 'sendToUser', ['user-1', 'in flight three']),
    a.ask('time', 'leave', [local, 'room-0']),
    a.ask('time', 'sendTo', [remote, 'in flight four']),
    a.ask('time', 'join', [local, 'a group that is new here'])
  ])
  const names = ['broadcast volatile', 'broadcast', 'members', 'groupCount', 'sendToUser', 'leave', 'sendTo', 'join']
  for (const [index, [timed]] of calls.entries()) {
    // An append whose outcome is unknown is sent once more.
    const what = names[index] ?? ''
    const limit = what === 'join' ? joinMs : ['broadcast', 'sendToUser'].includes(what) ? 2 * operationMs : operationMs
    machine.within(t, timed?.ms ?? Infinity, limit + slackMs, `${what} decided`)
  }
  t.equal(calls[1]?.[0]?.code, 'WSG_TIMEOUT', 'a logged broadcast says that its outcome is unknown')
  t.equal(calls[6]?.[0]?.code, 'WSG_TIMEOUT', 'a send to another instance says that its outcome is unknown')
  await until(async () => await isDown(a), { what: 'the breaker to open' })

  for (const [what, args] of [
    ['broadcast volatile', ['room-2', 'while down']], ['broadcast', ['room-2', 'never']], ['members', ['room-3']],
    ['groupCount', ['room-3']], ['sendToUser', ['user-2', 'to a user']],
    ['sendTo', [remote, 'never']], ['join', [local, 'room-4']], ['leave', [local, 'room-4']]
  ] as const) {
    machine.restart()
    const timed = await a.ask('time', what, [...args], 20)
    machine.within(t, slowest(timed), fastMs, `${what} decided while the breaker is open`)
  }
  const inRoom2 = here?.filter((_, index) => index % 20 === 2) ?? []
  await until(() => inRoom2.every(({ messages }) => messages.filter(text => text === 'while down').length === 20), {
    what: 'members on the same instance to get it'
  })
  t.pass('members on the same instance get broadcasts, once each')

  await sleep(Math.max(0, hangMs - (performance.now() - stoppedAt)))
  const lag = await a.ask('lag')
  allAlong.within(t, lag, 50, 'the event loop at its latest')
  redis.cont()

  await exactWithin(t, machine, 2_000, 'it woke and', instances, { groups: ['room-4'] })
  await a.ask('join', local, 'room-0')
  await everyoneHears(t, instances, byRoom([...rooms, ...rooms], guests), 'after')
  const messages = doubled(guests).filter(line => !/ (while down|to a user)$/.test(line))
  t.strictSame(messages, [], 'nobody got a message twice, also not those whose PUBLISH hung')
  t.ok(
    inRoom2.every(({ messages }) => messages.filter(text => text === 'while down').length === 20),
    'and what was delivered here alone did not come again'
  )

  for (const guest of guests) guest.close()
  await exact(instances, { groups: rooms })
  await closeClean(t, redis, instances)
})

t.test('after a short hang the volatile messages whose PUBLISH hung come back and are not delivered again', async t => {
  const redis = await startRedis(t)
  const instances = await startInstances(t, 2, { redisUrl: redis.url })
  const [a, b] = instances as [Instance, Instance]
  const [here] = await crowd(t, a.port, ['lobby'])
  const [there] = await crowd(t, b.port, ['lobby'])
  await exact(instances)

  redis.stop()
  const hung = await Promise.all(
    Array.from({ length: 5 }, async (_, index) => await a.ask('broadcast', 'lobby', `hung ${index}`, { volatile: true }))
  )
  t.ok(hung.every(({ scope }) => scope === 'local'), 'they were delivered here')
  await until(async () => await isDown(a))
  // More of them than an instance remembers: these were surely not sent, so they must not push out those that may come back.
  t.strictSame(await a.ask('burst', 'lobby', 'local', 12_000, { volatile: true }), { local: 12_000 })
  redis.cont()

  await until(() => there?.messages.length === 5, { what: 'the hung messages to reach the other instance' })
  t.strictSame(there?.messages, [0, 1, 2, 3, 4].map(index => `hung ${index}`))
  await exact(instances)
  await everyoneHears(t, instances, new Map([['lobby', [here, there].filter(guest => guest !== undefined)]]), 'after')
  t.strictSame(doubled([here, there].filter(guest => guest !== undefined)), [])
  await closeClean(t, redis, instances)
})

t.test('joins, leaves and broadcasts under way when Redis hangs settle in time, and what they did is exact afterwards', async t => {
  const redis = await startRedis(t)
  const instances = await startInstances(t, 2, { redisUrl: redis.url })
  const [a, b] = instances as [Instance, Instance]
  const rooms = spread(200, 40)
  const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, rooms)))).flat()

  const churn = async (instance: Instance, phase: number): Promise<Timed[]> => {
    const ids = guests.map(({ id }) => id).filter(id => id.startsWith(instance.id))
    const timed = await Promise.all(
      ids.map(async (id, index) => await instance.ask('time', (index + phase) % 2 === 0 ? 'join' : 'leave', [id, `other-${index % 10}`]))
    )
    return timed.flat()
  }
  for (let round = 0; round < 3; round++) {
    machine.restart()
    const before = Promise.all(instances.map(async instance => await churn(instance, round)))
    await sleep(3)
    redis.stop()
    await sleep(3)
    const during = Promise.all(instances.map(async instance => await churn(instance, round + 1)))
    const timed = [...await before, ...await during].flat()
    machine.within(t, slowest(timed), joinMs + slackMs, `round ${round}: the slowest of ${timed.length} calls`)
    t.strictSame(timed.filter(({ code }) => code !== undefined), [], 'none failed')
    await until(async () => (await isDown(a)) && (await isDown(b)))
    for (const guest of guests.splice(0, 40)) guest.terminate()
    redis.cont()
    await exact(instances, { groups: [...rooms, ...spread(10, 10, 'other')] })
  }
  for (const guest of guests) guest.close()
  await exact(instances, { groups: [...rooms, ...spread(10, 10, 'other')] })
  await closeClean(t, redis, instances)
})

t.test('a join that comes when the lease just ran out, with its renewal on its way, is stored as soon as that is answered', async t => {
  const redis = await startRedis(t)
  const leaseMs = 1_500
  const local = await new Local({ redis: redis.url, leaseMs, operationTimeoutMs: 5_000 }).start(t)
  const leaseAgeMs = (): number => local.backplane.stats().leaseAgeMs ?? Infinity
  // The next beat is sent before a third of the lease is over.
  await until(() => leaseAgeMs() < 100, { everyMs: 1 })
  await until(() => leaseAgeMs() > leaseMs / 5, { everyMs: 1 })
  redis.stop()
  await until(() => leaseAgeMs() > leaseMs, { everyMs: 1 })
  await t.rejects(local.join('lobby', `${local.instanceId}.1`), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
  redis.cont()
  await until(() => local.backplane.state === 'up', { timeoutMs: 10_000, what: 'the instance to be up' })
  t.equal(await local.backplane.count('lobby'), 1)
})
