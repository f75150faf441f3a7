import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Envelope } from '../../lib/backplane/backplane.ts'
import { encode } from '../../lib/backplane/redis/envelope.ts'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { syncMembers } from '../../lib/backplane/redis/membership/scripts.ts'
import { byRoom, crowd, doubled, everyoneHears, spread } from '../helpers/crowd.ts'
import { messageEnvelope } from '../helpers/envelopes.ts'
import { closeClean, exact, exactWithin, startInstances, type Instance } from '../helpers/instance.ts'
import { group, Local } from '../helpers/local-instance.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const machine = watchMachine(t)

const keys = new Keys('wsg:')

t.test('an instance that stalls for longer than its lease is reaped; when it wakes it registers anew and all is exact', async t => {
  const redis = await startRedis(t)
  const options = { leaseMs: 2_000 }
  const [stalled, ...others] = await startInstances(t, 3, { redisUrl: redis.url, options }) as [Instance, Instance, Instance]
  const instances = [stalled, ...others]
  const rooms = spread(150, 30)
  const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, rooms)))).flat()
  await exact(instances)

  process.kill(stalled.pid, 'SIGSTOP')
  await Promise.all([sleep(7_000), exactWithin(t, machine, 6_500, 'for the others, which count without it,', others, { groups: rooms })])
  const stats = await Promise.all(others.map(async one => await one.ask('stats')))
  const sum = (name: 'instancesReaped' | 'leasesLost'): number => stats.reduce((total, one) => total + (one[name] ?? 0), 0)
  // On a busy machine another one may have stalled for so long, too.
  t.equal(sum('instancesReaped'), 1 + sum('leasesLost'), 'one of them did it')
  for (const guest of guests.splice(0, 10)) guest.terminate()   // it learns of these when it wakes

  process.kill(stalled.pid, 'SIGCONT')
  await exactWithin(t, machine, 2_000, 'it woke and', instances)
  t.equal((await stalled.ask('stats')).leasesLost, 1)
  const record = await redis.admin.hget(keys.instances, stalled.id) ?? ''
  t.match(record, /^A2:/, 'alive, in its second generation')
  await everyoneHears(t, instances, byRoom([...rooms, ...rooms, ...rooms].slice(10), guests), 'after')
  t.strictSame(doubled(guests), [])

  // What the first generation may still have had on the way.
  const late = async (generation: number): Promise<unknown> => await redis.admin.eval(
    syncMembers.lua, 4, keys.index(stalled.id), keys.generations, keys.members('room-0', stalled.id), keys.counts('room-0'),
    stalled.id, generation, 60_000, 'room-0', 1, 0, `${stalled.id}.ghost`, '[0,null]'
  )
  t.equal(await late(1), -1, 'a late write of the old generation is refused')
  await exact(instances)
  for (const guest of guests) guest.close()
  await exact(instances, { groups: rooms })
  t.equal(await late(1), -1, 'also when the instance has no members any more')
  await exact(instances, { groups: rooms })
  await closeClean(t, redis, instances)
})

t.test('an instance that had no members when it was declared dead is fenced all the same', async t => {
  const redis = await startRedis(t)
  const [stalled, other] = await startInstances(t, 2, { redisUrl: redis.url, options: { leaseMs: 1_000 } }) as [Instance, Instance]
  await stalled.ask('stall', 3_500)
  await until(async () => (await stalled.ask('stats')).leasesLost === 1)
  await exact([stalled, other])
  const late = await redis.admin.eval(
    syncMembers.lua, 4, keys.index(stalled.id), keys.generations, keys.members('lobby', stalled.id), keys.counts('lobby'),
    stalled.id, 1, 60_000, 'lobby', 1, 0, `${stalled.id}.1`, '[0,null]'
  )
  t.equal(late, -1)
  await exact([stalled, other], { groups: ['lobby'] })
  await closeClean(t, redis, [stalled, other])
})

t.test('a stall that is shorter than the lease costs nothing: no timeout, no reconnect, calls under way succeed', async t => {
  const redis = await startRedis(t)
  const instances = await startInstances(t, 2, { redisUrl: redis.url })
  const [stalled] = instances as [Instance]
  const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, spread(20, 4))))).flat()
  await exact(instances)
  // The last one is longer than all that a call may take.
  for (const [round, stallMs] of [900, 900, 2_500].entries()) {
    const calls = [
      ...Array.from({ length: 10 }, async (_, index) => await stalled.ask('time', 'broadcast', ['room-1', `${round} ${index}`])),
      stalled.ask('time', 'members', ['room-1']),
      // One of its own, and one of the other instance.
      ...[guests[0], guests.at(-1)].map(async guest => await stalled.ask('time', 'join', [guest?.id ?? '', `new-${round}`]))
    ]
    const stall = stalled.ask('stall', stallMs)
    const outcomes = (await Promise.all(calls)).flat()
    await stall
    t.strictSame(outcomes.filter(({ code }) => code !== undefined), [])
    t.ok(outcomes.every(({ value }) => Array.isArray(value) || (value as { scope: string }).scope === 'cluster'), 'all reached the cluster')
  }
  const { redisTimeouts, redisReconnects } = await stalled.ask('stats')
  t.strictSame({ redisTimeouts, redisReconnects }, { redisTimeouts: 0, redisReconnects: 0 })
  t.strictSame(doubled(guests), [])
  await closeClean(t, redis, instances)
})

t.test('a flood of messages that takes seconds to deliver does not make an instance give up the connection that it comes by', async t => {
  const redis = await startRedis(t)
  const count = 50_000
  const slow = new class extends Local {
    override deliver (envelope: Envelope): void {
      super.deliver(envelope)
      const until = performance.now() + 0.1
      while (performance.now() < until) { /* a tenth of a millisecond's work */ }
    }
  }({ redis: redis.url })
  await slow.start(t)
  await slow.backplane.subscribe(group('flooded'))
  const target = group('flooded')
  const bytes = encode(messageEnvelope('', { origin: 'TheFlooder' }), target)
  const began = performance.now()
  // By Redis itself, so that they come faster than they are taken; in parts, as a script of seconds would make Redis itself silent.
  const flood = "for i = ARGV[3], ARGV[4] do redis.call('PUBLISH', ARGV[1], ARGV[2] .. math.floor(i)) end"
  for (let n = 0; n < count; n += 5_000) await redis.admin.eval(flood, 0, keys.channel(target), bytes, n + 1, n + 5_000)
  await until(() => slow.received.length === count, { timeoutMs: 60_000, everyMs: 100 })
  t.ok(performance.now() - began > 4_000, 'it took longer than a silent connection is kept')
  t.ok(slow.received.every(({ payload }, index) => payload.toString() === String(index + 1)), 'all of them arrived, in order')
  t.equal(slow.backplane.stats().redisReconnects, 0)
  await slow.backplane.close()
  t.strictSame([...await redis.keys(), ...await redis.channels()], [])
})
