import t from 'tap'
import { inspect } from 'node:util'
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import { RoutedLink } from '../../lib/backplane/redis/link/cluster/routed-link.ts'
import { EvictionWatch } from '../../lib/backplane/redis/link/evictions.ts'
import { Link } from '../../lib/backplane/redis/link/link.ts'
import websocketGroups, { createPublisher, type PublisherOptions, type WebsocketGroupsOptions } from '../../plugin.ts'
import { redisCluster, startInstance, type InstanceOptions } from '../helpers/app.ts'
import { recordedLog } from '../helpers/loggers.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { freePort } from '../helpers/ports.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

/** What registering the plugin with these options ends with, and what it logged at any level. */
async function boot (options: WebsocketGroupsOptions): Promise<{ error: unknown, log: string }> {
  const lines: string[] = []
  const app = Fastify({ logger: { level: 'trace', stream: { write: (line: string) => { lines.push(line) } } } })
  try {
    await app.register(websocketGroups, { bootTimeoutMs: 1_500, ...options })
    await app.ready()
    return { error: undefined, log: lines.join('') }
  } catch (error) {
    return { error, log: lines.join('') }
  } finally {
    await app.close()
  }
}

t.test('services on one server are apart by their database or by the keyPrefix of ioredis, their channels too', async t => {
  const redis = await startRedis(t)
  const clients = ['one:', 'two:'].map(keyPrefix => new Redis(redis.url, { keyPrefix }))
  t.teardown(() => { for (const client of clients) client.disconnect() })
  const sources: Array<PublisherOptions['redis']> = [
    redis.url, `${redis.url}/1`, { port: redis.port, host: '127.0.0.1', db: 2 }, `${redis.url}?db=3`, `${redis.url}?keyPrefix=three:`,
    ...clients
  ]
  const services = await Promise.all(sources.map(async (source, n) => {
    const instance = await startInstance(t, { redis: source })
    const other = await startInstance(t, { redis: source })
    return { n, source, instance, other, member: await other.enter('lobby', { user: 'ann' }) }
  }))
  for (const { n, source, instance, other } of services) {
    await using publisher = createPublisher({ redis: source })
    t.equal(await instance.registry.groupCount('lobby'), 1)
    t.equal((await instance.registry.sendToUser('ann', `user ${n}`, { volatile: true })).instances, 1)
    t.equal((await instance.registry.broadcastToAll(`all ${n}`)).instances, 2)
    await publisher.broadcastToGroup('lobby', `logged ${n}`)
    await publisher.broadcastToGroup('lobby', `volatile ${n}`, { volatile: true })
    t.equal((await other.registry.history('lobby')).messages.length, 1)
  }
  for (const { n, member } of services) {
    await until(() => member.client.messages.length > 4)
    t.strictSame(member.client.messages.slice(1), [`user ${n}`, `all ${n}`, `logged ${n}`, `volatile ${n}`])
  }
  t.equal(await services[0]?.instance.registry.disconnect({ userId: 'ann' }), 1)
  t.ok(services.slice(1).every(({ member }) => member.connection.closed === false), 'a kick stays in its service')
})

t.test('a database that is no number is refused at register, one that the server has not at boot', async t => {
  const redis = await startRedis(t)
  const wrong = /redis: the database must be a number/
  for (const source of [`${redis.url}/prod`, `${redis.url}/1x`, `${redis.url}/1/2`, `${redis.url}?db=x`, { port: redis.port, db: -1 },
    { port: redis.port, db: 1.5 }, { port: redis.port, db: NaN }]) {
    t.match((await boot({ redis: source })).error, { code: 'WSG_OPTION_INVALID', message: wrong })
    t.throws(() => createPublisher({ redis: source }), { code: 'WSG_OPTION_INVALID', message: wrong })
  }
  t.match((await boot({ redis: { port: redis.port, keyPrefix: 'app{1}:' } })).error, {
    code: 'WSG_OPTION_INVALID', message: /set the option keyPrefix of the plugin/
  })
  const missing = { code: 'WSG_REDIS_REFUSED', message: /database 99 cannot be used: .*out of range/ }
  t.match((await boot({ redis: `${redis.url}/99` })).error, missing)
  await using publisher = createPublisher({ redis: `${redis.url}/99` })
  await t.rejects(publisher.broadcastToGroup('g', 'x'), missing)
  t.strictSame(await redis.keys(), [], 'nothing was written to another one')
})

t.test('a password is in no error and in no log', async t => {
  const redis = await startRedis(t)
  await redis.admin.config('SET', 'requirepass', 'S3cret/Right')
  await redis.admin.auth('S3cret/Right')
  const nothing = await freePort()
  const right = encodeURIComponent('S3cret/Right')
  const cases: Array<[string, WebsocketGroupsOptions]> = [
    ['a wrong one', { redis: `redis://:S3cretWrong@127.0.0.1:${redis.port}` }],
    ['of a user', { redis: { host: '127.0.0.1', port: redis.port, username: 'ann', password: 'S3cretWrong' } }],
    ['in a query', { redis: `redis://127.0.0.1:${redis.port}?password=S3cretWrong` }],
    ['in a URL that cannot be read', { redis: 'redis://:S3cret%Wrong@127.0.0.1:1' }],
    ['in a URL with a wrong port', { redis: 'redis://:S3cretWrong@127.0.0.1:99999' }],
    ['where the database goes', { redis: `redis://127.0.0.1:${redis.port}/S3cretWrong` }],
    ['of another scheme', { redis: 'http://host/?password=S3cretWrong' }],
    ['under a name that is no option', { redisUrl: 'redis://:S3cretWrong@host' } as WebsocketGroupsOptions],
    ['as an option of its own', { password: 'S3cretWrong' } as WebsocketGroupsOptions],
    ['nobody there', { redis: `redis://:S3cretWrong@localhost:${nothing}`, outage: { boot: 'fail' } }],
    ['no such database', { redis: `redis://:${right}@127.0.0.1:${redis.port}/99` }]
  ]
  for (const [name, options] of cases) {
    const { error, log } = await boot(options)
    t.match(error, { code: /^WSG_/ }, name)
    t.notMatch(inspect(error, { depth: 20, showHidden: true }), /S3cret/, name)
    t.notMatch(log, /S3cret/, name)
  }
  // A server that does not know HELLO repeats what came with it.
  const old = await startRedis(t, { args: ['--rename-command', 'HELLO', '', '--rename-command', 'AUTH', ''] })
  const { error, log } = await boot({ redis: `redis://:S3cretWrong@127.0.0.1:${old.port}`, outage: { boot: 'fail' } })
  t.match(error, { code: /^WSG_/ })
  t.notMatch(inspect(error, { depth: 20, showHidden: true }) + log, /S3cret/)
  await redis.admin.config('SET', 'maxclients', '1')
  const full = await boot({ redis: `redis://:${right}@127.0.0.1:${redis.port}`, outage: { boot: 'fail' } })
  t.match(full.error, { code: 'WSG_BACKPLANE_UNAVAILABLE' })
  t.notMatch(inspect(full.error, { depth: 20, showHidden: true }) + full.log, /S3cret/)
})

for (const command of ['INFO', 'CLIENT', 'SCRIPT', 'EVALSHA', 'HELLO', 'CONFIG', 'KEYS']) {
  t.test(`all works on a server without ${command}`, async t => {
    const redis = await startRedis(t, { args: ['--rename-command', command, ''] })
    const options: InstanceOptions = command === 'INFO' ? {} : { outage: { boot: 'fail' } }
    const cluster = await redisCluster(t, redis, options)
    const [a, b] = [await cluster.start(), await cluster.start()]
    t.equal(a.registry.health().status, 'up')
    const member = await b.enter('room', { user: 'ann' })
    t.equal((await a.registry.broadcastToGroup('room', 'logged')).scope, 'cluster')
    await member.client.nextWhere(message => message === 'logged')
    t.equal(await a.registry.disconnect({ userId: 'ann' }), 1)
    await using publisher = createPublisher({ redis: redis.url })
    t.equal((await publisher.broadcastToGroup('room', 'x')).scope, 'cluster')
  })
}

for (const command of ['TIME', 'EVAL', 'SUBSCRIBE', 'PUBLISH', 'SCAN', 'LTRIM']) {
  t.test(`a server without ${command} is named at boot`, async t => {
    const redis = await startRedis(t, { args: ['--rename-command', command, ''] })
    t.match((await boot({ redis: redis.url })).error, { code: 'WSG_REDIS_REFUSED', message: new RegExp(command, 'i') })
  })
}

t.test('an eviction policy is a problem of health, and none that stops anything', async t => {
  const redis = await startRedis(t, { args: ['--maxmemory-policy', 'allkeys-lru'] })
  const cluster = await redisCluster(t, redis)
  const { registry } = await cluster.start()
  t.match(registry.health(), { status: 'up', ready: true, problems: [/maxmemory-policy of Redis is allkeys-lru.*noeviction/] })
})

t.test('keys that Redis drops for want of memory are counted, and named in health and log', async t => {
  const redis = await startRedis(t, { args: ['--maxmemory-policy', 'allkeys-lru'] })
  const { log, lines } = recordedLog()
  const link = new Link(redis.url, 'command', 500)
  t.teardown(async () => await link.close())
  await until(() => link.up)
  let now = 0
  const watch = new EvictionWatch(link, log, () => now)
  const look = async (afterMs = 60_000): Promise<number | undefined> => {
    now += afterMs
    return await watch.look()
  }
  const fill = async (): Promise<void> => { for (let n = 0; n < 30; n++) await redis.admin.set(`filler ${n}`, 'x'.repeat(50_000)) }
  const used = Number(/used_memory:(\d+)/.exec(await redis.admin.info('memory'))?.[1])
  await redis.admin.config('SET', 'maxmemory', used + 500_000)
  await fill()
  t.equal(await look(), 0)
  t.equal(watch.stats().redisEvictedKeys, 0, 'what was dropped before is not told of')
  t.match(watch.problem, /is allkeys-lru: when its memory is full, it may drop memberships and logs; set noeviction/)
  await fill()
  const evicted = Number(await look(1_000))
  t.ok(evicted > 5)
  t.equal(watch.stats().redisEvictedKeys, evicted)
  t.match(watch.problem, /logs; it dropped \d+ keys while this instance watched; set noeviction/)
  await redis.admin.config('SET', 'maxmemory-policy', 'noeviction')
  t.equal(await look(1_000), evicted)
  await redis.admin.config('SET', 'maxmemory-policy', 'allkeys-lru')
  await look(59_000)
  t.match(watch.problem, /is noeviction/, 'a policy that evicts nothing is looked at once a minute')
  await look(1_000)
  t.match(watch.problem, /is allkeys-lru/)
  await redis.admin.config('SET', 'maxmemory-policy', 'noeviction')
  await look()
  t.match(watch.problem, /is noeviction: it was another one; it dropped \d+ keys/)
  now += 3_600_000
  t.equal(watch.problem, undefined)
  t.strictSame(lines.map(({ event }) => event), ['redis_setup_risky'], 'at most one line a minute')
})

t.test('where INFO is forbidden, nobody knows how many keys Redis dropped', async t => {
  const redis = await startRedis(t)
  await redis.admin.acl('SETUSER', 'app', 'on', '>secret', '~*', '&*', '+@all', '-info')
  const link = new Link(redis.url.replace('//', '//app:secret@'), 'command', 500)
  t.teardown(async () => await link.close())
  await until(() => link.up)
  const watch = new EvictionWatch(link, recordedLog().log)
  t.equal(await watch.look(), undefined)
  t.equal(watch.problem, undefined)
})

t.test('an outage of Redis says nothing about evictions, and Redis is asked again as soon as it is back', async t => {
  const redis = await startRedis(t, { args: ['--maxmemory-policy', 'allkeys-lru'] })
  const link = new Link(redis.url, 'command', 500)
  t.teardown(async () => await link.close())
  await until(() => link.up)
  const watch = new EvictionWatch(link, recordedLog().log, () => 0)
  redis.stop()
  t.equal(await watch.look(), 0, 'no answer in time')
  redis.cont()
  await until(() => link.up)
  t.equal(watch.problem, undefined)
  t.equal(await watch.look(), 0)
  t.match(watch.problem, /allkeys-lru/)
})

t.test('where a partition moves to another master, keys that this one dropped before are not counted', async t => {
  const { log } = recordedLog()
  const links = await Promise.all([0, 1].map(async () => {
    const redis = await startRedis(t, { args: ['--maxmemory-policy', 'allkeys-lru'] })
    const link = new Link(redis.url, 'command', 500)
    t.teardown(async () => await link.close())
    await until(() => link.up)
    return { redis, link }
  }))
  const [first, second] = links
  if (first === undefined || second === undefined) throw new Error('two servers')
  const used = Number(/used_memory:(\d+)/.exec(await second.redis.admin.info('memory'))?.[1])
  await second.redis.admin.config('SET', 'maxmemory', used + 500_000)
  for (let n = 0; n < 30; n++) await second.redis.admin.set(`filler ${n}`, 'x'.repeat(50_000))
  t.match(await second.redis.admin.info('stats'), /^evicted_keys:[1-9]/m)

  const partition = new RoutedLink('command', 500, { moved: async () => {}, linkTo: () => second.link, suspect () {}, inStep () {} })
  const watch = new EvictionWatch(partition, log)
  partition.route(first.link)
  await watch.look()
  partition.route(second.link)
  await watch.look()
  t.equal(watch.stats().redisEvictedKeys, 0)
})
