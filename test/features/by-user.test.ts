import t, { type Test } from 'tap'
import { createPublisher } from '../../plugin.ts'
import { onEachBackplane } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'
import { serve, type Served } from '../helpers/service.ts'
import { openFramed } from './framed/framed-client.ts'

noUnhandled(t)
const redis = await startRedis(t)

function onBoth (name: string, run: (t: Test, a: Served, b: Served) => Promise<void>): void {
  onEachBackplane(t, redis, name, async (t, here) => {
    const start = async (): Promise<Served> => await serve(t, here(), app => app.wsRoom('/:room', { auth: { required: false } }))
    await run(t, await start(), await start())
  })
}

onBoth('all connections of a user join, and leave, wherever they are, and clients are told why', async (t, a, b) => {
  const { registry } = a.app
  const clients = await Promise.all([a, b, b].map(async ({ url }) => {
    const client = await openFramed(t, `${url}/lobby`, { token: 'ann' })
    await client.nextOf('joined')
    return client
  }))
  const bob = await openFramed(t, `${b.url}/lobby`, { token: 'bob' })
  await bob.nextOf('joined')
  t.equal(await registry.join({ userId: 'ann' }, 'news'), 3)
  t.equal(await registry.groupCount('news'), 3)
  t.strictSame(await registry.groups({ userId: 'ann' }), ['lobby', 'news'])
  t.strictSame(await registry.groups({ userId: 'nobody' }), [])
  await registry.broadcastToGroup('news', 'hello')
  for (const client of clients) await client.nextOf('message', { data: 'hello' })
  t.equal(await registry.leave({ userId: 'ann' }, 'lobby', { reason: 'be nice' }), 3)
  for (const client of clients) t.match(await client.nextOf('left'), { group: 'lobby', reason: 'be nice' })
  t.equal(await registry.groupCount('lobby'), 1)
  t.equal(await registry.leave({ userId: 'ann' }, 'lobby'), 0)
  t.equal(await registry.leave(String(bob.welcome.connectionId), 'lobby', { reason: 'you too' }), true)
  t.match(await bob.nextOf('left'), { reason: 'you too' })
  await t.rejects(registry.leave({ userId: 'ann' }, 'news', { reason: 'x'.repeat(124) }), { code: 'WSG_CLOSE_CODE_INVALID' })
  await t.rejects(registry.join({ userId: '' }, 'news'), { code: 'WSG_USER_ID_INVALID' })
  await t.rejects(registry.join({ userId: 'ann' }, ''), { code: 'WSG_GROUP_NAME_INVALID' })
})

t.test('of a user whose connections are not all reached, the error says how many left or joined, and names the instance', async t => {
  const proxy = await startProxy(t, redis.port)
  const keyPrefix = 'unreached:'
  const start = async (url: string): Promise<Served> => await serve(
    t, { redis: url, keyPrefix, operationTimeoutMs: 500 }, app => app.wsRoom('/:room', { auth: { required: false } })
  )
  const [here, cutOff] = [await start(redis.url), await start(proxy.url)]
  for (const { url } of [here, cutOff]) await (await openFramed(t, `${url}/lobby`, { token: 'ann' })).nextOf('joined')
  await (await openFramed(t, `${here.url}/lobby`, { token: 'bob' })).nextOf('joined')
  const publisher = createPublisher({ redis: redis.url, keyPrefix, operationTimeoutMs: 500 })
  t.teardown(async () => await publisher.close())
  await proxy.refuse(true)
  proxy.cut()
  await until(() => cutOff.app.registry.health().status === 'down')
  const { registry } = here.app
  const missing = [cutOff.app.registry.instanceId]
  await t.rejects(registry.leave({ userId: 'ann' }, 'lobby'), { code: 'WSG_TIMEOUT', done: 1, missing })
  await t.rejects(publisher.leave({ userId: 'ann' }, 'lobby'), { code: 'WSG_BACKPLANE_UNAVAILABLE', done: 0, missing })
  await t.rejects(registry.join({ userId: 'ann' }, 'news'), { code: 'WSG_TIMEOUT', done: 1, missing })
  await t.rejects(publisher.join({ userId: 'ann' }, 'news'), { code: 'WSG_TIMEOUT', done: 1, missing })
  await t.rejects(registry.groups({ userId: 'ann' }), { code: 'WSG_BACKPLANE_UNAVAILABLE', done: undefined, missing })
  await t.rejects(publisher.groups({ userId: 'bob' }), { code: 'WSG_BACKPLANE_UNAVAILABLE', missing }, 'bob may have others there')
  await proxy.refuse(false)
  await until(() => cutOff.app.registry.health().status === 'up')
  t.strictSame(await registry.groups({ userId: 'ann' }), ['lobby', 'news'])
  t.equal(await publisher.join({ userId: 'ann' }, 'news'), 2, 'the one that had not joined, too')
  t.equal(await publisher.leave({ userId: 'ann' }, 'lobby'), 1, 'the one that had not left')
  t.strictSame((await registry.members('lobby')).map(({ userId }) => userId), ['bob'])
})

onBoth('a local broadcast stays on its instance', async (t, a, b) => {
  const [here, there] = [await openFramed(t, `${a.url}/lobby`, { token: 'ann' }), await openFramed(t, `${b.url}/lobby`, { token: 'ann' })]
  for (const client of [here, there]) await client.nextOf('joined')
  t.match(await a.app.registry.broadcastToGroup('lobby', 'mine', { local: true }), { scope: 'local', localRecipients: 1, instances: 1 })
  const { framesSent = 0 } = a.app.registry.stats()
  await a.app.registry.broadcastToAll('all mine', { local: true })
  t.equal(a.app.registry.stats().framesSent, framesSent + 1, 'and counts')
  t.match(await a.app.registry.sendToUser('ann', 'ann, mine', { local: true }), { scope: 'local', localRecipients: 1 })
  await a.app.registry.broadcastToGroup('lobby', 'ours')
  for (const client of [here, there]) await client.nextOf('message', { data: 'ours' })
  const texts = (client: typeof here): unknown[] => client.frames.filter(({ type }) => type === 'message').map(({ data }) => data)
  t.strictSame([texts(here), texts(there)], [['mine', 'all mine', 'ann, mine', 'ours'], ['ours']])
})

onBoth('instances tell each other, and ask each other: who cannot answer is missing, and that is all', async (t, a, b) => {
  const heard: unknown[] = []
  const stop = [a, b].map(({ app }, index) => app.registry.instances.on('config', payload => { heard.push([index, payload]) }))
  await a.app.registry.instances.emit('config', { version: 2 })
  await until(() => heard.length === 2)
  t.strictSame(heard.splice(0).sort(), [[0, { version: 2 }], [1, { version: 2 }]])
  for (const remove of stop) remove()
  await a.app.registry.instances.emit('config', { version: 3 })

  a.app.registry.instances.on('load', payload => ({ of: 'a', payload }))
  t.strictSame(await b.app.registry.instances.ask('load', 1), { replies: [{ of: 'a', payload: 1 }], missing: 1 }, 'b has no handler')
  const remove = b.app.registry.instances.on('load', async () => await new Promise(() => {}))
  t.strictSame(
    await a.app.registry.instances.ask('load', 2, { timeoutMs: 1_000 }), { replies: [{ of: 'a', payload: 2 }], missing: 1 }, 'b hangs'
  )
  remove()
  b.app.registry.instances.on('load', () => { throw new Error('no') })
  t.strictSame(await a.app.registry.instances.ask('load', 3), { replies: [{ of: 'a', payload: 3 }], missing: 1 }, 'b fails')
  t.strictSame(heard, [])
  for (const timeoutMs of [0, 1.5, 2 ** 31]) {
    await t.rejects(a.app.registry.instances.ask('load', 4, { timeoutMs }), { code: 'WSG_OPTION_INVALID' })
  }
  await t.rejects(a.app.registry.instances.emit('load', 'x'.repeat(1_048_576)), { code: 'WSG_DATA_INVALID' })
})

onBoth('what JSON cannot express, or is too much, is no answer, and ends no process', async (t, a, b) => {
  const circle: Record<string, unknown> = {}
  circle.self = circle
  let answer: unknown
  a.app.registry.instances.on('load', () => 'of a')
  b.app.registry.instances.on('load', () => answer)
  for (answer of [1n, circle, () => {}, Symbol('load'), { toJSON () { throw new Error('no') } }, 'x'.repeat(4 * 1_048_576)]) {
    for (const { app } of [a, b]) {
      t.strictSame(await app.registry.instances.ask('load', null), { replies: ['of a'], missing: 1 }, `${typeof answer}`)
    }
    await b.app.registry.instances.emit('load', null)
  }
  answer = undefined
  const { replies, missing } = await a.app.registry.instances.ask('load', null)
  t.strictSame([replies.length, missing], [2, 0], 'nothing is an answer')
})

/** A value that JSON expresses once, and then no more. */
function onlyOnce (text: string): never {
  let first = true
  return {
    toJSON () {
      if (!first) throw new Error('not again')
      first = false
      return text
    }
  } as never
}

onBoth('what is told and answered is made to JSON once, and is the same for the instance itself', async (t, a, b) => {
  const heard: unknown[] = []
  for (const { app } of [a, b]) {
    app.registry.instances.on('load', payload => {
      heard.push(payload)
      return onlyOnce('answer')
    })
  }
  for (const { app } of [a, b]) {
    t.strictSame(await app.registry.instances.ask('load', onlyOnce('question')), { replies: ['answer', 'answer'], missing: 0 })
  }
  t.strictSame(heard.splice(0), Array(4).fill('question'))
  await a.app.registry.instances.emit('load', onlyOnce('event'))
  await until(() => heard.length === 2)
  t.strictSame(heard, ['event', 'event'])
})
