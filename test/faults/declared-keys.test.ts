// Some services check that a script uses no other keys than it was told of, and on a cluster nothing else leads it to the right master.
import t from 'tap'
import type { Redis } from 'ioredis'
import { createPublisher } from '../../plugin.ts'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { beat, syncMembers } from '../../lib/backplane/redis/membership/scripts.ts'
import { startInstance } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

t.test('scripts use the keys that they declare, and no others', async t => {
  const redis = await startRedis(t)
  const keys = new Keys('wsg:')
  const monitor = await redis.admin.monitor() as unknown as Redis
  t.teardown(() => monitor.disconnect())
  let declared: readonly string[] = []
  const undeclared = new Set<string>()
  const commands = new Set<string>()
  monitor.on('monitor', (_time: string, [name = '', ...args]: string[], source: string) => {
    if (/^eval/i.test(name)) declared = args.slice(2, 2 + Number(args[1]))
    if (source !== 'lua') return
    commands.add(name)
    for (const arg of args) {
      const isKey = arg.startsWith('wsg:{0}:') && !arg.startsWith('wsg:{0}:c:')
      if (isKey && !declared.includes(arg)) undeclared.add(`${name} ${arg}`)
    }
  })

  const dead = 'ByHandDies'
  const run = async ({ lua }: { readonly lua: string }, names: readonly string[], args: ReadonlyArray<string | number>): Promise<unknown> =>
    await redis.admin.eval(lua, names.length, ...names, ...args)
  await run(beat, [keys.leases, keys.instances, keys.generations], [dead, 1, 'nonce', 1, 1_000, 8, 60_000, 0])
  await run(
    syncMembers, [keys.index(dead), keys.generations, keys.members('lobby', dead), keys.counts('lobby')],
    [dead, 1, 60_000, 'lobby', 1, 0, `${dead}.1`, '[]']
  )

  const occupied: string[] = []
  const options = {
    redis: redis.url,
    leaseMs: 1_000,
    userLog: { maxMessages: 10, ttlMs: 60_000 },
    onOccupied (name: string) { occupied.push(name) },
    onUserOnline () {}
  } as const
  const [a, b] = [await startInstance(t, options), await startInstance(t, options)]
  const ann = await a.enter('lobby', { user: 'ann' })
  const bob = await b.enter('lobby', { user: 'bob' })
  await a.registry.join({ userId: 'bob' }, 'den')
  await until(async () => await b.registry.groupCount('lobby') === 2, { what: 'the dead instance to be cleaned up after' })
  await a.registry.broadcastToGroup(['lobby', 'den'], 'to both', { idempotencyKey: 'key' })
  await a.registry.broadcastToGroup('lobby', 'to one', { idempotencyKey: 'other' })
  await a.registry.broadcastToGroup('lobby', 'volatile', { volatile: true })
  await a.registry.sendToUser('bob', 'to bob')
  await b.registry.history('lobby')
  await b.registry.members('lobby')
  await a.registry.groupList()
  await a.registry.leave({ userId: 'bob' }, 'den', { reason: 'enough' })
  await a.registry.block({ userId: 'eve' }, { forMs: 60_000 })
  const stream = a.registry.stream('lobby', 'answer')
  stream.append('a token')
  await stream.done()
  await using publisher = createPublisher({ redis: redis.url })
  await publisher.broadcastToGroup('lobby', 'published')
  t.equal(await publisher.disconnect({ userId: 'ann' }), 1)
  await until(() => ann.connection.closed && occupied.length >= 2)
  bob.client.terminate()
  await Promise.all([a.close(), b.close()])
  // The monitor hears of what came before.
  await redis.admin.eval("return redis.call('STRLEN', KEYS[1])", 1, 'wsg:{0}:end')
  await until(() => declared.includes('wsg:{0}:end'))
  for (const name of ['HSET', 'RPUSH', 'APPEND', 'ZADD', 'SADD', 'UNLINK', 'HMGET', 'GET']) t.ok(commands.has(name), `${name} was used`)
  t.strictSame([...undeclared], [])
})
