import t, { type Test } from 'tap'
import type { WebsocketGroupsOptions } from '../../plugin.ts'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { Link } from '../../lib/backplane/redis/link/link.ts'
import { OccupancyStore } from '../../lib/backplane/redis/membership/occupancy.ts'
import { Wire } from '../faults/chaos/wire.ts'
import { onEachBackplane } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'
import { openFramed } from './framed/framed-client.ts'
import { serve, type Served } from '../helpers/service.ts'

noUnhandled(t)
const redis = await startRedis(t)

/** An instance whose hooks write down what they were called for. */
async function start (t: Test, told: string[], options: WebsocketGroupsOptions): Promise<Served> {
  const note = (what: string) => (name: string): void => { told.push(`${what} ${name}`) }
  return await serve(t, {
    onOccupied: note('occupied'), onVacated: note('vacated'), onUserOnline: note('online'), onUserOffline: note('offline'), ...options
  }, app => app.wsRoom('/:room', { auth: { required: false } }))
}

function onBoth (name: string, run: (t: Test, told: string[], a: Served, b: Served) => Promise<void>): void {
  onEachBackplane(t, redis, name, async (t, here) => {
    const told: string[] = []
    await run(t, told, await start(t, told, here()), await start(t, told, here()))
  })
}

onBoth('the first and the last of a group, and of a user, are told once in the cluster', async (t, told, a, b) => {
  const members = await Promise.all([a, b, a, b].map(async ({ url }) => {
    const client = await openFramed(t, `${url}/lobby`, { token: 'ann' })
    await client.nextOf('joined')
    return client
  }))
  await until(() => told.length >= 2)
  t.strictSame(told.splice(0).sort(), ['occupied lobby', 'online ann'])
  const nobody = await openFramed(t, `${a.url}/lobby`)
  await nobody.nextOf('joined')
  for (const member of members) await member.raw.close(1000)
  await until(() => told.length >= 1)
  t.strictSame(told.splice(0), ['offline ann'], 'somebody is still in the group')
  await nobody.raw.close(1000)
  await until(() => told.length >= 1)
  t.strictSame(told.splice(0), ['vacated lobby'])
  const back = await openFramed(t, `${b.url}/lobby`, { token: 'ann' })
  await back.nextOf('joined')
  await until(() => told.length >= 2)
  t.strictSame(told.splice(0).sort(), ['occupied lobby', 'online ann'])
  await b.app.close()
  t.strictSame(told.splice(0).sort(), ['offline ann', 'vacated lobby'], 'a shutdown is an end as any other')
})

/** A store over a proxy, and what makes groups occupied for it. */
async function storeOf (t: Test, prefix: string) {
  const wire = await Wire.start(redis.port)
  t.teardown(() => wire.close())
  const link = new Link(wire.url, 'command', 500)
  t.teardown(async () => await link.close())
  await until(() => link.up)
  const keys = new Keys(prefix)
  const fill = async (name: string): Promise<unknown> => await redis.admin.hset(keys.counts(name), '#', 1)
  return { wire, link, keys, fill, store: new OccupancyStore(link, keys) }
}

t.test('what was recorded before a call failed comes with the next call', async t => {
  const { keys, fill, store } = await storeOf(t, 'failed:')
  const names = Array.from({ length: 200 }, (_, n) => `group ${n}`)
  for (const name of names) await fill(name)
  await redis.admin.config('SET', 'maxmemory', 1)
  t.teardown(async () => await redis.admin.config('SET', 'maxmemory', 0))
  await t.rejects(store.settle('group', names), { code: 'WSG_BACKPLANE_UNAVAILABLE' })
  await redis.admin.config('SET', 'maxmemory', 0)
  // In the middle of the second batch, of which nothing may be recorded then.
  await redis.admin.multi().del(keys.counts('group 140')).set(keys.counts('group 140'), 'not a hash').exec()
  t.strictSame(
    await store.settle('group', names),
    names.filter(name => name !== 'group 140').map(name => ({ name, present: true })),
    'a key of another type counts as none'
  )
  t.strictSame(await store.settle('group', names), [], 'each change once')
})

for (const how of ['the reply is lost with its connection', 'the reply comes too late'] as const) {
  t.test(`a change is told once, also when ${how}`, async t => {
    const { wire, link, fill, store } = await storeOf(t, `${how}:`)
    // Redis knows the script from then on.
    t.strictSame(await store.settle('group', ['nobody']), [])
    await fill('here')
    if (how.includes('lost')) {
      const lost = wire.loseReplyTo('told:group')
      await t.rejects(store.settle('group', ['here']), { code: 'WSG_TIMEOUT' })
      await lost
      await until(() => link.up)
    } else {
      redis.stop()
      await t.rejects(store.settle('group', ['here']), { code: 'WSG_TIMEOUT' })
      redis.cont()
      await until(() => link.up)
    }
    await fill('later')
    t.strictSame(await store.settle('group', ['here', 'later']), [{ name: 'here', present: true }, { name: 'later', present: true }])
    t.strictSame(await store.settle('group', undefined), [])
  })
}

t.test('of an instance that dies, one of those that live tells', async t => {
  const told: string[] = []
  const proxy = await startProxy(t, redis.port)
  const options = { leaseMs: 1_000, keyPrefix: 'died:' }
  for (let n = 0; n < 2; n++) await start(t, told, { ...options, redis: redis.url })
  const heard: string[] = []
  const dying = await start(t, heard, { ...options, redis: proxy.url })
  const ann = await openFramed(t, `${dying.url}/lobby`, { token: 'ann' })
  await ann.nextOf('joined')
  await until(() => heard.length + told.length >= 2)
  await proxy.refuse(true)
  proxy.cut()
  await until(() => told.filter(line => /vacated|offline/.test(line)).length >= 2)
  t.strictSame(told.filter(line => /vacated|offline/.test(line)).sort(), ['offline ann', 'vacated lobby'])
})

t.test('what happened while Redis was out is told when it is back', async t => {
  const told: string[] = []
  const proxy = await startProxy(t, redis.port)
  const a = await start(t, told, { redis: proxy.url, keyPrefix: 'back:' })
  const ann = await openFramed(t, `${a.url}/lobby`, { token: 'ann' })
  await ann.nextOf('joined')
  await until(() => told.length >= 2)
  told.splice(0)
  await proxy.refuse(true)
  proxy.cut()
  await until(() => a.app.registry.health().status === 'down')
  const bob = await openFramed(t, `${a.url}/other`, { token: 'bob' })
  await bob.nextOf('joined')
  await ann.raw.close(1000)
  t.strictSame(told, [])
  await proxy.refuse(false)
  await until(() => told.length >= 4)
  t.strictSame(told.sort(), ['occupied other', 'offline ann', 'online bob', 'vacated lobby'])
})

t.test('a hook that throws is a line in the log, and the option is checked', async t => {
  const told: string[] = []
  const { url } = await start(t, told, { onOccupied: async () => { throw new Error('no') } })
  const ann = await openFramed(t, `${url}/lobby`, { token: 'ann' })
  await ann.nextOf('joined')
  await until(() => told.includes('online ann'))
  await t.rejects(start(t, told, { onVacated: 'yes' as never }), { code: 'WSG_OPTION_INVALID' })
})
