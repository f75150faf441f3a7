import t from 'tap'
import { Redis } from 'ioredis'
import { createRequire } from 'node:module'
import { startInstance } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

// The major release before the one that this package has: many services still use it.
const ioredis5 = createRequire(import.meta.url)('ioredis-5') as typeof import('ioredis')
t.not(ioredis5.Redis, Redis)

/** Everything about a client that could be changed from outside. */
function snapshot (client: Redis): Record<string, unknown> {
  const names = client.eventNames().map(String).sort()
  return {
    listeners: Object.fromEntries(names.map(name => [name, client.listenerCount(name)])),
    scripts: Object.keys(client.scriptsSet),
    properties: Object.keys(client).sort(),
    options: { ...client.options },
    status: client.status
  }
}

for (const [title, options, Class = Redis] of [
  ['with a key prefix', { keyPrefix: 'theirs:' }],
  ['of version 5', {}, ioredis5.Redis],
  ['of version 5 with a key prefix, auto pipelining and every reply as a string', {
    keyPrefix: 'theirs:', enableAutoPipelining: true, stringNumbers: true
  }, ioredis5.Redis],
  ['with every reply as a string', { stringNumbers: true }],
  ['with replies in the shapes of RESP3', { replyMapping: 'resp3' }],
  ['that speaks RESP2', { protocol: 2 }],
  ['with auto pipelining and a retry strategy of its own', {
    enableAutoPipelining: true, retryStrategy: () => null, maxRetriesPerRequest: null, commandTimeout: 50
  }],
  ['on another database, connecting late, read by patterns', { db: 3, lazyConnect: true, connectionName: 'theirs', autoResubscribe: true }]
] as const) {
  t.test(`an ioredis client ${title} is duplicated: never changed, never ended`, async t => {
    const redis = await startRedis(t)
    const client = new Class(redis.url, options)
    t.teardown(() => client.disconnect())
    // On a busy machine 50 ms may be too short for a command of theirs.
    await until(async () => await client.set('mine', '1') === 'OK')
    const before = snapshot(client)

    const instances = [await startInstance(t, { redis: client }), await startInstance(t, { redis: client })]
    const [a, b] = instances
    const [here, there] = await Promise.all(instances.map(async one => await one.enter('lobby', { user: 'someone' })))
    t.equal(await a?.registry.groupCount('lobby'), 2)
    t.strictSame((await b?.registry.members('lobby'))?.map(({ connectionId }) => connectionId).sort(), [here?.id, there?.id].sort())
    await a?.registry.broadcastToGroup(['lobby', 'den'], 'hello')
    t.equal(await there?.client.next(), 'hello')
    t.equal(await a?.registry.sendTo(there?.id ?? '', 'you'), true)
    t.equal(await there?.client.next(), 'you')

    const db = 'db' in options ? options.db : 0
    await redis.admin.select(db)
    const prefix = 'keyPrefix' in options ? options.keyPrefix : ''
    const names = [...await redis.keys(), ...await redis.channels()].filter(name => name !== `${prefix}mine`)
    t.ok(
      names.length > 0 && names.every(name => name.startsWith(`${prefix}wsg:{0}:`)), 'their prefix keeps services apart, in channels too'
    )

    // The links come back by our rules, not by theirs.
    await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
    await until(() => instances.every(({ registry }) => registry.health().status === 'up'))
    await until(async () => (await b?.registry.broadcastToGroup('lobby', 'again', { volatile: true }))?.instances === 2)
    await here?.client.nextWhere(message => message === 'again')

    for (const { close } of instances) await close()
    t.strictSame(snapshot(client), before, 'it is as it was')
    await until(async () => await client.get('mine') === '1', { what: 'their client, which still works' })
    await until(async () => (await redis.channels()).length === 0)
    t.strictSame((await redis.leftovers()).map(key => key.replace('theirs:', '')), ['mine'])
  })
}

t.test('a client that is not connected, or ended, or busy subscribing, serves as well', async t => {
  const redis = await startRedis(t)
  const late = new Redis(redis.url, { lazyConnect: true })
  const ended = new Redis(redis.url)
  await ended.quit()
  const subscriber = new Redis(redis.url)
  t.teardown(() => subscriber.disconnect())
  await subscriber.subscribe('news')
  const late5 = new ioredis5.Redis(redis.url, { lazyConnect: true })
  for (const client of [late, ended, subscriber, late5]) {
    const status = client.status
    const instance = await startInstance(t, { redis: client })
    t.equal(instance.registry.health().status, 'up')
    await instance.close()
    t.equal(client.status, status)
  }
  t.strictSame(await redis.channels(), ['news'])
})
