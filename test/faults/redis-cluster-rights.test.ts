import t from 'tap'
import { readFileSync } from 'node:fs'
import { createPublisher } from '../../plugin.ts'
import { startInstance } from '../helpers/app.ts'
import { documentedRights } from '../helpers/documented-rights.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { groupAt, startRedisCluster, type TestCluster } from '../helpers/redis-cluster.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

const page = readFileSync('docs/redis.md', 'utf8')
/** What the page says to write on a cluster for a word of the lines for a single Redis. */
const instead: Readonly<Record<string, string>> = {
  '~wsg:{0}:*': '~wsg:{*}:*',
  '&wsg:{0}:c:*': '&wsg:{*}:c:*',
  '+publish': '+spublish',
  '+subscribe': '+ssubscribe',
  '+unsubscribe': '+sunsubscribe',
  '+pubsub|numsub': '+pubsub|shardnumsub'
}
const more = ['+cluster|info', '+cluster|slots', '+asking']
const onCluster = (user: string): string[] => [...documentedRights(user).map(word => instead[word] ?? word), ...more]
const special = [...Object.values(instead), ...more]

const setUser = async ({ nodes }: TestCluster, name: string, rights: readonly string[]): Promise<void> => {
  for (const { admin } of nodes) await admin.call('ACL', 'SETUSER', name, 'reset', 'on', '>pw', ...rights)
}
const reach = ({ nodes }: TestCluster, name: string): { cluster: string[] } => {
  return { cluster: nodes.map(({ url }) => url.replace('//', `//${name}:pw@`)) }
}

t.test('the documented rights are enough on a cluster, without INFO too, and each of its own that is missing is named at boot', async t => {
  const cluster = await startRedisCluster(t, { args: ['--cluster-require-full-coverage', 'no'] })
  for (const word of special) t.ok(page.includes(word), `the page has ${word}`)
  await setUser(cluster, 'app', onCluster('app'))
  await setUser(cluster, 'worker', onCluster('worker'))
  const a = await startInstance(t, { redis: reach(cluster, 'app'), outage: { boot: 'fail' } })
  const ann = await a.enter('room', { user: 'ann' })
  await using publisher = createPublisher({ redis: reach(cluster, 'worker') })
  await publisher.broadcastToGroup(['room', 'den', 'hall'], 'x')
  await publisher.sendToUser('ann', 'x')
  t.equal(await publisher.groupCount('room'), 1)
  t.equal((await a.registry.history('room')).messages.length, 1)
  // Both ask all instances, and which of them live.
  const other = await startInstance(t, { redis: reach(cluster, 'app'), outage: { boot: 'fail' } })
  t.strictSame([...await other.registry.groupList()], ['room'])
  await setUser(cluster, 'worker', [...onCluster('worker'), '+ssubscribe', '+sunsubscribe', '+pubsub|shardnumsub'])
  t.equal(await publisher.disconnect({ userId: 'ann' }), 1)
  ann.client.terminate()
  await Promise.all([a.close(), other.close()])
  for (const { admin } of cluster.nodes) {
    const denied = await admin.call('ACL', 'LOG') as unknown[]
    // Whether the cluster stops as a whole is asked where that is allowed.
    t.strictSame(denied.filter(entry => !/client\|set(info|name)|config\|get/.test(String(entry))), [], 'Redis denied nothing')
  }

  // INFO would tell that a single node is one of a cluster.
  await setUser(cluster, 'app', onCluster('app').filter(word => word !== '+info'))
  const [node = ''] = reach(cluster, 'app').cluster
  const b = await startInstance(t, { redis: node, outage: { boot: 'fail' } })
  await b.enter('room', { user: 'bob' })
  await using reader = createPublisher({ redis: node })
  t.equal(await reader.groupCount('room'), 1)
  await b.close()

  for (const word of special) {
    await setUser(cluster, 'app', onCluster('app').filter(other => other !== word))
    await t.rejects(
      startInstance(t, { redis: reach(cluster, 'app'), outage: { boot: 'fail' }, listen: false }), { code: 'WSG_REDIS_REFUSED' }, word
    )
  }
})

t.test('a right that one master alone does not grant is named at boot, with that master', async t => {
  const cluster = await startRedisCluster(t, { args: ['--cluster-require-full-coverage', 'no'] })
  await setUser(cluster, 'app', onCluster('app'))
  await setUser(cluster, 'worker', onCluster('worker'))
  for (const { admin, port } of cluster.nodes) {
    await admin.call('ACL', 'SETUSER', 'app', '-spublish')
    await admin.call('ACL', 'SETUSER', 'worker', '-spublish')
    const refusal = { code: 'WSG_REDIS_REFUSED', message: new RegExp(`spublish \\S+ on 127\\.0\\.0\\.1:${port}(;|$)`) }
    // Whatever `outage.boot` is.
    await t.rejects(startInstance(t, { redis: reach(cluster, 'app'), listen: false }), { code: 'WSG_REDIS_REFUSED' })
    await using publisher = createPublisher({ redis: reach(cluster, 'worker') })
    await t.rejects(publisher.broadcastToGroup('room', 'x'), refusal)
    await admin.call('ACL', 'SETUSER', 'app', '+spublish')
    await admin.call('ACL', 'SETUSER', 'worker', '+spublish')
  }
  const one = await startInstance(t, { redis: reach(cluster, 'app'), outage: { boot: 'fail' } })
  t.equal(one.registry.health().status, 'up')
})

t.test('a publisher that one master refused works as soon as it is given the right there', async t => {
  const cluster = await startRedisCluster(t)
  await setUser(cluster, 'worker', onCluster('worker'))
  const [node] = cluster.nodes
  await node?.admin.call('ACL', 'SETUSER', 'worker', '-rpush')
  await using publisher = createPublisher({ redis: reach(cluster, 'worker') })
  await t.rejects(publisher.broadcastToGroup('g', 'x'), { code: 'WSG_REDIS_REFUSED' })
  await node?.admin.call('ACL', 'SETUSER', 'worker', '+rpush')
  await until(async () => await publisher.broadcastToGroup('g', 'x').then(() => true, () => false))
})

t.test('a master that refuses a publisher later costs it the groups there alone', async t => {
  const cluster = await startRedisCluster(t, { args: ['--cluster-require-full-coverage', 'no'] })
  await setUser(cluster, 'worker', onCluster('worker'))
  const nodes = cluster.nodes
  const groups = await Promise.all(nodes.map(async node => await groupAt(cluster, node, 'room')))
  await using publisher = createPublisher({ redis: reach(cluster, 'worker') })
  const say = async (): Promise<string[]> => await Promise.all(groups.map(async group => {
    return await publisher.broadcastToGroup(group, 'x').then(({ scope }) => scope, ({ code }) => code as string)
  }))
  const well = nodes.map(() => 'cluster')
  t.strictSame(await say(), well)
  const refuse = async (node: TestCluster['nodes'][number]): Promise<void> => {
    await node.admin.call('ACL', 'SETUSER', 'worker', 'resetpass', '>other')
    await node.admin.call('CLIENT', 'KILL', 'USER', 'worker')
  }
  const [first, ...others] = nodes
  if (first === undefined) throw new Error('no nodes')
  const attempts = async (): Promise<number> => {
    return Number(/total_connections_received:(\d+)/.exec(await first.admin.info('stats'))?.[1])
  }
  await refuse(first)
  const since = await attempts()
  await until(async () => await attempts() > since + 3)
  t.strictSame(await say(), ['WSG_BACKPLANE_UNAVAILABLE', ...others.map(() => 'cluster')])
  for (const node of others) await refuse(node)
  await until(async () => (await say()).every(outcome => outcome === 'WSG_REDIS_REFUSED'))
  for (const { admin } of others) await admin.call('ACL', 'SETUSER', 'worker', 'resetpass', '>pw')
  await until(async () => (await say()).slice(1).every(outcome => outcome === 'cluster'), { what: 'the masters that are back' })
  await first.admin.call('ACL', 'SETUSER', 'worker', 'resetpass', '>pw')
  await until(async () => (await say()).every(outcome => outcome === 'cluster'))
})
