// A failover to a replica that lacked the latest joins and leaves, by a name, on servers that say who they are and on others.
import t from 'tap'
import { redisCluster, type TestInstance } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis, type TestRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

/** What a replica has at this moment, and for good when it is cut off from its master. */
async function copy (from: TestRedis, to: TestRedis): Promise<void> {
  for (const key of await from.admin.keys('*')) {
    // No time to live is -1 there, and 0 here.
    await to.admin.restore(key, Math.max(0, await from.admin.pttl(key)), await from.admin.dumpBuffer(key))
  }
}

async function users ({ registry }: TestInstance): Promise<string> {
  return (await registry.members('room')).map(({ userId }) => userId).sort().join()
}

for (const right of ['+info', '-info']) {
  t.test(`as many members as before, and others: they are written anew (${right})`, async t => {
    const servers = [await startRedis(t), await startRedis(t)] as const
    const [master, replica] = servers
    for (const { admin } of servers) await admin.call('ACL', 'SETUSER', 'app', 'on', '>pw', '~*', '&*', '+@all', right)
    const proxy = await startProxy(t, master.port)
    const cluster = await redisCluster(t, master, { redis: proxy.url.replace('//', '//app:pw@') })
    const [one, other] = [await cluster.start(), await cluster.start()]
    const leaves = await one.enter('room', { user: 'leaves' })
    await other.enter('room', { user: 'stays' })
    await until(async () => await users(one) === 'leaves,stays')
    await copy(master, replica)
    await leaves.client.close()
    await one.enter('room', { user: 'comes' })
    await until(async () => await users(one) === 'comes,stays')

    proxy.lead(replica.port)
    proxy.cut()
    await until(async () => await users(other) === 'comes,stays', { what: 'the members that there are to be listed' })
    t.equal(await other.registry.groupCount('room'), 2)
    await until(async () => await replica.admin.exists('wsg:{0}:u:leaves') === 0, { what: 'the user who left to count as such' })
    await Promise.all([one.close(), other.close()])
    t.strictSame(await replica.leftovers(), [], 'nothing is left on the new master')
  })
}
