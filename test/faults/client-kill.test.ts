import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { byRoom, crowd, doubled, everyoneHears, spread, type Guest } from '../helpers/crowd.ts'
import { closeClean, exact, exactWithin, startInstances } from '../helpers/instance.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis, type TestRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const machine = watchMachine(t)

/** Cuts the links of one type, the admin's own left out. Resolves with how many there were. */
async function killClients (redis: TestRedis, type: 'pubsub' | 'normal'): Promise<number> {
  return Number(await redis.admin.call('CLIENT', 'KILL', 'TYPE', type, 'SKIPME', 'yes'))
}

for (const type of ['pubsub', 'normal'] as const) {
  t.test(`after CLIENT KILL TYPE ${type} subscriptions and memberships are back, and nothing arrives twice`, async t => {
    const redis = await startRedis(t)
    const instances = await startInstances(t, 3, { redisUrl: redis.url })
    const rooms = spread(100, 40)
    const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, rooms)))).flat()
    const channels = await redis.channels()
    const everyone = byRoom([...rooms, ...rooms, ...rooms], guests)
    for (let round = 0; round < 5; round++) {
      const streams = instances.map(async one => await one.ask('stream', 'room-1', `round ${round} from ${one.id}`, 2, 300))
      await sleep(50 + round * 20)
      t.ok(await killClients(redis, type) >= instances.length)
      await Promise.all(streams)
      await exactWithin(t, machine, 2_000, 'after the kill', instances)
      await everyoneHears(t, instances, everyone, `after round ${round}`)
    }
    t.strictSame(doubled(guests), [], 'nothing arrived twice')
    t.strictSame(await redis.channels(), channels, 'the same channels as before')
    for (const guest of guests) guest.close()
    await exact(instances, { groups: rooms })
    await closeClean(t, redis, instances)
  })
}

t.test('who joins while the subscriptions are being cut is counted all the same', async t => {
  const redis = await startRedis(t)
  const instances = await startInstances(t, 2, { redisUrl: redis.url })
  const [a] = instances
  const guests: Guest[] = []
  let local = 0
  for (let round = 0; round < 15; round++) {
    const joining = crowd(t, a?.port ?? 0, spread(40, 40, `round-${round}`))
    await sleep(2 + round)
    await killClients(redis, 'pubsub')
    const some = await joining
    local += some.filter(({ scope }) => scope === 'local').length
    guests.push(...some)
    // One that comes when the cut is known already.
    guests.push(...await crowd(t, a?.port ?? 0, [`late-${round}`]))
  }
  t.ok(local > 0, `${local} of ${guests.length} joined without a subscription at first`)
  await exactWithin(t, machine, 2_000, 'after the last cut', instances)
  for (const guest of guests) guest.close()
  await exact(instances, { groups: Array.from({ length: 15 }, (_, round) => spread(40, 40, `round-${round}`)).flat() })
  await closeClean(t, redis, instances)
})

t.test('SCRIPT FLUSH under heavy joins, leaves and broadcasts to several groups: no error, exact counts, each message once', async t => {
  const redis = await startRedis(t)
  // Everything is to reach the cluster: a deadline that a busy machine reaches would be an outage.
  const options = { operationTimeoutMs: 20_000, joinTimeoutMs: 20_000 }
  const instances = await startInstances(t, 2, { redisUrl: redis.url, options })
  const rooms = Array.from({ length: 60 }, (_, index) => `pair-${index % 6},pair-${(index + 1) % 6}`)
  const guests = (await Promise.all(instances.map(async ({ port }) => await crowd(t, port, rooms)))).flat()
  const pairs = spread(6, 6, 'pair')
  const others = spread(8, 8, 'other')
  const sent = 150

  const done = new AbortController()
  let flushes = 0
  const flusher = (async () => {
    while (!done.signal.aborted) {
      await redis.admin.script('FLUSH')
      flushes++
      await sleep(1)
    }
  })()
  const outcomes = await Promise.all(instances.flatMap(instance => {
    const own = guests.filter(({ id }) => id.startsWith(instance.id))
    const churn = own.map(async ({ id }, index) => {
      const codes: unknown[] = []
      for (let round = 0; round < 10; round++) {
        const [timed] = await instance.ask('time', round % 2 === 0 ? 'join' : 'leave', [id, others[(index + round - round % 2) % 8] ?? ''])
        codes.push(timed?.code ?? (timed?.value as { scope?: string }).scope ?? timed?.value)
      }
      return codes
    })
    const broadcasts = Array.from({ length: sent }, async (_, n) => {
      await sleep(n * 2)
      return [(await instance.ask('broadcast', pairs, `shared ${n} of ${instance.id}`)).scope]
    })
    return [...churn, ...broadcasts]
  }))
  done.abort()
  await flusher
  t.strictSame([...new Set(outcomes.flat())].sort(), ['cluster', true], `after ${flushes} flushes everything reached the cluster`)
  const heard = ({ messages }: Guest): number => messages.filter(text => text.startsWith('shared')).length
  await until(() => guests.every(guest => heard(guest) >= sent * instances.length))
  t.strictSame(doubled(guests), [], 'everyone is in two of the groups and got each message once')
  const [first] = guests
  t.ok(guests.every(({ messages }) => messages.join() === first?.messages.join()), 'all in the same order')
  await exact(instances, { groups: others })
  for (const guest of guests) guest.terminate()
  await exact(instances, { groups: [...pairs, ...others] })
  await closeClean(t, redis, instances)
})
