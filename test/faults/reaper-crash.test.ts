import t from 'tap'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import type { Script } from '../../lib/backplane/redis/link/script.ts'
import { beat, reap, syncMembers } from '../../lib/backplane/redis/membership/scripts.ts'
import { crowd, spread } from '../helpers/crowd.ts'
import { closeClean, exact, exactWithin, startInstance, startInstances, sum, type Instance } from '../helpers/instance.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis, type TestRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'
import { startBackplane } from './log-rig.ts'

noUnhandled(t)
const machine = watchMachine(t)

const keys = new Keys('wsg:')
const namesOf = (id: string): string[] => [keys.index(id), keys.generations, keys.members('room', id), keys.counts('room')]

async function run (redis: TestRedis, script: Script, names: string[], args: Array<string | number>): Promise<unknown> {
  return await redis.admin.eval(script.lua, names.length, ...names, ...args)
}

/** The instances that have a generation. The empty id is the mark of keys that were written anew. */
async function idsIn (redis: TestRedis): Promise<string[]> {
  return (await redis.admin.hkeys(keys.generations)).filter(id => id !== '')
}

t.test('a survivor that dies while it holds the claim, with part of the groups removed, is followed by another', async t => {
  const redis = await startRedis(t)
  const options = { leaseMs: 2_000 }
  const [victim, ...survivors] = await startInstances(t, 3, { redisUrl: redis.url, options }) as [Instance, Instance, Instance]
  const rooms = spread(500, 500)
  await crowd(t, victim.port, rooms)
  const guests = await crowd(t, survivors[0].port, spread(50, 50))
  await exact([victim, ...survivors])

  // Two survivors at once are stopped, so that the claim goes to a process of the test's own, which does what an instance does, and no
  // more.
  for (const { pid } of survivors) process.kill(pid, 'SIGSTOP')
  await victim.kill()
  const claim = async (): Promise<unknown> => await run(
    redis, beat, [keys.leases, keys.instances, keys.generations], ['ByHandDies', 1, 'nonce', 2_000, 2_000, 8, 60_000, 0]
  )
  const claims = await until(async () => {
    const [,, ...claims] = await claim() as [number, number, ...string[]]
    return claims.includes(victim.id) ? claims : undefined
  }, { timeoutMs: 60_000, everyMs: 50 })
  const generation = claims[claims.indexOf(victim.id) + 1] ?? ''
  const some = (await redis.admin.smembers(keys.index(victim.id))).filter(name => name !== '').slice(0, 200)
  const hashes = some.flatMap(name => [keys.counts(name), keys.members(name, victim.id)])
  const [left] = await run(
    redis, reap, [keys.index(victim.id), keys.generations, ...hashes], [victim.id, generation, ...some]
  ) as number[]
  t.equal(left, 300, 'it removed 200 groups of 500 and is heard of no more')
  for (const { pid } of survivors) process.kill(pid, 'SIGCONT')

  await exactWithin(t, machine, 6_000, 'another took over and', survivors, { groups: rooms, timeoutMs: 60_000 })
  // Whoever was stopped beyond its lease may have been claimed too; it is back, and nobody counts it as removed.
  await until(
    async () => await sum(survivors, 'instancesReaped') >= 2, { timeoutMs: 6_000, what: 'the victim and its first reaper to be cleaned up' }
  )
  t.equal(await redis.admin.exists(keys.index(victim.id)), 0)
  for (const guest of guests) guest.close()
  await exact(survivors, { groups: rooms })
  await closeClean(t, redis, survivors)
})

t.test('a survivor that is killed between two steps of cleaning up is followed by one that starts later', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, redis.port)
  const options = { leaseMs: 2_000, operationTimeoutMs: 2_000 }
  const victim = await startInstance(t, { redisUrl: redis.url, options })
  const reaper = await startInstance(t, { redisUrl: proxy.url, options })
  const rooms = spread(1_500, 1_500)
  await crowd(t, victim.port, rooms)
  await crowd(t, reaper.port, spread(20, 20))
  await exact([victim, reaper])
  // Each step takes 100 ms there and as long back.
  proxy.delay(100)
  await victim.kill()
  const left = await until(async () => {
    const left = await redis.admin.scard(keys.index(victim.id))
    return left > 0 && left < 1_500 ? left : undefined
  }, { timeoutMs: 60_000, everyMs: 5, what: 'the reaper to be at work' })
  await reaper.kill()
  t.pass(`killed with about ${left} of 1,500 groups left to remove`)

  const late = await startInstance(t, { redisUrl: redis.url, options })
  const guests = await crowd(t, late.port, ['room-0', 'room-1499'])
  await exact([late], { groups: rooms, timeoutMs: 60_000 })
  await until(async () => await sum([late], 'instancesReaped') === 2, { timeoutMs: 60_000 })
  const removed = await sum([late], 'membersReaped')
  t.ok(removed > 20 && removed <= left + 20, `it removed ${removed} members: the rest of one and those of the other`)
  for (const guest of guests) guest.close()
  await exact([late], { groups: rooms })
  await closeClean(t, redis, [late])
})

t.test('sixty instances that die at once are cleaned up after within a lease and a beat, and none of them writes any more', async t => {
  const redis = await startRedis(t)
  const leaseMs = 3_000
  const { backplane, local } = await startBackplane(t, redis.url, { leaseMs, groups: [] })
  const pipeline = redis.admin.pipeline()
  const ids = Array.from({ length: 60 }, (_, n) => `dead${String(n).padStart(6, '0')}`)
  // As they wrote it themselves, in their last beat and for their last join.
  for (const id of ids) {
    pipeline.eval(beat.lua, 3, keys.leases, keys.instances, keys.generations, id, 1, 'nonce', leaseMs, leaseMs, 0, 60_000, 0)
    pipeline.eval(syncMembers.lua, 4, ...namesOf(id), id, 1, 60_000, 'room', 1, 0, `${id}.1`, '[0,null]')
  }
  await pipeline.exec()
  t.equal(await backplane.count('room'), 60)
  machine.restart()
  const startedAt = performance.now()
  await until(async () => await backplane.count('room') === 0, { timeoutMs: 30_000, everyMs: 20 })
  machine.within(t, performance.now() - startedAt, leaseMs + leaseMs / 3 + 500, 'no ghost is left')
  await until(() => backplane.stats().instancesReaped === 60)
  t.same(await idsIn(redis), [local.instanceId])
  for (const id of ids) {
    const late = await redis.admin.eval(syncMembers.lua, 4, ...namesOf(id), id, 1, 60_000, 'room', 1, 0, `${id}.1`, '[0,null]')
    t.equal(late, -1, 'a late write is refused')
  }
  t.same((await redis.keys()).filter(key => /\{0\}:[mri]:/.test(key)), [])
})

t.test('an instance whose generation Redis lost registers it anew and stores what it has', async t => {
  const redis = await startRedis(t)
  const [one, other] = await startInstances(t, 2, { redisUrl: redis.url }) as [Instance, Instance]
  const guests = await crowd(t, one.port, ['lobby'])
  await exact([one, other])
  await redis.admin.del(keys.generations)
  guests.push(...await crowd(t, one.port, ['lobby', 'den']))
  await exact([one, other])
  t.same(await idsIn(redis), [one.id])
  for (const guest of guests) guest.close()
  await exact([one, other])
  await closeClean(t, redis, [one, other])
})

t.test('a write of a dead instance that arrives after it was cleaned up is found at the second look', async t => {
  const redis = await startRedis(t)
  const [victim, survivor] = await startInstances(t, 2, { redisUrl: redis.url, options: { leaseMs: 1_000 } }) as [Instance, Instance]
  await crowd(t, victim.port, ['lobby'])
  await exact([victim, survivor])
  const members = keys.members('lobby', victim.id)
  const late = await redis.admin.hgetall(members)
  await victim.kill()
  await exact([survivor], { groups: ['lobby'] })
  // The survivor counts the member when it is through, with a search for groups that the list of the victim lacks.
  await until(async () => await sum([survivor], 'membersReaped') === 1)
  t.match(await redis.admin.hget(keys.instances, victim.id), /^F/, 'it is remembered for a second look')

  await redis.admin.hset(members, late)
  await redis.admin.hset(keys.counts('lobby'), { [victim.id]: 1, '#': 1 })
  await redis.admin.sadd(keys.index(victim.id), 'lobby')
  t.equal(await survivor.ask('groupCount', 'lobby'), 1)
  await redis.admin.zadd(keys.leases, 0, victim.id)             // a minute later
  await exact([survivor], { groups: ['lobby'] })
  await until(async () => await redis.admin.hexists(keys.instances, victim.id) === 0)
  t.equal(await redis.admin.zscore(keys.leases, victim.id), null, 'then it is forgotten')
  await closeClean(t, redis, [survivor])
})

t.test('members of an instance that dies while Redis is full are removed as soon as otherwise, and it is forgotten', async t => {
  const redis = await startRedis(t)
  const [victim, survivor] = await startInstances(t, 2, { redisUrl: redis.url, options: { leaseMs: 1_000 } }) as [Instance, Instance]
  await crowd(t, victim.port, ['lobby'])
  await exact([victim, survivor])
  await redis.admin.config('SET', 'maxmemory', '1mb')
  await victim.kill()
  await exact([survivor], { groups: ['lobby'] })
  await until(async () => await sum([survivor], 'instancesReaped') === 1, { what: 'the survivor to be done with it' })
  t.match(await redis.admin.hget(keys.instances, victim.id), /^F/, 'it is remembered for a second look')
  await redis.admin.config('SET', 'maxmemory', '0')
  await closeClean(t, redis, [survivor])
})
