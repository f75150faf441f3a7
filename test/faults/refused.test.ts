import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { byRoom, crowd, everyoneHears, spread } from '../helpers/crowd.ts'
import { closeClean, exact, exactWithin, startInstances, type Instance } from '../helpers/instance.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis, type TestRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const machine = watchMachine(t)

const rooms = spread(100, 20)

/** How many commands and attempts to connect Redis sees in a second. */
async function load (redis: TestRedis): Promise<{ commands: number, connections: number }> {
  const read = async (): Promise<{ commands: number, connections: number }> => {
    const info = await redis.admin.info('stats')
    const field = (name: string): number => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1])
    return { commands: field('total_commands_processed'), connections: field('total_connections_received') + field('rejected_connections') }
  }
  const before = await read()
  const began = performance.now()
  await sleep(1_000)
  const after = await read()
  const seconds = (performance.now() - began) / 1_000
  return {
    commands: Math.round((after.commands - before.commands) / seconds),
    connections: Math.round((after.connections - before.connections) / seconds)
  }
}

/** Resolves when Redis sees no more load than that: retries come at growing intervals. */
async function calm (redis: TestRedis, most: { readonly commands: number, readonly connections: number }): Promise<void> {
  await until(async () => {
    const { commands, connections } = await load(redis)
    return commands <= most.commands && connections <= most.connections
  }, { timeoutMs: 20_000, what: `at most ${most.commands} commands and ${most.connections} connections in a second` })
}

/** When the first lease ends, on the clock of Redis (milliseconds). */
async function firstLeaseEnd (redis: TestRedis): Promise<number> {
  // A list of pairs in one version of the protocol, a flat one in the other.
  const [, end] = (await redis.admin.call('ZRANGE', 'wsg:{0}:live', 0, 0, 'WITHSCORES') as unknown[]).flat()
  return Number(end)
}

const states = async (
  instances: readonly Instance[]
): Promise<string[]> => await Promise.all(instances.map(async one => (await one.ask('health')).status))

t.test('a user that may not subscribe: joins count, the state says why, few retries, and all is well once it may', async t => {
  const redis = await startRedis(t)
  await redis.admin.call('ACL', 'SETUSER', 'app', 'on', '>secret', '~*', '&*', '+@all')
  const instances = await startInstances(t, 2, { redisUrl: redis.url.replace('redis://', 'redis://app:secret@') })
  const [a] = instances as [Instance]
  const before = await crowd(t, a.port, rooms)
  await exact(instances)

  await redis.admin.call('ACL', 'SETUSER', 'app', '-subscribe')
  const during = await crowd(t, a.port, spread(300, 300, 'new'))
  t.ok(during.every(({ scope }) => scope === 'local'), 'joins to new groups say that they count here only')
  const health = await a.ask('health')
  t.equal(health.status, 'degraded')
  t.match(health.problems, [/^300 channels are not subscribed yet \(.*NOPERM/], 'and the reason is given')
  const { scope } = await a.ask('broadcast', 'new-7', 'hello', { volatile: true })
  t.equal(scope, 'cluster')
  await until(() => during[7]?.messages.includes('hello'), { what: 'members here to hear it all the same' })
  t.equal(during[7]?.messages.length, 1)
  // A second without a beat, which looks after all groups.
  const most = { commands: 60, connections: 0 }
  await calm(redis, most)
  await crowd(t, a.port, spread(100, 100, 'more'))
  await calm(redis, most)

  await redis.admin.call('ACL', 'SETUSER', 'app', '+subscribe')
  await exactWithin(t, machine, 2_000, 'once it may', instances)
  await everyoneHears(t, instances, byRoom(rooms, before), 'after')
  await everyoneHears(t, instances, new Map([['new-7', during.slice(7, 8)]]), 'after')
  await closeClean(t, redis, instances)
})

t.test('a user that may not ask INFO can be used', async t => {
  const redis = await startRedis(t)
  await redis.admin.call('ACL', 'SETUSER', 'app', 'on', '>secret', '~*', '&*', '+@all', '-info')
  const instances = await startInstances(t, 2, { redisUrl: redis.url.replace('redis://', 'redis://app:secret@') })
  t.strictSame(await states(instances), ['up', 'up'])
  const guests = await crowd(t, instances[0]?.port ?? 0, rooms)
  await exact(instances)
  await everyoneHears(t, instances, byRoom(rooms, guests), 'without INFO')
  await closeClean(t, redis, instances)
})

t.test('while Redis is out of memory, volatile messages go on and retries are few; memberships are exact once there is room', async t => {
  const redis = await startRedis(t, { args: ['--maxmemory-policy', 'noeviction'] })
  const instances = await startInstances(t, 2, { redisUrl: redis.url, options: { leaseMs: 3_000 } })
  const [a, b] = instances as [Instance, Instance]
  const before = await crowd(t, a.port, rooms)
  await exact(instances)

  await redis.admin.config('SET', 'maxmemory', '1mb')
  const during = await crowd(t, a.port, [...rooms, ...spread(300, 300, 'new')])
  for (const guest of before.splice(0, 20)) guest.close()
  t.ok(during.every(({ scope }) => scope === 'local'))
  const health = await a.ask('health')
  t.equal(health.status, 'degraded')
  t.match(health.problems.join(), /not all members are stored yet \(.*OOM/, 'and the reason is given')
  await everyoneHears(t, instances, byRoom(rooms.slice(20), before), 'meanwhile', { volatile: true })
  await t.rejects(
    a.ask('broadcast', 'room-3', 'logged'), { code: 'WSG_BACKPLANE_UNAVAILABLE', message: /OOM/ }, 'what cannot be logged is refused'
  )
  await calm(redis, { commands: 600, connections: 0 })
  const end = await firstLeaseEnd(redis)
  await until(async () => await firstLeaseEnd(redis) > end + 3_000, { timeoutMs: 20_000, what: 'all leases to be renewed' })
  t.notMatch((await a.ask('health')).problems.join(), /holds no lease/, 'to renew a lease takes no memory')
  t.match(await a.ask('stats'), { leasesLost: 0 })
  t.ok(Object.values(await b.ask('warnings')).every(count => count < 5), 'the log is not flooded')

  await redis.admin.config('SET', 'maxmemory', '0')
  await exactWithin(t, machine, 3_000, 'once there is room', instances)
  await closeClean(t, redis, instances)
})

t.test('a master that becomes a replica refuses memberships: few retries and reconnects, and exact once it is master again', async t => {
  const redis = await startRedis(t)
  const instances = await startInstances(t, 2, { redisUrl: redis.url, options: { leaseMs: 3_000 } })
  const [a] = instances as [Instance]
  const before = await crowd(t, a.port, rooms)
  await exact(instances)

  await redis.admin.config('SET', 'replica-serve-stale-data', 'yes')
  await redis.admin.call('REPLICAOF', '127.0.0.1', '1')         // nobody is there
  const during = await crowd(t, a.port, [...rooms, ...spread(50, 50, 'new')])
  t.ok(during.every(({ scope }) => scope === 'local'))
  for (const guest of before.splice(0, 20)) guest.close()
  await until(async () => /READONLY/.test((await a.ask('health')).problems.join()), { what: 'the reason to be given' })
  await calm(redis, { commands: 400, connections: 4 })

  await redis.admin.call('REPLICAOF', 'NO', 'ONE')
  await exactWithin(t, machine, 3_000, 'once it is master again', instances)
  await everyoneHears(t, instances, byRoom([...rooms, ...spread(50, 50, 'new')], during), 'after')
  await closeClean(t, redis, instances)
})

t.test('a Redis that lets nobody in any more is called at growing intervals, and found again', async t => {
  const redis = await startRedis(t)
  const instances = await startInstances(t, 2, { redisUrl: redis.url })
  await crowd(t, instances[0]?.port ?? 0, rooms)
  await redis.admin.config('SET', 'maxclients', '1')
  await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub', 'SKIPME', 'yes')
  await until(async () => (await states(instances)).every(state => state === 'down'))
  await calm(redis, { commands: Infinity, connections: 12 })      // attempts of four links
  await redis.admin.config('SET', 'maxclients', '100')
  await exactWithin(t, machine, 2_000, 'once they are let in', instances)
  await closeClean(t, redis, instances)
})
