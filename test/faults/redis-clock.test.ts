// The clock of Redis, by which leases end, is set, or is another one after a failover.
import t, { type Test } from 'tap'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { beat, syncMembers } from '../../lib/backplane/redis/membership/scripts.ts'
import { ServerClock } from '../../lib/backplane/redis/membership/server-clock.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis, type TestRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { startBackplane } from './log-rig.ts'

noUnhandled(t)
const keys = new Keys('wsg:')
const leaseMs = 2_000
const hourMs = 3_600_000

async function now ({ admin }: TestRedis): Promise<number> {
  const [seconds = 0] = await admin.time()
  return 1_000 * Number(seconds)
}

async function beatAs ({ admin }: TestRedis, id: string, expectedMs: number): Promise<Array<number | string>> {
  return await admin.eval(
    beat.lua, 3, keys.leases, keys.instances, keys.generations, id, 1, 'nonce', leaseMs, leaseMs, 8, 60_000, expectedMs
  ) as Array<number | string>
}

/** An instance with a member that died, whose lease lasts until `endsAt`. */
async function dead (redis: TestRedis, id: string, endsAt: number): Promise<void> {
  await beatAs(redis, id, 0)
  const names = [keys.index(id), keys.generations, keys.members('room', id), keys.counts('room')]
  await redis.admin.eval(syncMembers.lua, 4, ...names, id, 1, 60_000, 'room', 1, 0, `${id}.1`, '[0,null]')
  await redis.admin.zadd(keys.leases, endsAt, id)
}

t.test('the leases of the dead, from before the clock went back, end as others do', async t => {
  const redis = await startRedis(t)
  await beatAs(redis, 'living', 0)
  await dead(redis, 'ghost', await now(redis) + hourMs)
  await beatAs(redis, 'living', await now(redis))
  t.ok(Number(await redis.admin.zscore(keys.leases, 'ghost')) > await now(redis) + hourMs / 2, 'nothing was noticed')
  await beatAs(redis, 'living', await now(redis) + hourMs)
  t.ok(Number(await redis.admin.zscore(keys.leases, 'ghost')) <= await now(redis) + 2 * leaseMs)
})

t.test('an instance that boots after the clock went back cleans up after the dead', async t => {
  const redis = await startRedis(t)
  await dead(redis, 'ghost', await now(redis) + hourMs)
  const { backplane } = await startBackplane(t, redis.url, { leaseMs, groups: [] })
  t.equal(await backplane.count('room'), 1)
  await until(async () => await backplane.count('room') === 0, { what: 'the member of the dead instance to be gone' })
})

t.test('after the clock went ahead nobody is declared dead before a lease is over', async t => {
  const redis = await startRedis(t)
  await dead(redis, 'another', await now(redis) - hourMs)
  t.strictSame((await beatAs(redis, 'living', await now(redis) - hourMs)).slice(2), [], 'it may live, and renew its lease soon')
  t.match((await beatAs(redis, 'living', await now(redis))).slice(2), ['another', '1'])
})

function clockAt (t: Test): { clock: ServerClock, pass (ms: number): void } {
  let at = 1_000
  t.intercept(performance, 'now', { value: () => at })
  return { clock: new ServerClock(leaseMs), pass: ms => { at += ms } }
}

t.test('a clock that goes ahead is told from one that goes on', async t => {
  const { clock, pass } = clockAt(t)
  t.equal(clock.expectedMs, 0, 'nobody knows')
  clock.shows(50_000, clock.expectedMs)
  pass(700)
  t.equal(clock.expectedMs, 50_700)
  clock.shows(50_700 + leaseMs, clock.expectedMs)
  t.equal(clock.settling, false, 'answers may be late')
  pass(700)
  clock.shows(hourMs, clock.expectedMs)
  t.equal(clock.settling, true)
  pass(leaseMs - 1)
  t.equal(clock.settling, true)
  pass(1)
  t.equal(clock.settling, false)
  clock.shows(1_000, clock.expectedMs)
  t.equal(clock.settling, false, 'one that goes back ends no lease')
})

t.test('the clock of a machine that is set moves no time that all instances share', async t => {
  const redis = await startRedis(t)
  const { backplane } = await startBackplane(t, redis.url, { leaseMs, groups: [] })
  const sharedMs = (): number => backplane.now?.() ?? 0
  const real = Date.now
  t.teardown(() => { Date.now = real })
  for (const jumpMs of [hourMs, -hourMs]) {
    Date.now = () => real() + jumpMs
    const [seconds, microseconds] = await redis.admin.time()
    t.ok(Math.abs(sharedMs() - (1_000 * Number(seconds) + Number(microseconds) / 1_000)) < hourMs / 4, `set by ${jumpMs / hourMs} h`)
  }
})
