import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { decode, encode } from '../../lib/backplane/redis/envelope.ts'
import { Keys } from '../../lib/backplane/redis/keys.ts'
import { EnvelopeFactory } from '../../lib/delivery/envelopes.ts'
import { heard, onEveryCluster, onRedis } from '../helpers/app.ts'
import { watchMachine } from '../helpers/machine.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { startRedis } from '../helpers/redis.ts'
import { startProxy } from '../helpers/tcp-proxy.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)
const machine = watchMachine(t)
const redis = await startRedis(t)

onEveryCluster(t, redis, 'sendTo reaches a connection wherever it is, as it was sent', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  for (const target of [await a.open(), await b.open()]) {
    for (const data of ['text', '', 'grüße', Buffer.from([0, 255, 128]), new Uint8Array(), Buffer.alloc(100_000, 3)]) {
      t.equal(await a.registry.sendTo(target.id, data), true)
      t.strictSame(await target.client.next(), typeof data === 'string' ? data : Buffer.from(data))
    }
  }
})

onEveryCluster(t, redis, 'join, leave, leaveAll and groups of a remote connection resolve when all is done', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const { client, connection, id } = await b.open()
  for (const named of [id, connection]) {
    t.strictSame(await a.registry.join(named, 'one'), { scope: 'cluster' })
    t.strictSame(connection.groups, ['one'])
    t.equal(await a.registry.groupCount('one'), 1)
    await a.registry.broadcastToGroup('one', 'joined')
    t.equal(await client.next(), 'joined')
    t.strictSame(await a.registry.join(named, 'two'), { scope: 'cluster' })
    t.strictSame(await a.registry.groups(named), ['one', 'two'])
    t.equal(await a.registry.leave(named, 'one'), true)
    t.strictSame(connection.groups, ['two'])
    t.equal(await a.registry.groupCount('one'), 0)
    t.equal(await a.registry.leave(named, 'one'), false)
    await a.registry.join(named, 'three')
    t.equal(await a.registry.leaveAll(named), 2)
    t.strictSame(await a.registry.groups(named), [])
    t.equal(await a.registry.leaveAll(named), 0)
    t.equal(await a.registry.groupCount('two'), 0)
  }
  t.equal(a.registry.stats().groups, 0, 'none of it is held by the instance that asked')
})

onEveryCluster(t, redis, 'a connection closed from another instance gets the code and the reason', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const closings: ReadonlyArray<readonly [{ code?: number, reason?: string } | undefined, number, string]> = [
    [undefined, 1000, ''], [{ code: 4321, reason: 'grüße' }, 4321, 'grüße'], [{ reason: 'bye' }, 1000, 'bye'],
    [{ code: 3000, reason: 'é'.repeat(61) }, 3000, 'é'.repeat(61)]
  ]
  for (const [options, code, reason] of closings) {
    const { client, id } = await b.enter('leaving')
    t.equal(await a.registry.disconnect(id, options), 1)
    t.strictSame(await client.closed, { code, reason })
    await until(async () => await a.registry.groupCount('leaving') === 0)
    t.equal(await a.registry.disconnect(id, options), 0)
  }
  const { client, id } = await b.open()
  for (const wrong of [
    { code: 1005 }, { code: 999 }, { code: 5000 }, { code: NaN }, { reason: 'é'.repeat(62) }, { reason: 5 as unknown as string }
  ]) {
    for (const target of [id, 'nobody', { userId: 'nobody' }]) {
      await t.rejects(a.registry.disconnect(target, wrong), { code: 'WSG_CLOSE_CODE_INVALID' })
    }
  }
  await a.registry.sendTo(id, 'still here')
  t.equal(await client.next(), 'still here')
})

onEveryCluster(t, redis, 'a connection that is gone, or never was, is said to be gone', async (t, cluster) => {
  const [a, b, c] = [await cluster.start(), await cluster.start(), await cluster.start()]
  const [closedHere, closedThere, onDead] = [await a.open(), await b.open(), await c.open()]
  for (const { client } of [closedHere, closedThere]) await client.close()
  await until(() => a.registry.count() === 0 && b.registry.count() === 0)
  await c.close()
  const ids = [
    closedHere.id, closedThere.id, onDead.id, `${a.id}.zzz`, `${b.id}.zzz`, '0000000000.1',
    '', '.', '.1', 'nobody', `${b.id}`, `${b.id}.`, `${b.id}.1\n`, `${b.id}.1.1`, `${b.id}.A`, '*.1', '__proto__.1', 'x'.repeat(100_000),
    '\ud800.1', `\0${b.id}.1`
  ]
  for (const named of [...ids, closedHere.connection, closedThere.connection, onDead.connection]) {
    const which = typeof named === 'string' ? named.slice(0, 40) : 'an object'
    await t.rejects(a.registry.join(named, 'g'), { code: 'WSG_CONNECTION_GONE' }, which)
    await t.rejects(a.registry.groups(named), { code: 'WSG_CONNECTION_GONE' }, which)
    t.equal(await a.registry.leave(named, 'g'), false, which)
    t.equal(await a.registry.leaveAll(named), 0, which)
    t.equal(await a.registry.disconnect(named), 0, which)
    if (typeof named === 'string') t.equal(await a.registry.sendTo(named, 'x'), false, which)
  }
  t.equal(await a.registry.groupCount('g'), 0)
})

onEveryCluster(t, redis, 'what the other instance refuses is refused here with the same code', async (t, cluster) => {
  const [a, b] = [
    await cluster.start(),
    await cluster.start({ maxGroupsPerConnection: 1, memberInfo: ({ groups }) => groups.length > 5 ? null : 'i'.repeat(infoBytes) })
  ]
  let infoBytes = 2_000
  const { id } = await b.open()
  await t.rejects(a.registry.join(id, 'g'), { code: 'WSG_MEMBER_INFO_TOO_LARGE', statusCode: 500 })
  infoBytes = 2
  await a.registry.join(id, 'g')
  await t.rejects(a.registry.join(id, 'h'), { code: 'WSG_TOO_MANY_GROUPS', statusCode: 429, detail: `${id} is in 1 already` })
  await t.rejects(a.registry.join(id, ''), { code: 'WSG_GROUP_NAME_INVALID' })
  await t.rejects(a.registry.leave(id, 'a\0'), { code: 'WSG_GROUP_NAME_INVALID' })
  t.strictSame(await b.registry.groups(id), ['g'])
})

onEveryCluster(t, redis, 'an error of the other instance\'s own is an error here, and its text arrives', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start({ memberInfo () { throw new TypeError('no such column') } })]
  const { id } = await b.open()
  await t.rejects(a.registry.join(id, 'g'), { code: 'WSG_TIMEOUT', message: /no such column/ })
  t.strictSame(await b.registry.groups(id), [])
})

onRedis(t, redis, 'an owner that goes silent in the middle of a request costs the caller no more than the deadline', async (t, cluster) => {
  const proxy = await startProxy(t, redis.port)
  const a = await cluster.start({ joinTimeoutMs: 200, operationTimeoutMs: 200 })
  const b = await cluster.start({ redis: proxy.url })
  const { id } = await b.open()
  proxy.blackhole(true)
  machine.restart()
  const started = performance.now()
  await Promise.all([
    t.rejects(a.registry.sendTo(id, 'x'), { code: 'WSG_TIMEOUT' }),
    t.rejects(a.registry.join(id, 'g'), { code: 'WSG_TIMEOUT' }),
    t.rejects(a.registry.disconnect(id), { code: 'WSG_TIMEOUT' })
  ])
  machine.within(t, performance.now() - started, 600, 'within joinTimeoutMs and operationTimeoutMs')
  proxy.blackhole(false)
  await until(() => Number(b.registry.stats().redisReconnects) > 0 &&
    b.registry.health().status === 'up', { timeoutMs: 8_000, what: 'the owner to be back' })
  await until(async () => await a.registry.sendTo(id, 'y').catch(() => false), { what: 'a request to be answered again' })
})

onEveryCluster(t, redis, 'an owner that closes while it is asked settles every request', async (t, cluster) => {
  const deadlines = { operationTimeoutMs: 500, joinTimeoutMs: 1_000 }
  const [a, b] = [await cluster.start(deadlines), await cluster.start(deadlines)]
  const targets = await Promise.all(Array.from({ length: 20 }, async () => await b.open()))
  const asked: Array<Promise<Array<PromiseSettledResult<unknown>>>> = []
  const ask = (): void => {
    for (const { id } of targets) {
      // Settled at once: on a busy machine requests are over before the owner is closed.
      asked.push(Promise.allSettled([
        a.registry.sendTo(id, 'x'), a.registry.leave(id, 'g'), a.registry.join(id, 'g').catch((error: unknown) => error),
        a.registry.disconnect(id)
      ]))
    }
  }
  ask()
  const closed = b.close()
  for (let turn = 0; turn < 10; turn++) {
    ask()
    await sleep(1)
  }
  await closed
  ask()
  machine.restart()
  const started = performance.now()
  const answers = (await Promise.all(asked)).flat()
  machine.within(t, performance.now() - started, 2_000, 'done')
  for (const answer of answers) {
    if (answer.status === 'rejected') t.match(answer.reason, { code: 'WSG_TIMEOUT' })
    else if (answer.value instanceof Error) t.match(answer.value, { code: /WSG_CONNECTION_GONE|WSG_TIMEOUT/ })
  }
  t.strictSame(await Promise.all(targets.map(async ({ id }) => await a.registry.sendTo(id, 'x'))), targets.map(() => false))
})

onEveryCluster(t, redis, 'the asker that closes settles its own requests at once', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const { id } = await b.open()
  const asked = Promise.allSettled(Array.from({ length: 50 }, async () => await a.registry.sendTo(id, 'x')))
  await a.close()
  for (const answer of await asked) {
    if (answer.status === 'rejected') t.match(answer.reason, { code: /WSG_CLOSED|WSG_BACKPLANE_UNAVAILABLE|WSG_TIMEOUT/ })
    else t.equal(answer.value, true)
  }
})

onEveryCluster(t, redis, 'a connection object is not taken for one of another instance in the same process', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const { client, connection, id } = await a.open()
  await b.registry.join(connection, 'room')
  t.equal(b.registry.stats().groups, 0)
  t.strictSame((await b.registry.members('room')).map(({ connectionId, instanceId }) => [connectionId, instanceId]), [[id, a.id]])
  await b.registry.broadcastToGroup('room', 'once')
  await b.registry.broadcastToGroup('room', 'end')
  await client.nextWhere(message => message === 'end')
  t.strictSame(client.messages.slice(1), ['once', 'end'])
  t.equal(await b.registry.disconnect(connection, { code: 4000 }), 1)
  t.equal((await client.closed).code, 4000)
})

onEveryCluster(t, redis, 'many requests at the same time each get their own answer', async (t, cluster) => {
  const [a, b] = [await cluster.start(), await cluster.start()]
  const targets = await Promise.all(Array.from({ length: 10 }, async () => await b.open()))
  await Promise.all(targets.flatMap(({ id }, index) => Array.from({ length: index }, async (_, n) => await a.registry.join(id, `g${n}`))))
  const answers = await Promise.all(targets.map(async ({ id }) => (await a.registry.groups(id)).length))
  t.strictSame(answers, targets.map((_, index) => index))
  t.strictSame(await Promise.all(targets.map(async ({ id }) => await a.registry.leaveAll(id))), targets.map((_, index) => index))
  for (const target of targets) t.strictSame(heard(target), [])
})

onRedis(t, redis, 'nonsensical requests and those of a newer version are answered with an error and do no harm', async (t, cluster) => {
  const a = await cluster.start()
  const member = await a.enter('room', { user: 'ann' })
  const [keys, sender] = [new Keys('wsg:'), new EnvelopeFactory()]
  const inbox = { kind: 'instance', name: a.id } as const
  const answers = new Redis(redis.url)
  t.teardown(() => answers.disconnect())
  await answers.subscribe(keys.channel({ kind: 'instance', name: sender.origin }))
  interface Reply { readonly id: number, readonly answer?: unknown, readonly error?: { readonly code: string } }
  const replies = new Map<number, Reply>()
  answers.on('messageBuffer', (_channel: Buffer, bytes: Buffer) => {
    const reply = JSON.parse(decode(bytes)?.command ?? '{}') as Reply
    replies.set(reply.id, reply)
  })
  const connectionId = member.id
  const senseless: object[] = [
    {}, { op: null }, { op: 'join' }, { op: 'send' }, { op: 'toString' }, { op: 'constructor', connectionId },
    { op: 'from-the-future', connectionId }, { op: 'join', connectionId }, { op: 'join', connectionId, group: 5 },
    { op: 'join', connectionId, group: '' },
    { op: 'join', connectionId: 5, group: 'x' }, { op: 'join', connectionId: {}, group: 'x' },
    { op: 'disconnect', connectionId, code: 'x', reason: '' }, { op: 'disconnect', connectionId, code: 1000, reason: {} },
    { op: 'disconnect', connectionId, code: 1006, reason: '' },
    { op: 'disconnectUser', userId: 'ann', code: 0, reason: '' },
    { op: 'disconnectUser', userId: 'ann', code: 1000, reason: 'x'.repeat(200) }
  ]
  for (const [id, command] of senseless.entries()) {
    const bytes = encode(sender.command('request', inbox, JSON.stringify({ id, ...command })), inbox)
    t.equal(await redis.admin.publish(keys.channel(inbox), bytes), 1)
  }
  await until(() => replies.size === senseless.length)
  for (const [id, command] of senseless.entries()) {
    t.equal(replies.get(id)?.answer, undefined, JSON.stringify(command))
    t.match(replies.get(id)?.error, { code: /^WSG_/ })
  }
  t.strictSame(member.connection.groups, ['room'])
  t.equal(member.connection.closed, false)
  await a.registry.broadcastToGroup('room', 'all is well')
  t.equal(await member.client.next(), 'all is well')
  await answers.quit()
})
