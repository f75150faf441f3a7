import t from 'tap'
import { heard, onEveryCluster } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const redis = await startRedis(t)

const perPublisher = 300

const numbered = (label: string, count: number): string[] => Array.from({ length: count }, (_, n) => `${label}:${n}`)

onEveryCluster(t, redis, 'every member sees one order, and each publisher\'s messages in the order of its calls', async (t, cluster) => {
  const instances = [await cluster.start(), await cluster.start(), await cluster.start()]
  const members = await Promise.all(instances.flatMap(instance => [instance.enter('lobby'), instance.enter('lobby')]))
  await Promise.all(instances.map(async ({ registry }, index) => {
    const sent: unknown[] = []
    for (let n = 0; n < perPublisher; n++) {
      const one = registry.broadcastToGroup('lobby', `${index}:${n}`)
      sent.push(one)
      // Some are awaited, some go out in one tick, some a turn of the event loop later.
      if (n % 5 === 0) await one
      if (n % 11 === 0) await new Promise(resolve => setImmediate(resolve))
    }
    await Promise.all(sent)
  }))
  await until(() => members.every(member => heard(member).length === 3 * perPublisher), { what: 'all messages at all members' })
  const [first, ...others] = members.map(heard)
  for (const other of others) t.strictSame(other, first)
  for (const index of [0, 1, 2]) {
    t.strictSame(first?.filter(text => String(text).startsWith(`${index}:`)), numbered(String(index), perPublisher))
  }
})

onEveryCluster(t, redis, 'messages that clients send to their room come to all of them in one order', async (t, cluster) => {
  const instances = [await cluster.start(), await cluster.start()]
  const members = await Promise.all(instances.flatMap(instance => [instance.enter('chat'), instance.enter('chat')]))
  for (let n = 0; n < 100; n++) members.forEach(({ client }, index) => client.send(`${index}:${n}`))
  await until(() => members.every(member => heard(member).length === 400))
  const [first, ...others] = members.map(heard)
  for (const other of others) t.strictSame(other, first)
  for (const index of [0, 1, 2, 3]) t.strictSame(first?.filter(text => String(text).startsWith(`${index}:`)), numbered(String(index), 100))
})

onEveryCluster(t, redis, 'direct sends of one sender arrive in the order of its calls, also from another instance', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const target = await a.open()
  await Promise.all([a, b].map(async ({ registry }, index) => {
    t.ok((await Promise.all(numbered(String(index), 200).map(async text => await registry.sendTo(target.id, text)))).every(Boolean))
  }))
  await until(() => heard(target).length === 400)
  for (const index of [0, 1]) t.strictSame(heard(target).filter(text => String(text).startsWith(`${index}:`)), numbered(String(index), 200))
})

onEveryCluster(t, redis, 'messages to one user keep one order on all devices', async (t, cluster) => {
  const instances = [await cluster.start(), await cluster.start()]
  const devices = await Promise.all(instances.map(async instance => await instance.open({ user: 'ann' })))
  await Promise.all(instances.map(async ({ registry }, index) => {
    await Promise.all(numbered(String(index), 200).map(async text => await registry.sendToUser('ann', text)))
  }))
  await until(() => devices.every(device => heard(device).length === 400))
  const [first, second] = devices.map(heard)
  t.strictSame(first, second)
  for (const index of [0, 1]) t.strictSame(first?.filter(text => String(text).startsWith(`${index}:`)), numbered(String(index), 200))
})

onEveryCluster(t, redis, 'large and small messages, text and binary, keep their order', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const member = await b.enter('mixed')
  const sizes = [1, 70_000, 0, 300_000, 5, 126, 65_536, 125]
  await Promise.all(
    sizes.map(async (size, n) => await a.registry.broadcastToGroup('mixed', n % 2 === 0 ? 'x'.repeat(size) : Buffer.alloc(size, n)))
  )
  for (const [n, size] of sizes.entries()) {
    const message = await member.client.next()
    t.equal(typeof message, n % 2 === 0 ? 'string' : 'object')
    t.equal(message.length, size)
  }
})

onEveryCluster(t, redis, 'messages to one group and to several keep the order of the calls, from the first one on', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const member = await b.enter('one')
  await Promise.all([
    a.registry.broadcastToGroup(['one', 'two'], '1'),
    a.registry.broadcastToGroup('one', '2'),
    a.registry.broadcastToGroup(['two', 'one'], '3'),
    a.registry.broadcastToAll('4'),
    a.registry.broadcastToGroup('one', '5')
  ])
  await until(() => heard(member).length === 5)
  t.strictSame(heard(member).filter(text => text !== '4'), ['1', '2', '3', '5'])
})
