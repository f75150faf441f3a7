import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { crowd, doubled, everyoneHears, type Guest } from '../helpers/crowd.ts'
import { closeClean, exact, startInstance, type Instance } from '../helpers/instance.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'

noUnhandled(t)

/** `CHAOS_SEED=7 CHAOS_MS=60000` runs another or a longer one. */
const seed = Number(process.env.CHAOS_SEED ?? 1)
const lastsMs = Number(process.env.CHAOS_MS ?? 12_000)
const groups = Array.from({ length: 12 }, (_, index) => `group-${index}`)
/** A call waits for an answer for a second or two, and for its process while that stalls. */
const longestMs = 8_000

let state = seed
function random (below: number): number {
  state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
  return Math.floor(state / 65_536) % below
}
function pick<Value> (values: readonly Value[]): Value {
  return values[random(values.length)] as Value
}

/** Stops the server or lets it go on, unless a restart of the same round has just ended it. */
function unlessGone (signal: () => void): void {
  try {
    signal()
  } catch (err) {
    if ((err as NodeJS.ErrnoException).code !== 'ESRCH') throw err
  }
}

t.test(`whatever fails in whatever order: no message twice, no call without an answer, and exact at the end (seed ${seed})`, async t => {
  const redis = await startRedis(t)
  const proxies = [await startProxy(t, redis.port), await startProxy(t, redis.port)]
  const options = { leaseMs: 2_000, lingerMs: 30, maxGroupsPerConnection: 100 }
  const instances = await Promise.all(
    [...proxies.map(({ url }) => url), redis.url].map(async redisUrl => await startInstance(t, { redisUrl, options }))
  )
  const guests: Guest[] = []
  const seen: Guest[] = []
  const late: string[] = []
  const codes: Record<string, number> = {}
  const done: Record<string, number> = {}
  const slowest = { round: 0, ms: 0 }
  const endsAt = performance.now() + lastsMs
  let rounds = 0
  const churn = { on: true }

  const arrive = async (instance: Instance): Promise<void> => {
    const room = Array.from({ length: 1 + random(3) }, () => pick(groups)).join()
    const [guest] = await crowd(t, instance.port, [room], { user: () => `user-${random(20)}` })
    if (guest === undefined) return
    guests.push(guest)
    seen.push(guest)
  }
  await Promise.all(instances.flatMap(instance => Array.from({ length: 20 }, async () => await arrive(instance))))

  const ask = async (
    what: 'join' | 'leave' | 'broadcast' | 'members' | 'groupCount' | 'sendTo' | 'sendToUser', ...args: string[]
  ): Promise<void> => {
    const [timed] = await pick(instances).ask('time', what, args)
    if (timed === undefined || timed.ms > longestMs) late.push(`${what} ${Math.round(timed?.ms ?? 0)} ms`)
    if (timed?.code !== undefined) codes[timed.code] = (codes[timed.code] ?? 0) + 1
  }
  let message = 0
  const life = async (): Promise<void> => {
    while (churn.on) {
      const guest = pick(guests)
      switch (random(9)) {
        case 0: case 1: await ask('join', guest.id, pick(groups)); break
        case 2: case 3: await ask('leave', guest.id, pick(groups)); break
        case 4: await ask('broadcast', pick(groups), `message ${++message}`); break
        case 5: await ask('sendTo', guest.id, `message ${++message}`); break
        case 6: await ask('sendToUser', `user-${random(20)}`, `message ${++message}`); break
        case 7: await ask(pick(['members', 'groupCount'] as const), pick(groups)); break
        case 8: {
          const [leaving] = guests.splice(random(guests.length), 1)
          if (random(2) === 0) leaving?.close()
          else leaving?.terminate()
          await arrive(pick(instances))
        }
      }
      await sleep(random(10))
    }
  }
  const streams = instances.map(async instance => await instance.ask('stream', pick(groups), `stream of ${instance.id}`, 5, lastsMs))

  const faults: Record<string, () => Promise<unknown>> = {
    cut: async () => pick(proxies).cut(),
    'black hole': async () => {
      const proxy = pick(proxies)
      proxy.blackhole(true)
      await sleep(random(3) === 0 ? 5_000 : random(1_500))
      proxy.blackhole(false)
    },
    refusal: async () => {
      const proxy = pick(proxies)
      await proxy.refuse(true)
      proxy.cut()
      await sleep(random(1_500))
      await proxy.refuse(false)
    },
    'slow link': async () => {
      const proxy = pick(proxies)
      proxy.delay(random(60), pick(['all', 'subscribers'] as const))
      await sleep(random(1_000))
      proxy.delay(0)
    },
    'killed subscriptions': async () => await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub'),
    'killed commands': async () => await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes'),
    'script flush': async () => await redis.admin.script('FLUSH'),
    'lost data': async () => await redis.admin.flushall(),
    restart: async () => {
      await redis.kill()
      await sleep(random(800))
      await redis.restart()
    },
    hang: async () => {
      unlessGone(() => redis.stop())
      await sleep(random(2_500))
      unlessGone(() => redis.cont())
    },
    stall: async () => await pick(instances).ask('stall', random(4) === 0 ? 3_000 : random(900))
  }
  while (performance.now() < endsAt) {
    churn.on = true
    const living = Array.from({ length: 12 }, life)
    // One after another, or some at once.
    for (let left = 1 + random(3); left > 0; left--) {
      const names = Array.from({ length: 1 + random(2) }, () => pick(Object.keys(faults)))
      for (const name of names) done[name] = (done[name] ?? 0) + 1
      await Promise.all([...new Set(names)].map(async name => await faults[name]?.()))
      await sleep(random(500))
    }
    churn.on = false
    await Promise.all(living)
    // Whatever one round left wrong, the faults of the next one might heal.
    const ms = await exact(instances, { groups, timeoutMs: 20_000 })
    if (ms > slowest.ms) Object.assign(slowest, { round: rounds, ms })
    rounds++
  }
  await Promise.all(streams)
  t.comment(`${rounds} rounds of ${JSON.stringify(done)}; ${message} messages; refused: ${JSON.stringify(codes)}`)
  t.comment(`exact after ${Math.round(slowest.ms)} ms at the latest, in round ${slowest.round}`)
  await exact(instances, { groups })
  t.strictSame(late, [], 'every call decided')
  t.strictSame(
    Object.keys(codes).filter(code => !['WSG_TIMEOUT', 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_CONNECTION_GONE'].includes(code)), [],
    'and with no other error than these'
  )
  t.strictSame(doubled(seen), [], 'nobody got a message twice')
  const held = await Promise.all(instances.map(async instance => await instance.ask('local')))
  const members = new Map(groups.map(group => {
    const ids = held.flatMap(local => local[group] ?? [])
    return [group, guests.filter(({ id, closed }) => !closed && ids.includes(id))]
  }))
  await everyoneHears(t, instances, members, 'at the end')
  for (const guest of guests) guest.close()
  await exact(instances, { groups })
  await closeClean(t, redis, instances)
})
