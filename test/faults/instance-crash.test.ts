import t from 'tap'
import { byRoom, crowd, everyoneHears, spread } from '../helpers/crowd.ts'
import { closeClean, differences, exact, startInstances, sum, type Instance } from '../helpers/instance.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { serve } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

t.test('a killed instance with 1,000 connections is gone from all counts within 21 s, cleaned up by exactly one survivor', async t => {
  const redis = await startRedis(t)
  const [victim, ...survivors] = await startInstances(t, 3, { redisUrl: redis.url }) as [Instance, Instance, Instance]
  const rooms = spread(1_000, 300)
  await crowd(t, victim.port, rooms)
  const fewer = spread(30, 30)
  const guests = (await Promise.all(survivors.map(async ({ port }) => await crowd(t, port, fewer)))).flat()
  await exact([victim, ...survivors])

  await victim.kill()
  const began = performance.now()
  t.not((await differences(survivors, rooms)).length, 0, 'its members are still counted')
  await exact(survivors, { groups: rooms, timeoutMs: 21_000 })
  t.pass(`exact ${Math.round(performance.now() - began)} ms after the kill`)
  await until(async () => await sum(survivors, 'instancesReaped') === 1)
  t.equal(await sum(survivors, 'membersReaped'), 1_000)

  await everyoneHears(t, survivors, byRoom([...fewer, ...fewer], guests), 'after')
  t.equal(await sum(survivors, 'instancesReaped'), 1)
  for (const guest of guests) guest.close()
  await exact(survivors, { groups: rooms })
  await closeClean(t, redis, survivors)
})

t.test('whom a killed instance served is gone for hooks and presence once, within its lease and a third', async t => {
  const redis = await startRedis(t)
  const options = { redisUrl: redis.url, hooks: true, options: { leaseMs: 3_000 } }
  const [victim, ...survivors] = await startInstances(t, 3, options) as [Instance, Instance, Instance]
  const told = async (by: readonly Instance[]): Promise<string[]> =>
    (await Promise.all(by.map(async one => await one.ask('told')))).flat().sort()
  await crowd(t, victim.port, ['lobby', 'lobby', 'attic'], { user: index => index === 0 ? 'ann' : 'bob' })
  const [ann] = await crowd(t, survivors[0].port, ['lobby'], { user: () => 'ann' })
  await until(async () => (await told([victim, ...survivors])).length === 4)
  const gone = async (): Promise<string[]> => (await told(survivors)).filter(line => /^(?:vacated|offline)/.test(line))

  await victim.kill()
  // A machine that is busy with other tests is given twice the time.
  await until(async () => (await gone()).length >= 2, { timeoutMs: 8_000 })
  t.strictSame(await gone(), ['offline bob', 'vacated attic'])
  for (const one of survivors) t.strictSame(await one.ask('people', 'lobby'), ['ann'])
  ann?.close()
  await until(async () => (await gone()).length >= 4)
  t.strictSame(await gone(), ['offline ann', 'offline bob', 'vacated attic', 'vacated lobby'], 'each of them once')
})

t.test('a question to all instances, one of which is killed with it, is answered by the others in time', async t => {
  const redis = await startRedis(t)
  const survivors = await Promise.all([1, 2].map(async () => await serve(t, { redis: redis.url }, () => {})))
  const [a, b] = survivors.map(({ registry }) => registry.instances)
  const [victim] = await startInstances(t, 1, { redisUrl: redis.url }) as [Instance]
  for (const { registry } of survivors) registry.instances.on('load', () => 'here')
  await victim.ask('neverAnswer', 'load')

  const asked = a?.ask('load', null, { timeoutMs: 5_000 })
  // What comes second to each instance comes after the first question.
  await b?.ask('load', null, { timeoutMs: 50 })
  await victim.kill()
  t.strictSame(await asked, { replies: ['here', 'here'], missing: 1 }, 'killed with the question')
  t.strictSame(await a?.ask('load', null), { replies: ['here', 'here'], missing: 0 }, 'killed before')
})
