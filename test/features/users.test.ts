import t from 'tap'
import { heard, onEveryCluster, onRedis } from '../helpers/app.ts'
import { connect, upgradeStatus } from '../helpers/client.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const redis = await startRedis(t)

onEveryCluster(t, redis, 'sendToUser reaches all devices of the user on all instances, and nobody else', async (t, cluster) => {
  const instances = [await cluster.start(), await cluster.start(), await cluster.start()]
  const devices = await Promise.all(
    instances.flatMap(instance => [instance.open({ user: 'ann' }), instance.enter('room', { user: 'ann' })])
  )
  const others = await Promise.all(instances.flatMap(instance => [instance.open({ user: 'ann ' }), instance.open()]))
  const [a] = instances
  t.match(await a?.registry.sendToUser('ann', 'for ann'), { scope: 'cluster', localRecipients: 2, position: String })
  t.strictSame(
    await a?.registry.sendToUser('ann', Buffer.from([1]), { volatile: true }), { scope: 'cluster', localRecipients: 2, instances: 3 }
  )
  await a?.registry.broadcastToAll('end')
  for (const one of [...devices, ...others]) {
    await one.client.nextWhere(message => message === 'end')
    t.strictSame(heard(one).filter(message => message !== 'end'), devices.includes(one) ? ['for ann', Buffer.from([1])] : [])
  }
})

onEveryCluster(t, redis, 'an instance with no device of the user left is not sent the user\'s messages', async (t, cluster) => {
  const [a, b] = [await cluster.start({ lingerMs: 0 }), await cluster.start({ lingerMs: 0 })]
  const [first, second] = [await b.open({ user: 'bob' }), await b.open({ user: 'bob' })]
  t.equal((await a.registry.sendToUser('bob', '1', { volatile: true })).instances, 1)
  await first.client.close()
  await until(() => b.registry.count() === 1)
  t.equal((await a.registry.sendToUser('bob', '2', { volatile: true })).instances, 1)
  t.equal(await second.client.next(), '1')
  t.equal(await second.client.next(), '2')
  await second.client.close()
  await until(async () => (await a.registry.sendToUser('bob', '3', { volatile: true })).instances === 0)
  const third = await b.open({ user: 'bob' })
  await a.registry.sendToUser('bob', '4')
  t.equal(await third.client.next(), '4')
})

onRedis(t, redis, 'a user is reached on each device from the moment its onConnect starts', async (t, cluster) => {
  const proxy = await startProxy(t, redis.port)
  const a = await cluster.start()
  const b = await cluster.start({
    redis: proxy.url,
    routes (app) {
      app.get('/greeted/:device', { websocket: true, preHandler: app.wsAuth() }, app.wsHandler({
        async onConnect ({ userId = '', params }) { await a.registry.sendToUser(userId, `hello ${params.device ?? ''}`) },
        onMessage () {}
      }))
    }
  })
  proxy.delay(20)
  // Two devices of each user come at the same time: the second must not rely on a subscription that is still on its way.
  const devices = Array.from(
    { length: 40 }, (_, n) => connect(t, `${b.url}/greeted/${n}`, { headers: { authorization: `Bearer user-${n >> 1}` } })
  )
  for (const [n, device] of devices.entries()) t.equal(await device.nextWhere(message => message === `hello ${n}`), `hello ${n}`)
})

onEveryCluster(t, redis, 'disconnect closes all devices of a user on all instances and says how many', async (t, cluster) => {
  const instances = [await cluster.start(), await cluster.start(), await cluster.start()]
  const devices = await Promise.all(instances.flatMap(instance => [instance.open({ user: 'eve' }), instance.open({ user: 'eve' })]))
  const other = await instances[1]?.open({ user: 'dan' })
  t.equal(await instances[0]?.registry.disconnect({ userId: 'eve' }, { code: 4403, reason: 'banned' }), 6)
  for (const { client } of devices) t.strictSame(await client.closed, { code: 4403, reason: 'banned' })
  t.equal(await instances[0]?.registry.disconnect({ userId: 'eve' }), 0)
  t.equal(await instances[0]?.registry.disconnect({ userId: 'nobody' }), 0)
  t.equal(await instances[0]?.registry.disconnect({ userId: 'dan' }), 1)
  t.strictSame(await other?.client.closed, { code: 1000, reason: '' })
})

onEveryCluster(t, redis, 'two calls that close the same user count each device once', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  await Promise.all([a, b, a, b].map(async instance => await instance.open({ user: 'twice' })))
  const counts = await Promise.all([a, b].map(async ({ registry }) => await registry.disconnect({ userId: 'twice' })))
  t.equal(counts.reduce((sum, count) => sum + count, 0), 4)
})

onEveryCluster(t, redis, 'a user id may be any name', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  for (const user of [' ', '#', 'a.b', 'a:b', '{0}', '*', 'jürgen@example.com', '🎉', '__proto__', '"\'\\', 'x'.repeat(255), '0']) {
    const device = await b.open({ user })
    t.equal(device.connection.userId, user)
    t.equal((await a.registry.sendToUser(user, user, { volatile: true })).instances, 1)
    t.equal(await device.client.next(), user)
    t.equal(await a.registry.disconnect({ userId: user }), 1)
    await device.client.closed
  }
})

onEveryCluster(t, redis, 'a user id that is no name is refused, and so is an identity with such an id', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  for (const userId of ['', 'a\nb', 'x'.repeat(256), '\ud800', undefined, null, 5] as string[]) {
    await t.rejects(a.registry.sendToUser(userId, 'x'), { code: 'WSG_USER_ID_INVALID' })
    await t.rejects(a.registry.disconnect({ userId }), { code: 'WSG_USER_ID_INVALID' })
  }
  for (const user of ['a\nb', 'x'.repeat(256)]) {
    const { statusCode } = await upgradeStatus(`${b.url}/ws/odd`, { headers: { authorization: `Bearer ${encodeURIComponent(user)}` } })
    t.equal(statusCode, 500, 'the service made an identity that nobody could address')
  }
})
