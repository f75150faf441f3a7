import t from 'tap'
import { Local } from '../helpers/local-instance.ts'
import { redisCluster } from '../helpers/app.ts'
import { crowd } from '../helpers/crowd.ts'
import { startInstance as startProcess } from '../helpers/instance.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const leaseMs = 1_500

t.test('a membership key that was evicted or deleted is written anew by the next beat', async t => {
  const redis = await startRedis(t)
  const [a, b] = [await new Local({ redis: redis.url, leaseMs }).start(t), await new Local({ redis: redis.url, leaseMs }).start(t)]
  for (const local of [a, b]) for (let n = 0; n < 3; n++) await local.join('quiet', `${local.instanceId}.${n}`)
  const kinds = {
    counts: ['wsg:{0}:r:quiet'],
    members: [`wsg:{0}:m:quiet:${a.instanceId}`],
    index: [`wsg:{0}:i:${a.instanceId}`],
    all: ['wsg:{0}:r:quiet', `wsg:{0}:m:quiet:${a.instanceId}`, `wsg:{0}:m:quiet:${b.instanceId}`, `wsg:{0}:i:${a.instanceId}`]
  }
  for (const [kind, keys] of Object.entries(kinds)) {
    await redis.admin.del(...keys)
    await until(async () => await a.backplane.count('quiet') === 6, { timeoutMs: 10_000, what: `6 to be counted without ${kind}` })
    await until(
      async () => (await a.backplane.members('quiet')).length === 6, { timeoutMs: 10_000, what: `6 to be listed without ${kind}` }
    )
    await until(async () => await redis.admin.exists(...keys) === keys.length, { timeoutMs: 10_000, what: `${kind} to be there` })
  }
  await Promise.all([a.backplane.close(), b.backplane.close()])
  t.strictSame(await redis.keys(), [])
})

t.test('a membership key that another program overwrote with another type is written anew by the next beat', async t => {
  const redis = await startRedis(t)
  const [a, b] = [await new Local({ redis: redis.url, leaseMs }).start(t), await new Local({ redis: redis.url, leaseMs }).start(t)]
  for (const local of [a, b]) for (let n = 0; n < 3; n++) await local.join('quiet', `${local.instanceId}.${n}`)
  const kinds = { 'wsg:{0}:r:quiet': 'hash', [`wsg:{0}:m:quiet:${a.instanceId}`]: 'hash', [`wsg:{0}:i:${a.instanceId}`]: 'set' }
  const overwrite = async (key: string): Promise<void> => { await redis.admin.multi().del(key).rpush(key, 'not ours').exec() }
  for (const [key, kind] of Object.entries(kinds)) {
    await overwrite(key)
    await until(async () => await redis.admin.type(key) === kind, { timeoutMs: 10_000, what: `${key} to be a ${kind}` })
    await until(async () => await a.backplane.count('quiet') === 6, { timeoutMs: 10_000, what: `6 to be counted after ${key}` })
    t.equal((await a.backplane.members('quiet')).length, 6)
  }
  for (const key of Object.keys(kinds)) await overwrite(key)
  await a.join('quiet', `${a.instanceId}.3`)
  await until(async () => await a.backplane.count('quiet') === 7, { timeoutMs: 10_000, what: '7 to be counted after a join' })
  await Promise.all([a.backplane.close(), b.backplane.close()])
  t.strictSame(await redis.keys(), [])
})

t.test('leases, the list of instances, their generations and the count of a user are written anew when overwritten', async t => {
  const redis = await startRedis(t)
  const [a, b] = [await new Local({ redis: redis.url, leaseMs }).start(t), await new Local({ redis: redis.url, leaseMs }).start(t)]
  for (const local of [a, b]) await local.join('quiet', `${local.instanceId}.1`)
  a.users.set('ann', 2)
  await a.backplane.syncUser('ann')
  const kinds = { live: 'zset', inst: 'hash', gen: 'hash', 'u:ann': 'hash' }
  for (const [name, kind] of Object.entries(kinds)) {
    const key = `wsg:{0}:${name}`
    await redis.admin.multi().del(key).rpush(key, 'not ours').exec()
    await until(async () => await redis.admin.type(key) === kind, { timeoutMs: 10_000, what: `${name} to be a ${kind}` })
    // Each instance writes its own entry.
    const entries = async (): Promise<number> => await (kind === 'zset' ? redis.admin.zcard(key) : redis.admin.hlen(key))
    await until(async () => await entries() === (name === 'u:ann' ? 1 : 2), { timeoutMs: 10_000, what: `all entries of ${name}` })
    await until(async () => (await a.backplane.instances()).size === 2, { timeoutMs: 10_000, what: `2 to live after ${name}` })
    await until(() => [a, b].every(({ backplane }) => backplane.state === 'up'), { timeoutMs: 10_000, what: `both to be up after ${name}` })
    await a.join('quiet', `${a.instanceId}.${name}`)
  }
  await until(async () => await b.backplane.count('quiet') === 6, { timeoutMs: 10_000, what: '6 to be counted' })
  await until(async () => await b.backplane.syncUser('ann') === 2, { timeoutMs: 10_000, what: '2 connections to be counted' })
  a.users.set('ann', 0)
  await a.backplane.syncUser('ann')
  await Promise.all([a.backplane.close(), b.backplane.close()])
  t.strictSame(await redis.keys(), [])
})

t.test('what the hooks of the application were told is recorded anew when another program overwrote the record', async t => {
  const redis = await startRedis(t)
  const local = await new Local({ redis: redis.url, leaseMs }).start(t)
  await local.join('quiet', `${local.instanceId}.1`)
  const present = [{ name: 'quiet', present: true }]
  t.strictSame(await local.backplane.settle('group', ['quiet']), present)
  for (const names of [['quiet'], undefined]) {
    await redis.admin.multi().del('wsg:{0}:told:group').rpush('wsg:{0}:told:group', 'not ours').exec()
    t.strictSame(await local.backplane.settle('group', names), names === undefined ? [] : present)
    t.strictSame(await local.backplane.settle('group', ['quiet']), names === undefined ? present : [])
  }
})

t.test('a record of a member that another program overwrote costs nobody the list of members', async t => {
  const redis = await startRedis(t)
  const local = await new Local({ redis: redis.url, leaseMs }).start(t)
  const ids = ['text', 'number', 'null', 'object', 'strange', 'short', 'whole']
  for (const id of ids) await local.join('quiet', id)
  const records = { text: 'garbage{', number: '7', null: 'null', object: '{}', strange: '["now",null,null]', short: '[1]' }
  await redis.admin.hset(`wsg:{0}:m:quiet:${local.instanceId}`, records)
  const members = await local.backplane.members('quiet')
  t.strictSame(members.map(({ connectionId }) => connectionId).sort(), ids.sort())
  const { instanceId } = local
  t.strictSame(
    members.find(({ connectionId }) => connectionId === 'strange'), { connectionId: 'strange', instanceId, joinedAt: 0 }
  )
})

t.test('the count of a user that was evicted or deleted is written anew by the next beat', async t => {
  const redis = await startRedis(t)
  const [a, b] = [await new Local({ redis: redis.url, leaseMs }).start(t), await new Local({ redis: redis.url, leaseMs }).start(t)]
  a.users.set('ann', 2)
  await a.backplane.syncUser('ann')
  await redis.admin.del('wsg:{0}:u:ann')
  await until(async () => await b.backplane.syncUser('ann') === 2, { timeoutMs: 10_000, what: '2 connections to be counted' })
  a.users.set('ann', 0)
  await a.backplane.syncUser('ann')
  await Promise.all([a.backplane.close(), b.backplane.close()])
  t.strictSame(await redis.keys(), [])
})

t.test('the count of a user that Redis refused is stored by a later beat', async t => {
  const redis = await startRedis(t)
  const [a, b] = [await new Local({ redis: redis.url, leaseMs }).start(t), await new Local({ redis: redis.url, leaseMs }).start(t)]
  await redis.admin.config('SET', 'maxmemory', 1)
  a.users.set('ann', 2)
  await t.rejects(a.backplane.syncUser('ann'), { message: /OOM/ })
  await redis.admin.config('SET', 'maxmemory', 0)
  await until(async () => await b.backplane.syncUser('ann') === 2, { timeoutMs: 10_000, what: '2 connections to be counted' })
})

t.test('members of an instance that nobody knows are removed by one with more groups than one look compares', async t => {
  const redis = await startRedis(t)
  const local = await new Local({ redis: redis.url, leaseMs }).start(t)
  await Promise.all(Array.from({ length: 600 }, async (_, n) => await local.join(`group ${n}`, `${local.instanceId}.${n}`)))
  for (const group of ['group 0', 'group 599']) {
    await redis.admin.hset(`wsg:{0}:m:${group}:unknown`, { 'unknown.1': '[0,null,null]', 'unknown.2': '[0,null,null]' })
    await redis.admin.hset(`wsg:{0}:r:${group}`, { '#': 3, unknown: 2 })
    await until(async () => await local.backplane.count(group) === 1, { timeoutMs: 20_000, what: `1 member of ${group} to be counted` })
  }
})

t.test('members of an instance that died go, too, when another program overwrote its index and counts with another type', async t => {
  const redis = await startRedis(t)
  const survivor = await new Local({ redis: redis.url, leaseMs }).start(t)
  const victim = await startProcess(t, { redisUrl: redis.url, options: { leaseMs } })
  await crowd(t, victim.port, ['alone'])
  await until(async () => await survivor.backplane.count('alone') === 1)
  await victim.kill()
  for (const key of ['wsg:{0}:r:alone', `wsg:{0}:i:${victim.id}`]) await redis.admin.set(key, 'not ours')
  await until(async () => await redis.admin.exists(`wsg:{0}:m:alone:${victim.id}`, 'wsg:{0}:r:alone', `wsg:{0}:i:${victim.id}`) === 0, {
    timeoutMs: 20 * leaseMs, what: 'nothing to be left of it'
  })
  t.equal(await survivor.backplane.count('alone'), 0)
})

for (const lost of ['index', 'leases', 'records', 'index and records', 'index, records and leases'] as const) {
  t.test(`members of an instance that died go, too, when its ${lost} are gone`, async t => {
    const redis = await startRedis(t)
    const cluster = await redisCluster(t, redis, { leaseMs })
    const survivor = await cluster.start()
    await survivor.enter('shared')
    const victim = await startProcess(t, { redisUrl: redis.url, options: { leaseMs } })
    await crowd(t, victim.port, ['shared', 'shared', 'alone'])
    const counts = async (): Promise<number[]> => await Promise.all(
      ['shared', 'alone'].map(async room => await survivor.registry.groupCount(room))
    )
    await until(async () => (await counts()).join() === '3,1')
    await victim.kill()
    if (lost.includes('index')) await redis.admin.del(`wsg:{0}:i:${victim.id}`)
    if (lost.includes('records')) await redis.admin.hdel('wsg:{0}:inst', victim.id)
    if (lost.includes('leases')) await redis.admin.del('wsg:{0}:live')
    // With all three nothing tells of it but the groups themselves: those with living members.
    const expected = lost.includes('index, records') ? '1,1' : '1,0'
    await until(async () => (await counts()).join() === expected, { timeoutMs: 20 * leaseMs, what: `${expected} to be counted` })
    t.equal((await survivor.registry.members('shared')).length, 1)
  })
}
