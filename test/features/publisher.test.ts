import t from 'tap'
import { once } from 'node:events'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { createPublisher, type BroadcastResult, type LogSettings } from '../../plugin.ts'
import { heard, onEveryCluster, onRedis, reach } from '../helpers/app.ts'
import { atOnce } from '../helpers/at-once.ts'
import { forkProgram } from '../helpers/child.ts'
import { recordedLog } from '../helpers/loggers.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { freePort } from '../helpers/ports.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const redis = await startRedis(t)
const machine = watchMachine(t)

const numbers = (count: number): string[] => Array.from({ length: count }, (_, n) => String(n))

onEveryCluster(t, redis, 'an HTTP route broadcasts to members on every instance, and answers with what happened', async (t, cluster) => {
  const [a, b] = [await cluster.start({
    routes (app) {
      app.post<{ Params: { group: string }, Body: { text: string } }>('/groups/:group', async (request, reply) => {
        reply.code(202)
        return await app.registry.broadcastToGroup(request.params.group, request.body.text)
      })
    }
  }), await cluster.start()]
  const members = [await a.enter('news'), await b.enter('news')]
  const response = await fetch(`${a.url.replace('ws:', 'http:')}/groups/news`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ text: 'from HTTP' })
  })
  t.equal(response.status, 202)
  const { position, ...result } = await response.json() as BroadcastResult
  t.strictSame(result, { scope: 'cluster', localRecipients: 1 })
  t.type(position, 'string')
  for (const { client } of members) t.equal(await client.next(), 'from HTTP')

  const wrong = await a.app.inject({ method: 'POST', url: `/groups/${'x'.repeat(90)}%00`, payload: { text: 'x' } })
  t.equal(wrong.statusCode, 400)
  t.equal(wrong.json().code, 'WSG_GROUP_NAME_INVALID')
})

onRedis(t, redis, 'a publisher in this process does all that its interface says', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const [x, y] = [await a.enter('jobs', { user: 'ann' }), await b.enter('jobs')]
  await using publisher = createPublisher({ redis: redis.url })
  t.strictSame(reach(await publisher.broadcastToGroup('jobs', 'text')), { scope: 'cluster', localRecipients: 0 })
  await publisher.broadcastToGroup(['jobs', 'other'], Buffer.from([1, 2]), { except: y.id })
  await publisher.broadcastToAll('all')
  t.match(await publisher.sendToUser('ann', 'user'), { scope: 'cluster', position: String })
  t.strictSame(await publisher.broadcastToGroup([], 'nobody'), { scope: 'cluster', localRecipients: 0, instances: 0 })
  t.equal(await publisher.groupCount('jobs'), 2)
  t.strictSame((await publisher.members('jobs')).map(({ connectionId }) => connectionId).sort(), [x.id, y.id].sort())
  t.strictSame(await publisher.members('other'), [])
  await x.client.nextWhere(message => message === 'user')
  await y.client.nextWhere(message => message === 'all')
  t.strictSame([heard(x), heard(y)], [['text', Buffer.from([1, 2]), 'all', 'user'], ['text', 'all']])
  await t.rejects(publisher.broadcastToGroup('', 'x'), { code: 'WSG_GROUP_NAME_INVALID' })
  await t.rejects(publisher.broadcastToGroup('jobs', 5 as unknown as string), { code: 'WSG_DATA_INVALID' })
  await t.rejects(publisher.sendToUser('\n', 'x'), { code: 'WSG_USER_ID_INVALID' })
})

onRedis(t, redis, 'a publisher\'s messages arrive in the order of its calls, those made before it is connected too', async (t, cluster) => {
  const a = await cluster.start()
  const member = await a.enter('ordered')
  const proxy = await startProxy(t, redis.port)
  proxy.delay(5)
  // Not a test of deadlines: a busy machine may take its time.
  await using publisher = createPublisher({ redis: proxy.url, operationTimeoutMs: 10_000 })
  const sent = numbers(100).map(async (text, n) => await publisher.broadcastToGroup(n % 3 === 0 ? ['ordered', 'other'] : 'ordered', text))
  await sent[50]
  sent.push(...numbers(200).slice(100).map(async text => await publisher.broadcastToGroup('ordered', text)))
  await Promise.all(sent)
  await until(() => heard(member).length === 200)
  t.strictSame(heard(member), numbers(200))
})

onRedis(t, redis, 'bytes given to a publisher may be used again once the call returned', async (t, cluster) => {
  const a = await cluster.start()
  const member = await a.enter('reused')
  await using publisher = createPublisher({ redis: redis.url })
  const bytes = Buffer.from([1])
  const sent = publisher.broadcastToGroup('reused', bytes)
  bytes[0] = 2
  await sent
  t.strictSame(await member.client.next(), Buffer.from([1]))
})

onRedis(t, redis, 'a process with no sockets publishes, in order, and ends by itself', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const members = [await a.enter('worker'), await b.enter('worker')]
  const child = forkProgram(join(import.meta.dirname, 'programs', 'publish.ts'), [redis.url, 'worker', '200'])
  t.teardown(() => child.kill('SIGKILL'))
  const [[report], [exitCode]] = await Promise.all(
    [once(child, 'message'), once(child, 'exit')]
  ) as [[{ results: BroadcastResult[], members: number }], [number]]
  t.equal(exitCode, 0)
  t.strictSame({ ...report, results: report.results.map(reach) }, {
    results: numbers(200).map(() => ({ scope: 'cluster', localRecipients: 0 })), members: 2
  })
  for (const member of members) {
    await until(() => heard(member).length === 200)
    t.strictSame(heard(member), numbers(200))
  }
})

t.test('a publisher that finds no Redis says so within its deadline, and works as soon as there is one', async (t) => {
  const own = await startRedis(t)
  const proxy = await startProxy(t, own.port)
  await proxy.refuse(true)
  const port = await freePort()
  machine.restart()
  const started = performance.now()
  const [late, ...lost] = [proxy.url, `redis://127.0.0.1:${port}`, { host: '127.0.0.1', port }].map(redis => createPublisher({ redis }))
  if (late === undefined) throw new Error('three were made')
  t.teardown(async () => await late.close())
  await Promise.all([late, ...lost].flatMap(publisher => {
    const calls: ReadonlyArray<Promise<unknown>> = [
      publisher.broadcastToGroup('g', 'x'), publisher.broadcastToAll('x'), publisher.sendToUser('u', 'x'), publisher.groupCount('g'),
      publisher.members('g')
    ]
    return calls.map(async call => await t.rejects(call, { code: 'WSG_BACKPLANE_UNAVAILABLE' }))
  }))
  machine.within(t, performance.now() - started, 5_500, 'all calls were decided')
  for (const publisher of lost) {
    await publisher.close()
    await publisher.close()
  }
  t.equal(
    await atOnce(t, 'a broadcast when it is known that there is no Redis', async () => await late.broadcastToGroup('g', 'x')),
    'WSG_BACKPLANE_UNAVAILABLE'
  )
  await proxy.refuse(false)
  await until(async () => (await late.broadcastToGroup('g', 'x')).scope === 'cluster', { what: 'the first connection' })
})

t.test('a publisher works again when Redis is back, and says at once that it is out until then', async (t) => {
  const own = await startRedis(t)
  await using publisher = createPublisher({ redis: own.url })
  await publisher.broadcastToGroup('g', 'x')
  await own.kill()
  await until(async () => await publisher.broadcastToGroup('g', 'x').then(() => false, () => true))
  t.equal(await atOnce(t, 'a broadcast', async () => await publisher.broadcastToGroup('g', 'x')), 'WSG_BACKPLANE_UNAVAILABLE')
  await own.restart()
  await until(async () => (await publisher.broadcastToGroup('g', 'x')).scope === 'cluster', { what: 'the next connection' })
})

t.test('a publisher that loses a right goes on with what is left, and one whose password is gone says so once', async (t) => {
  const own = await startRedis(t)
  const user = async (...words: string[]): Promise<void> => { await own.admin.call('ACL', 'SETUSER', 'worker', ...words) }
  const reconnect = async (): Promise<void> => { await own.admin.call('CLIENT', 'KILL', 'USER', 'worker') }
  const connections = async (): Promise<number> => Number(/total_connections_received:(\d+)/.exec(await own.admin.info('stats'))?.[1])
  await user('on', '>pw', '~*', '&*', '+@all')
  const { log, lines } = recordedLog()
  await using publisher = createPublisher({ redis: own.url.replace('//', '//worker:pw@'), logger: log })
  const say = async (): Promise<string> => {
    return await publisher.broadcastToGroup('g', 'x').then(({ scope }) => scope, ({ code }) => code as string)
  }
  t.equal(await say(), 'cluster')
  await user('-append')
  await reconnect()
  await until(async () => await say() === 'cluster')
  // By the same connection, after the look at the rights.
  for (let n = 0; n < 10; n++) t.equal(await say(), 'cluster')
  const stream = publisher.stream('g', 'r1')
  stream.append('needs that right')
  t.equal(await say(), 'cluster')

  await user('resetpass', '>other')
  await reconnect()
  await until(async () => await say() === 'WSG_REDIS_REFUSED')
  const before = await connections()
  await until(async () => await connections() > before + 5)
  t.equal(lines.filter(({ msg }) => msg === 'publisher cannot use Redis').length, 1)
  await user('resetpass', '>pw', '+append')
  await until(async () => await say() === 'cluster')
  await stream.done()
})

t.test('a publisher closed before it is connected settles its calls', async (t) => {
  const publisher = createPublisher({ redis: `redis://127.0.0.1:${await freePort()}` })
  const call = t.rejects(publisher.broadcastToGroup('g', 'x'), { code: 'WSG_CLOSED' })
  await publisher.close()
  await call
})

t.test('a publisher that nobody uses goes without a trace', async (t) => {
  const idle = createPublisher({ redis: `redis://127.0.0.1:${await freePort()}` })
  await idle.close()
  const clients = async (): Promise<number> => Number(/connected_clients:(\d+)/.exec(await redis.admin.info('clients'))?.[1])
  const before = await clients()
  const publisher = createPublisher({ redis: redis.url })
  await publisher.groupCount('g')
  t.equal(await clients(), before + 1, 'one link')
  await publisher.close()
  await until(async () => await clients() === before)
  await t.rejects(publisher.broadcastToGroup('g', 'x'), { code: /WSG_CLOSED|WSG_BACKPLANE_UNAVAILABLE/ })
})

t.test('a client that a publisher was given is neither changed nor closed', async (t) => {
  const client = new Redis(redis.url, { keyPrefix: 'mine:' })
  t.teardown(() => client.disconnect())
  const publisher = createPublisher({ redis: client })
  t.equal((await publisher.broadcastToGroup('g', 'x', { volatile: true })).instances, 0)
  await publisher.close()
  t.equal(client.status, 'ready')
  t.equal(client.options.keyPrefix, 'mine:')
  t.equal(await client.ping(), 'PONG')
})

t.test('a wrong log setting is told before anything is sent, and leaves nothing', async (t) => {
  t.throws(() => createPublisher({ redis: redis.url, log: { maxMessages: 10 } as LogSettings }), { code: 'WSG_OPTION_INVALID' })
  t.throws(() => createPublisher({ redis: undefined as unknown as string }), { code: 'WSG_OPTION_INVALID', message: /redis must be/ })
  await using publisher = createPublisher({ redis: redis.url, keyPrefix: 'wrong:', logs: () => ({ maxMessages: 10 }) as LogSettings })
  const refused = { code: 'WSG_OPTION_INVALID', message: /logs\('g'\) returns\.ttlMs must be .*, got undefined/ }
  await t.rejects(publisher.broadcastToGroup('g', 'x'), refused)
  await t.rejects(publisher.broadcastToGroup(['other', 'g'], 'x', { volatile: false }), { code: 'WSG_OPTION_INVALID' })
  t.strictSame(await redis.admin.keys('wrong:*'), [])
})
