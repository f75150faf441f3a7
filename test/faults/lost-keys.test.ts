import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { Local } from '../helpers/local-instance.ts'
import { redisCluster } from '../helpers/app.ts'
import { crowd } from '../helpers/crowd.ts'
import { messageEnvelope } from '../helpers/envelopes.ts'
import { startInstance as startProcess } from '../helpers/instance.ts'
import { recordedLog } from '../helpers/loggers.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis, type TestRedis } from '../helpers/redis.ts'
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
    const entries = async (): Promise<number> => kind === 'zset'
      ? await redis.admin.zcard(key)
      : (await redis.admin.hkeys(key)).filter(id => id !== '').length // the empty id is the mark of keys that were written anew
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

t.test('blocks, who was put out, the key of grants and the claim of the names are as if deleted when overwritten', async t => {
  const redis = await startRedis(t)
  const [a, b] = [await new Local({ redis: redis.url, leaseMs }).start(t), await new Local({ redis: redis.url, leaseMs }).start(t)]
  const overwrite = async (name: string): Promise<void> => {
    await redis.admin.multi().del(`wsg:{0}:${name}`).rpush(`wsg:{0}:${name}`, 'not ours').exec()
  }
  t.equal(await a.backplane.block('u:ann', 60_000), true)
  await overwrite('blocked')
  t.equal(await b.backplane.blocks(), undefined, 'instances put back what they know')
  await overwrite('blocked')
  t.equal(await a.backplane.block('u:bob', 60_000), true)
  t.match(await b.backplane.blocks(), [{ name: 'u:bob' }])

  const revocation = { at: 1_000, position: undefined }
  for (const name of ['s:one', 's:two']) {
    await overwrite('x:room')
    t.equal(await b.backplane.revoked('room', [name]), undefined)
    await overwrite('x:room')
    await a.backplane.revoke('room', [name], revocation, 60_000)
    t.match(await b.backplane.revoked('room', [name]), { at: 1_000 })
  }

  t.equal(await a.backplane.secret('first'), 'first')
  await overwrite('secret')
  t.equal(await a.backplane.secret('second'), 'second')
  t.equal(await b.backplane.secret('third'), 'second')

  await overwrite('names')
  const late = await new Local({ redis: redis.url, leaseMs }).start(t)
  await until(() => late.backplane.state === 'up', { timeoutMs: 10_000, what: 'an instance to be up' })
  t.equal(await redis.admin.get('wsg:{0}:names'), 'schema 1, 1 partition')
})

t.test('a stream goes on when another program overwrote its text, its head or the list of streams', async t => {
  const cluster = await redisCluster(t)
  const { registry } = await cluster.start()
  const { registry: elsewhere } = await cluster.start()
  const stream = registry.stream('room', 'answer', { flushMs: 10 })
  const grow = async (text: string): Promise<void> => {
    stream.append(text)
    const whole = (before += text)
    await until(async () => (await elsewhere.readStream('room', 'answer'))?.text === whole, { timeoutMs: 10_000, what: `"${whole}"` })
  }
  let before = ''
  await grow('one ')
  const { admin } = cluster.redis
  for (const name of ['st:4:room:answer', 'sh:4:room:answer', 'sx:room']) {
    const key = `wsg:{0}:${name}`
    const kind = await admin.type(key)
    await admin.multi().del(key).sadd(key, 'not ours').exec()
    await grow(`${kind} `)
    if (name.startsWith('sx')) await stream.done()
    t.equal(await admin.type(key), kind)
  }
  t.match(await elsewhere.readStream('room', 'answer'), { text: 'one string hash zset ', state: 'done' })
})

t.test('appends to, and reads of, a log whose keys another program overwrote are refused, and a log line says so', async t => {
  const redis = await startRedis(t)
  const { log, lines } = recordedLog()
  class Recorded extends Local {
    override readonly log = log
  }
  const a = await new Recorded({ redis: redis.url, leaseMs }).start(t)
  await a.backplane.subscribe({ kind: 'group', name: 'logged' })
  const send = async (key?: string): Promise<unknown> => {
    const target = { kind: 'group', name: 'logged' } as const
    const limits = { maxMessages: 100, maxBytes: 1_000_000, ttlMs: 60_000 }
    const envelope = messageEnvelope('x', { origin: a.instanceId, sequence: ++sent, target })
    return await a.backplane.append([{ group: 'logged', log: limits }], envelope, key)
  }
  let sent = 0
  await send()
  const refused = { code: 'WSG_BACKPLANE_UNAVAILABLE', message: /WRONGTYPE/ }
  await redis.admin.rpush('wsg:{0}:k:6:logged:again', 'not ours')
  await t.rejects(send('again'), refused)
  await redis.admin.multi().del('wsg:{0}:h:logged').set('wsg:{0}:h:logged', 'not ours').exec()
  await t.rejects(send(), refused)
  await t.rejects(a.backplane.history('logged', undefined, 10), refused)
  await redis.admin.client('KILL', 'TYPE', 'PUBSUB')
  await until(() => lines.some(({ msg }) => msg === 'a log could not be read'), { timeoutMs: 10_000, what: 'a warning' })
  t.equal(a.backplane.state, 'degraded')
  await redis.admin.del('wsg:{0}:h:logged')
  await until(() => a.backplane.state === 'up', { timeoutMs: 10_000, what: 'the log to be followed again' })
  await send()
  await until(() => a.received.length === 2, { timeoutMs: 10_000, what: 'the next message' })
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

interface Large {
  readonly redis: TestRedis
  readonly local: Local
  /** Three keys of each group, and of the user with the same name. */
  readonly keys: readonly string[]
  /** Resolves at the next beat. */
  beat (): Promise<void>
  /** Resolves when all keys are there, in less than the time between two beats. */
  allKeys (): Promise<void>
}

interface LargeOptions {
  readonly args?: string[]
  /** A command that the instance may not use. */
  readonly forbidden?: string
  readonly leaseMs?: number
}

/** An instance with 3,000 groups and as many users. */
async function large (t: Test, { args = [], forbidden, leaseMs = 15_000 }: LargeOptions = {}): Promise<Large> {
  const redis = await startRedis(t, { args })
  if (forbidden !== undefined) await redis.admin.acl('SETUSER', 'app', 'on', '>secret', '~*', '&*', '+@all', `-${forbidden}`)
  const url = forbidden === undefined ? redis.url : redis.url.replace('//', '//app:secret@')
  const local = await new Local({ redis: url, leaseMs, operationTimeoutMs: 5_000, joinTimeoutMs: 5_000 }).start(t)
  const names = Array.from({ length: 3_000 }, (_, n) => `${n}`)
  await Promise.all(names.map(async name => {
    local.users.set(name, 1)
    await Promise.all([local.join(name, `${local.instanceId}.${name}`), local.backplane.syncUser(name)])
  }))
  const beats = async (): Promise<number> => Number(await redis.admin.zscore('wsg:{0}:live', local.instanceId))
  const keys = names.flatMap(name => [`wsg:{0}:r:${name}`, `wsg:{0}:m:${name}:${local.instanceId}`, `wsg:{0}:u:${name}`])
  return {
    redis,
    local,
    keys,
    async beat () {
      const last = await beats()
      await until(async () => await beats() > last, { timeoutMs: 10_000, what: 'a beat' })
    },
    async allKeys () {
      // Not all the time: to ask for 9,000 keys costs more than to write them anew.
      const what = 'all keys, before the next beat'
      await until(async () => await redis.admin.exists(...keys) === keys.length, { timeoutMs: 3_500, everyMs: 200, what })
    }
  }
}

t.test('each of thousands of groups and users whose key Redis evicted is written anew within a beat', async t => {
  const { redis, keys, beat, allKeys } = await large(t, { args: ['--maxmemory-policy', 'allkeys-random'] })
  // The look of one beat may be half done already, that of the next one is not.
  await beat()
  const used = Number(/^used_memory:(\d+)/m.exec(await redis.admin.info('memory'))?.[1])
  await redis.admin.config('SET', 'maxmemory', used + 1_000_000)
  for (let n = 0; n < 40; n++) await redis.admin.set(`filler ${n}`, 'x'.repeat(50_000))
  await redis.admin.config('SET', 'maxmemory', 0)
  t.ok(await redis.admin.exists(...keys) < keys.length - 20, 'keys of all kinds were evicted')
  await beat()
  await allKeys()
})

t.test('each of thousands of groups and users whose key another program deleted is written anew within four beats', async t => {
  const { redis, keys, beat, allKeys } = await large(t)
  await beat()
  await redis.admin.del(...keys.filter((_, n) => n % 900 < 3))
  for (let n = 0; n < 4; n++) await beat()
  await allKeys()
})

t.test('the list of thousands of groups that was lost and written anew by a join is whole again after a beat', async t => {
  const { redis, local, beat } = await large(t, { leaseMs: 6_000 })
  const index = `wsg:{0}:i:${local.instanceId}`
  await redis.admin.config('RESETSTAT')
  await beat()
  await until(async () => await redis.admin.sismember(index, '') === 1, { timeoutMs: 10_000, what: 'the list to be marked as whole' })
  await sleep(500)
  const compared = Number(/cmdstat_hlen:calls=(\d+)/.exec(await redis.admin.info('commandstats'))?.[1])
  t.ok(compared < 2_500, `an instance that has its first groups does not compare all of them for that: ${compared}`)
  await redis.admin.del(index)
  await local.join('another', `${local.instanceId}.another`)
  t.equal(await redis.admin.scard(index), 1)
  await beat()
  await until(async () => {
    const [[, marked], [, listed]] = await redis.admin.multi().sismember(index, '').scard(index).exec() as [[null, number], [null, number]]
    // If the instance died now, whoever cleans up after it would rely on the list.
    if (listed < 3_001) t.equal(marked, 0, 'the list is not marked as whole before it is')
    return listed >= 3_001
  }, { timeoutMs: 10_000, everyMs: 1, what: 'all groups to be listed' })
  await beat()
  await until(async () => await redis.admin.sismember(index, '') === 1, { timeoutMs: 10_000, what: 'the list to be marked as whole' })
})

t.test('where Redis does not tell whether it evicts keys, each beat looks for those of all groups and users', async t => {
  const { redis, keys, beat, allKeys } = await large(t, { forbidden: 'info' })
  await beat()
  await redis.admin.del(...keys.filter((_, n) => n % 900 < 3))
  await beat()
  await allKeys()
})

for (const [lost, rejoins] of [['counts', 'another instance'], ['counts', 'this instance'], ['members', 'this instance']] as const) {
  t.test(`${lost} that were lost and written anew by a join of ${rejoins} are made whole by the next beat`, async t => {
    const redis = await startRedis(t)
    const [a, b] = [await new Local({ redis: redis.url, leaseMs }).start(t), await new Local({ redis: redis.url, leaseMs }).start(t)]
    const groups = Array.from({ length: 200 }, (_, n) => `${n}`)
    await Promise.all(groups.map(async group => await a.join(group, `${a.instanceId}.${group}`)))
    const last = groups.filter((_, n) => n % 10 === 9)
    for (const group of last) {
      await redis.admin.del(lost === 'counts' ? `wsg:{0}:r:${group}` : `wsg:{0}:m:${group}:${a.instanceId}`)
      const joining = rejoins === 'this instance' ? a : b
      await joining.join(group, `${joining.instanceId}.new${group}`)
    }
    // Turns, which find such a group sooner or later, would take much longer for all of them.
    await until(async () => (await Promise.all(last.map(async group => await a.backplane.count(group)))).every(count => count === 2), {
      timeoutMs: 6_000, what: '2 members of each group to be counted'
    })
    t.equal((await a.backplane.members(last[0] ?? '')).length, 2)
  })
}

t.test('members of which Redis lost the key are stored anew by the next change of the group, be it a join or a leave', async t => {
  const redis = await startRedis(t)
  // No beat falls into this test.
  const options = { redis: redis.url, leaseMs: 60_000 }
  const [a, b] = [await new Local(options).start(t), await new Local(options).start(t)]
  const ids = Array.from({ length: 100 }, (_, n) => `${a.instanceId}.${n}`)
  for (const group of ['joined', 'left']) {
    await Promise.all([...ids.map(async id => await a.join(group, id)), b.join(group, `${b.instanceId}.1`)])
    await redis.admin.del(`wsg:{0}:m:${group}:${a.instanceId}`)
  }
  const stored = async (group: string): Promise<string> => {
    return `${await a.backplane.count(group)}, ${await redis.admin.hlen(`wsg:{0}:m:${group}:${a.instanceId}`)}`
  }
  await a.join('joined', `${a.instanceId}.new`)
  await until(async () => await stored('joined') === '102, 101', { timeoutMs: 1_000, what: 'all who were there before a join' })
  await a.leave('left', `${a.instanceId}.0`)
  await until(async () => await stored('left') === '100, 99', { timeoutMs: 1_000, what: 'all who stay after a leave' })
  t.equal(await redis.admin.sismember(`wsg:{0}:i:${a.instanceId}`, 'left'), 1)
})

t.test('a group that never stands still keeps none from being made whole, and is made whole itself', async t => {
  const redis = await startRedis(t)
  const [a, b] = [await new Local({ redis: redis.url, leaseMs }).start(t), await new Local({ redis: redis.url, leaseMs }).start(t)]
  // So many that turns would take minutes.
  const groups = Array.from({ length: 200 }, (_, n) => `${n}`)
  await Promise.all(groups.map(async group => await a.join(group, `${a.instanceId}.${group}`)))
  for (let n = 0; n < 100; n++) await a.join('lobby', `${a.instanceId}.${n}`)
  const [churning, pauseMs] = [new AbortController(), { now: 0 }]
  const churn = (async () => {
    while (!churning.signal.aborted) {
      await Promise.all([a.join('lobby', `${a.instanceId}.guest`), a.join('lobby', `${a.instanceId}.other`)])
      await Promise.all([a.leave('lobby', `${a.instanceId}.guest`), a.leave('lobby', `${a.instanceId}.other`)])
      if (pauseMs.now > 0) await sleep(pauseMs.now)
    }
  })()
  const [members, counts] = [`wsg:{0}:m:lobby:${a.instanceId}`, 'wsg:{0}:r:lobby']
  const whole = async (there: number, what: string): Promise<void> => {
    await until(async () => await redis.admin.hlen(members) >= 100 && await a.backplane.count('lobby') >= there, { timeoutMs: 8_000, what })
  }
  await redis.admin.del(members)
  await whole(100, 'the lobby without its members')
  await redis.admin.del(counts)
  await b.join('lobby', `${b.instanceId}.1`)
  await whole(101, 'the lobby without its counts')
  await redis.admin.del('wsg:{0}:r:199')
  await until(async () => await a.backplane.count('199') === 1, { timeoutMs: 8_000, what: 'a quiet group' })
  // Without both keys a change finds nothing that contradicts it. A beat finds it, if the group stands still for a moment.
  pauseMs.now = 20
  await redis.admin.del(members, counts)
  await whole(101, 'the lobby without both')
  churning.abort()
  await churn
  await until(async () => await a.backplane.count('lobby') === 101, { timeoutMs: 8_000, what: 'those who stay, on both instances' })
})

t.test('one of many groups that was lost and written anew is made whole within some beats, whoever leaves others meanwhile', async t => {
  const redis = await startRedis(t)
  const [a, b] = [await new Local({ redis: redis.url, leaseMs }).start(t), await new Local({ redis: redis.url, leaseMs }).start(t)]
  const groups = Array.from({ length: 1_200 }, (_, n) => `${n}`)
  await Promise.all(groups.map(async group => await a.join(group, `${a.instanceId}.${group}`)))
  await until(async () => await a.backplane.count('1199') === 1)
  for (const group of ['650', '1199']) {
    await redis.admin.del(`wsg:{0}:r:${group}`)
    await b.join(group, `${b.instanceId}.${group}`)
  }
  await Promise.all(groups.slice(700, 1_100).map(async group => await a.leave(group, `${a.instanceId}.${group}`)))
  // Turns, which find such a group sooner or later, would take two minutes for all of them.
  await until(async () => (await Promise.all(['650', '1199'].map(async group => await a.backplane.count(group)))).join() === '2,2', {
    timeoutMs: 10_000, what: '2 members of both groups to be counted'
  })
})

t.test('members of an instance that nobody knows are removed by one with more groups than have their turn at once', async t => {
  const redis = await startRedis(t)
  const local = await new Local({ redis: redis.url, leaseMs, operationTimeoutMs: 5_000, joinTimeoutMs: 5_000 }).start(t)
  await Promise.all(Array.from({ length: 50 }, async (_, n) => await local.join(`group ${n}`, `${local.instanceId}.${n}`)))
  for (const group of ['group 0', 'group 49']) {
    await redis.admin.hset(`wsg:{0}:m:${group}:unknown`, { 'unknown.1': '[0,null,null]', 'unknown.2': '[0,null,null]' })
    await redis.admin.hset(`wsg:{0}:r:${group}`, { '#': 3, unknown: 2 })
    await until(async () => await local.backplane.count(group) === 1, { timeoutMs: 60_000, what: `1 member of ${group} to be counted` })
  }
})

t.test('members of unknown instances are removed from hundreds of groups at once after Redis lost what it knew of instances', async t => {
  const redis = await startRedis(t)
  const local = await new Local({ redis: redis.url, leaseMs, operationTimeoutMs: 5_000, joinTimeoutMs: 5_000 }).start(t)
  await Promise.all(Array.from({ length: 600 }, async (_, n) => await local.join(`group ${n}`, `${local.instanceId}.${n}`)))
  const groups = ['group 0', 'group 299', 'group 599']
  for (const group of groups) {
    await redis.admin.hset(`wsg:{0}:m:${group}:unknown`, { 'unknown.1': '[0,null,null]', 'unknown.2': '[0,null,null]' })
    await redis.admin.hset(`wsg:{0}:r:${group}`, { '#': 3, unknown: 2 })
  }
  await redis.admin.del('wsg:{0}:inst', 'wsg:{0}:live', 'wsg:{0}:i:unknown')
  await until(async () => (await Promise.all(groups.map(async group => await local.backplane.count(group)))).join() === '1,1,1', {
    timeoutMs: 10_000, what: '1 member of each group to be counted'
  })
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
