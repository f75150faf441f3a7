import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import { onEveryCluster, onRedis, redisCluster, type Opened, type TestInstance } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const redis = await startRedis(t)

/** All bytes that Redis sent to anyone so far. */
async function bytesOut (admin: Redis): Promise<number> {
  return Number(/^total_net_output_bytes:(\d+)/m.exec(await admin.info('stats'))?.[1])
}

/** How often a command was called since the counters were reset. */
async function calls (admin: Redis): Promise<Record<string, number>> {
  const stats = await admin.info('commandstats')
  return Object.fromEntries(
    [...stats.matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm)].map(([, command = '', count]) => [command, Number(count)])
  )
}

async function subscribed (admin: Redis, channel: string): Promise<number> {
  const [, count] = await admin.pubsub('NUMSUB', `wsg:{0}:c:${channel}`) as [string, number]
  return count
}

const groups = Array.from({ length: 100 }, (_, n) => `group-${n}`)

onRedis(t, redis, 'each message goes to the instances with a member and to no other', async (t, cluster, logged) => {
  const instances = [await cluster.start(), await cluster.start(), await cluster.start()]
  const publisher = await cluster.start()
  const members = new Map<TestInstance, Opened>()
  for (const instance of instances) members.set(instance, await instance.open())
  const holders = groups.map((_, n) => instances.filter((_, index) => n % 3 === index || n % 5 === index))
  await Promise.all(groups.flatMap(
    (group, n) => (holders[n] ?? []).map(async instance => await instance.registry.join(members.get(instance)?.id ?? '', group))
  ))

  t.strictSame(
    await Promise.all(groups.map(async group => await subscribed(redis.admin, `g:${group}`))), holders.map(({ length }) => length),
    'PUBSUB NUMSUB'
  )
  const before = new Map(instances.map(instance => [instance, Number(instance.registry.stats().messagesDelivered)]))
  const results = await Promise.all(groups.map(async group => await publisher.registry.broadcastToGroup(group, group)))
  if (!logged) t.strictSame(results.map(({ instances }) => instances), holders.map(({ length }) => length), 'what PUBLISH answered')
  for (const instance of instances) {
    const expected = groups.filter((_, n) => holders[n]?.includes(instance))
    const client = members.get(instance)?.client
    await until(() => client?.messages.length === 1 + expected.length)
    t.strictSame(client?.messages.slice(1).sort(), [...expected].sort())
    t.equal(Number(instance.registry.stats().messagesDelivered) - (before.get(instance) ?? 0), expected.length)
  }
  t.equal(publisher.registry.stats().messagesDelivered, 0, 'the publisher is no member')
}, 'both')

t.test('Redis sends the bytes of a message once to each instance with a member, and to nobody else', async (t) => {
  const own = await startRedis(t)
  const cluster = await redisCluster(t, own)
  const [publisher, idle, busy] = [await cluster.start(), await cluster.start(), await cluster.start()]
  const quiet = await idle.enter('quiet')
  const loud = await busy.enter('loud')
  const payload = 'x'.repeat(10_000)
  const sentBy = async (send: () => Promise<unknown>): Promise<number> => {
    const before = await bytesOut(own.admin)
    for (let n = 0; n < 200; n++) await send()
    return await bytesOut(own.admin) - before
  }
  const nowhere = await sentBy(async () => await publisher.registry.broadcastToGroup('nobody', payload))
  t.ok(nowhere < 50_000, `${nowhere} bytes for 2 MB to a group without members`)
  const once = await sentBy(async () => await publisher.registry.broadcastToGroup('loud', payload))
  t.ok(once > 2_000_000 && once < 2_100_000, `${once} bytes for 2 MB to a group with members on one of three instances`)
  await busy.enter('loud')
  const still = await sentBy(async () => await publisher.registry.broadcastToGroup('loud', payload))
  t.ok(still < 2_100_000, `${still} bytes for 2 MB when that instance has two members`)
  await until(() => loud.client.messages.length === 401)
  await publisher.registry.broadcastToGroup('quiet', 'y')
  t.equal(await quiet.client.next(), 'y', 'and the others are reached when there is something for them')
  t.strictSame(await cluster.close(), [])
})

onRedis(t, redis, 'a channel goes when the last local member left and the linger is over, and not before', async (t, cluster) => {
  const lingerMs = 1_500
  const a = await cluster.start({ lingerMs })
  const [first, second] = [await a.enter('lingering'), await a.enter('lingering')]
  await a.registry.leave(first.id, 'lingering')
  await a.registry.leave(second.id, 'lingering')
  const left = performance.now()
  t.equal(await subscribed(redis.admin, 'g:lingering'), 1, 'it lingers')
  await until(async () => await subscribed(redis.admin, 'g:lingering') === 0)
  t.ok(performance.now() - left > lingerMs - 10)
  t.strictSame((await redis.channels()).filter(channel => channel.includes(':g:')), [])
  t.strictSame(await redis.admin.keys('*lingering*'), [])
})

onRedis(t, redis, 'a group that is wanted again within the linger is not subscribed anew', async (t, cluster) => {
  const a = await cluster.start({ lingerMs: 2_000 })
  const { id, client } = await a.open()
  await a.registry.join(id, 'back')
  await redis.admin.config('RESETSTAT')
  for (let n = 0; n < 20; n++) {
    await a.registry.leave(id, 'back')
    await a.registry.join(id, 'back')
  }
  const { subscribe = 0, unsubscribe = 0 } = await calls(redis.admin)
  t.strictSame({ subscribe, unsubscribe }, { subscribe: 0, unsubscribe: 0 })
  await a.registry.broadcastToGroup('back', 'x')
  t.equal(await client.next(), 'x')
})

/** What some work makes Redis do, with what is asked while nobody does anything left out. */
async function callsOf (work: () => Promise<unknown>): Promise<Record<string, number>> {
  await redis.admin.config('RESETSTAT')
  await work()
  const { ping: _ping, config: _config, info: _info, 'config|resetstat': _reset, ...made } = await calls(redis.admin)
  return made
}

/** As `callsOf`, for ten broadcasts to a group, one after another. */
async function callsOfTen (instance: TestInstance, members: readonly Opened[], group: string): Promise<Record<string, number>> {
  return await callsOf(async () => {
    for (let n = 0; n < 10; n++) await instance.registry.broadcastToGroup(group, String(n))
    for (const { client } of members) await client.nextWhere(message => message === '9')
  })
}

onRedis(t, redis, 'a broadcast is one command, whatever the number of members', async (t, cluster, logged) => {
  // No beat of a lease while the commands are counted.
  const [a, b] = [await cluster.start({ leaseMs: 600_000 }), await cluster.start({ leaseMs: 600_000 })]
  const many = await Promise.all([a, b].flatMap(instance => Array.from({ length: 10 }, async () => await instance.enter('many'))))
  const one = [await b.enter('one')]
  await a.registry.broadcastToGroup('many', 'warm')
  const made = await callsOfTen(a, many, 'many')
  if (logged) {
    t.match(made, { evalsha: 10, publish: 10, rpush: 10 }, 'one script each, that appends and publishes')
    await a.registry.broadcastToGroup('one', 'warm')
    t.strictSame(await callsOfTen(a, one, 'one'), made, 'for one member of one instance it does the same')
  } else {
    t.strictSame(made, { publish: 10 }, 'and nothing else was asked of Redis')
  }
}, 'both')

onRedis(t, redis, 'what Redis does for a logged message and for a join is this, and nothing else', async (t, cluster) => {
  const a = await cluster.start({ leaseMs: 600_000, log: { maxMessages: 16, ttlMs: 300_000 } })
  const { registry } = a
  const [{ id }] = [await a.open(), await a.enter('busy')]
  // Metas are written again every 16 messages, and when a message is larger than all before.
  const send = async (withKey: boolean): Promise<void> => {
    for (let n = 0; n < 16; n++) await registry.broadcastToGroup('busy', 'x', withKey ? { idempotencyKey: `${Math.random()}` } : {})
  }
  await send(false)
  await send(false)
  const logged = { evalsha: 16, time: 16, hmget: 16, hset: 16, rpush: 16, lpop: 16, pexpire: 17, publish: 16 }
  t.strictSame(await callsOf(async () => await send(false)), logged, '16 messages to a full log')
  t.strictSame(await callsOf(async () => await send(true)), { ...logged, get: 16, set: 16 }, 'with idempotency keys')

  const join = { evalsha: 1, hget: 1, hset: 2, hlen: 1, hmget: 1, sadd: 1 }
  t.strictSame(await callsOf(async () => await registry.join(id, 'busy')), join, 'a join to a group that has members here')
  t.match(await callsOf(async () => await registry.join(id, 'new')), { evalsha: 2, subscribe: 1, hset: 2, sadd: 1 }, 'and to another')
})

onRedis(t, redis, 'a volatile broadcast to many groups is one command', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const { client } = await b.enter('many')
  await redis.admin.config('RESETSTAT')
  await a.registry.broadcastToGroup(['many', ...groups], 'several', { volatile: true })
  t.equal(await client.next(), 'several')
  const several = await calls(redis.admin)
  t.equal((several.eval ?? 0) + (several.evalsha ?? 0), 1)
}, 'both')

onRedis(t, redis, 'the publishes of one turn of the event loop travel together, logged and volatile ones', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const { client } = await b.enter('together')
  const reads = async (): Promise<number> => Number(/^total_reads_processed:(\d+)/m.exec(await redis.admin.info('stats'))?.[1])
  await a.registry.broadcastToGroup('warm', 'Redis knows the script from here on')
  for (const volatile of [true, false]) {
    // Each log is appended to by a script of its own.
    const other = (n: number): string => volatile ? `nobody-${n}` : 'nobody'
    const before = await reads()
    await Promise.all(Array.from(
      { length: 200 }, async (_, n) => await a.registry.broadcastToGroup(n % 2 === 0 ? 'together' : other(n), String(n), { volatile })
    ))
    const taken = await reads() - before
    t.ok(taken < 15, `Redis read ${taken} times for 200 ${volatile ? 'volatile' : 'logged'} messages`)
    await client.nextWhere(message => message === '198')
  }
})

onRedis(t, redis, 'a storm of joins reaches Redis as few commands, and is stored exactly', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const opened = await Promise.all(Array.from({ length: 10 }, async () => await a.open()))
  await b.open()
  await redis.admin.config('RESETSTAT')
  const joins = groups.flatMap((group, n) => opened.slice(n % 10).map(({ id }) => ({ group, id })))
  // A few at a time, as real clients come.
  await Promise.all(joins.map(async ({ group, id }, n) => {
    await sleep(n / 10)
    await a.registry.join(id, group)
  }))
  const { subscribe = 0, evalsha = 0, hset = 0 } = await calls(redis.admin)
  t.ok(subscribe < 60 && evalsha < 120, `${joins.length} joins: ${subscribe} SUBSCRIBE, ${evalsha} scripts`)
  t.ok(hset >= groups.length, 'what a script does inside is counted')
  const members = async (): Promise<number[]> => await Promise.all(groups.map(async group => await b.registry.groupCount(group)))
  t.strictSame(await members(), groups.map((_, n) => 10 - n % 10))
  await Promise.all(opened.slice(1).map(async ({ id }) => await a.registry.leaveAll(id)))
  t.strictSame(await members(), groups.map((_, n) => n % 10 === 0 ? 1 : 0), 'also when some of the groups of a call end with it')
  t.strictSame(
    (await redis.admin.smembers(`wsg:{0}:i:${a.id}`)).sort(), groups.filter((_, n) => n % 10 === 0).sort(), 'the index of the instance'
  )
})

onRedis(t, redis, 'connections that come and go leave no subscription and no key behind', async (t, cluster) => {
  const a = await cluster.start({ lingerMs: 0 })
  for (let round = 0; round < 5; round++) {
    const opened = await Promise.all(Array.from({ length: 20 }, async (_, n) => await a.enter(`room-${n % 7}`, { user: `user-${n % 5}` })))
    await Promise.all(opened.map(async ({ client }, n) => n % 2 === 0 ? await client.close() : client.terminate()))
  }
  await until(() => a.registry.count() === 0)
  await until(async () => (await redis.channels()).length === 2, { what: 'only the instance\'s inbox and the channel for all to remain' })
  t.strictSame(await redis.channels(), ['wsg:{0}:c:all', `wsg:{0}:c:i:${a.id}`])
  const lives = ['wsg:{0}:gen', 'wsg:{0}:inst', 'wsg:{0}:live', 'wsg:{0}:c:all', `wsg:{0}:c:i:${a.id}`]
  await until(async () => (await redis.leftovers()).length === lives.length, { what: 'only what says that the instance lives to remain' })
  t.strictSame(await redis.leftovers(), lives)
  t.equal(a.registry.stats().groups, 0)
})

onEveryCluster(t, redis, 'two clusters do not hear each other', async (t, cluster) => {
  const other = cluster.name === 'redis' ? { keyPrefix: 'other:' } : { backplane: undefined }
  const [a, b] = [await cluster.start(), await cluster.start(other)]
  const [x, y] = [await a.enter('same', { user: 'ann' }), await b.enter('same', { user: 'ann' })]
  t.equal(await a.registry.groupCount('same'), 1)
  t.strictSame((await b.registry.members('same')).map(({ connectionId }) => connectionId), [y.id])
  t.strictSame(await a.registry.broadcastToAll('all'), { scope: 'cluster', localRecipients: 1, instances: 1 })
  await a.registry.broadcastToGroup(['same', 'more'], 'group')
  await a.registry.sendToUser('ann', 'user')
  t.equal(await a.registry.sendTo(y.id, 'direct'), false)
  t.equal(await a.registry.disconnect(y.id), 0)
  t.equal(await b.registry.disconnect({ userId: 'ann' }, { code: 4000 }), 1)
  t.equal((await y.client.closed).code, 4000)
  t.strictSame(y.client.messages, [y.id])
  t.strictSame([await x.client.next(), await x.client.next(), await x.client.next()], ['all', 'group', 'user'])
  await b.close()
  t.equal(await a.registry.groupCount('same'), 1, 'nor does the end of one touch the other')
})
