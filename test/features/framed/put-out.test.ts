// Whoever was put out of a group and is let in again is given nothing that was said in between, whatever it kept.
import t, { type Test } from 'tap'
import type { FastifyInstance } from 'fastify'
import { createPublisher, type WebsocketGroupsOptions } from '../../../plugin.ts'
import { onEachBackplane } from '../../helpers/app.ts'
import { connect } from '../../helpers/client.ts'
import { Local } from '../../helpers/local-instance.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { startRedis } from '../../helpers/redis.ts'
import { serve, type Served } from '../../helpers/service.ts'
import { until } from '../../helpers/until.ts'
import { Wire } from '../../faults/chaos/wire.ts'
import { openFramed, type FramedClient } from './framed-client.ts'

noUnhandled(t)
const redis = await startRedis(t)

/** What a client keeps of a group. */
interface Kept {
  readonly session: unknown
  readonly since: unknown
  readonly grant: unknown
}

const group = ({ room }: { readonly room: string }): string => room

function routes (app: FastifyInstance): void {
  app.wsRoom('/:room', { group, auth: { required: false }, mayJoin: () => true })
  app.wsRoom('/past/:room', { group, auth: { required: false }, history: 1 })
}

function onBoth (name: string, run: (t: Test, a: Served, b: Served) => Promise<void>, options: WebsocketGroupsOptions = {}): void {
  onEachBackplane(t, redis, name, async (t, here) => {
    await run(t, await serve(t, { ...options, ...here() }, routes), await serve(t, { ...options, ...here() }, routes))
  })
}

async function say ({ registry }: Served, ...texts: string[]): Promise<void> {
  for (const text of texts) await registry.broadcastToGroup('lobby', text)
}

/** A member of the lobby that was told `before`. */
async function member (t: Test, served: Served, token?: string): Promise<{ readonly client: FramedClient, readonly kept: Kept }> {
  const client = await openFramed(t, `${served.url}/lobby`, token === undefined ? {} : { token })
  const { grant } = await client.nextOf('joined')
  await say(served, 'before')
  const { position } = await client.nextOf('message')
  return { client, kept: { session: client.welcome.session, since: position, grant } }
}

/** What a client is given that comes back with what it kept, up to a message that says `end`. */
async function comeBack (t: Test, served: Served, kept: Partial<Kept>, token?: string, path = 'lobby'): Promise<unknown[]> {
  const { session, since, grant } = kept
  const hello = { session, resume: { lobby: since }, ...(grant === undefined ? {} : { grants: { lobby: grant } }) }
  const client = await openFramed(t, `${served.url}/${path}`, { hello, ...(token === undefined ? {} : { token }) })
  const { recovered } = await client.nextOf('joined')
  const given = await untilEnd(served, async () => (await client.nextOf('message')).data)
  client.raw.terminate()
  await client.raw.closed
  return [recovered, ...given]
}

async function untilEnd ({ registry }: Served, next: () => Promise<unknown>): Promise<unknown[]> {
  await registry.broadcastToGroup('lobby', 'end', { volatile: true })
  const given: unknown[] = []
  for (let data = await next(); data !== 'end'; data = await next()) given.push(data)
  return given
}

/** The ways to put a client out of the lobby, and what the client is then closed with. */
const ways: Readonly<Record<string, (served: Served, client: FramedClient, userId: string | undefined) => Promise<unknown>>> = {
  'left by the application': async ({ registry }, { welcome }) => await registry.leave(String(welcome.connectionId), 'lobby'),
  'put out of all groups': async ({ registry }, { welcome }) => await registry.leaveAll(String(welcome.connectionId)),
  'closed for good': async ({ registry }, { welcome }) => await registry.disconnect(String(welcome.connectionId), { code: 1008 })
}

for (const [way, putOut] of Object.entries(ways)) {
  for (const token of ['ann', undefined]) {
    onBoth(`${way}, ${token === undefined ? 'without a user' : 'as a user'}`, async (t, a, b) => {
      const { client, kept } = await member(t, a, token)
      await putOut(b, client, token)
      await say(a, 'secret 1', 'secret 2')
      for (const served of [b, a]) {
        t.strictSame(await comeBack(t, served, kept, token), [false], 'with all that it kept')
        t.strictSame(await comeBack(t, served, { since: kept.since }, token), [false], 'as another session')
        t.strictSame(await comeBack(t, served, { ...kept, since: 'A'.repeat(24) }, token), [false], 'from the beginning')
      }
      t.strictSame(await comeBack(t, b, kept, token, 'past/lobby'), [false, 'secret 2'], 'as much as a newcomer is given')
      if (token === undefined) return
      const raw = connect(t, `${b.url}/lobby?since=${String(kept.since)}`, { protocols: ['bearer', token] })
      // Nothing tells a raw client that it is in the group.
      await until(() => b.registry.filter(({ framed, groups }) => !framed && groups.includes('lobby')).length === 1)
      t.strictSame(await untilEnd(b, async () => String(await raw.next())), [], 'without the framed protocol')
    })
  }
}

onBoth('once let in again, a client is owed what comes from then on, also where nothing was said meanwhile', async (t, a, b) => {
  const { client, kept } = await member(t, a, 'ann')
  await ways['left by the application']?.(a, client, 'ann')
  const again = await openFramed(t, `${b.url}/lobby`, { token: 'ann', hello: { session: kept.session } })
  const { position, grant } = await again.nextOf('joined')
  t.equal(position, kept.since, 'nothing was said')
  again.raw.terminate()
  await say(a, 'owed')
  t.strictSame(await comeBack(t, a, { session: kept.session, since: position, grant }, 'ann'), [true, 'owed'])
  t.strictSame(await comeBack(t, a, kept, 'ann'), [false], 'the grant from before is good for nothing')
})

onBoth('with a grant from after that, a position from before leads to nothing in between', async (t, a, b) => {
  const { client, kept } = await member(t, a, 'ann')
  await ways['left by the application']?.(a, client, 'ann')
  await say(a, 'secret')
  const again = await openFramed(t, `${b.url}/lobby`, { token: 'ann', hello: { session: kept.session } })
  const { grant } = await again.nextOf('joined')
  await say(a, 'owed')
  again.raw.terminate()
  t.strictSame(await comeBack(t, a, { ...kept, grant }, 'ann'), [true, 'owed'])
})

onBoth('other connections of the user, other users and other groups lose nothing', async (t, a, b) => {
  const { client, kept } = await member(t, a, 'ann')
  const others = [await openFramed(t, `${b.url}/lobby`, { token: 'ann' }), await openFramed(t, `${b.url}/lobby`, { token: 'bob' })]
  const offers = await Promise.all(others.map(async other => {
    const { position, grant } = await other.nextOf('joined')
    other.raw.terminate()
    return { session: other.welcome.session, since: position, grant }
  }))
  await ways['left by the application']?.(a, client, 'ann')
  await say(a, 'for all others')
  t.strictSame(await comeBack(t, a, offers[0] ?? {}, 'ann'), [true, 'for all others'], 'the other tab')
  t.strictSame(await comeBack(t, a, offers[1] ?? {}, 'bob'), [true, 'for all others'])
  t.strictSame(await comeBack(t, a, kept, 'ann'), [false])
})

onBoth('a client that leaves by itself, or is asked to come back, loses nothing', async (t, a, b) => {
  const left = await member(t, a, 'ann')
  left.client.send({ type: 'leave', group: 'lobby', id: 1 })
  await left.client.nextOf('ack')
  const asked = await member(t, a, 'bob')
  await a.registry.disconnect(String(asked.client.welcome.connectionId), { code: 1012 })
  await asked.client.raw.closed
  await say(a, 'after')
  t.strictSame(await comeBack(t, b, left.kept, 'ann'), [true, 'before', 'after'])
  t.strictSame(await comeBack(t, b, asked.kept, 'bob'), [true, 'after'])
})

onBoth('a user is put out with all sessions, those that are away included', async (t, a, b) => {
  const { client, kept } = await member(t, a, 'ann')
  client.raw.terminate()
  await until(() => a.registry.stats().connections === 0)
  t.equal(await b.registry.leave({ userId: 'ann' }, 'lobby'), 0, 'nobody is there')
  await say(a, 'secret')
  t.strictSame(await comeBack(t, a, kept, 'ann'), [false])
  t.strictSame(await comeBack(t, b, { since: kept.since }, 'ann'), [false])
})

for (const hours of [-1, 1]) {
  onBoth(`the clock of the machine is set by ${hours} h, and lets nobody in`, async (t, a) => {
    const { client, kept } = await member(t, a, 'ann')
    const real = Date.now
    t.teardown(() => { Date.now = real })
    Date.now = () => real() + hours * 3_600_000
    await a.registry.leave({ userId: 'ann' }, 'lobby')
    await say(a, 'secret')
    client.raw.terminate()
    await client.raw.closed
    t.strictSame(await comeBack(t, a, kept, 'ann'), [false])
  })
}

t.test('a publisher puts a user out with all sessions, here and away', async t => {
  const keyPrefix = 'publisher:'
  const start = async (): Promise<Served> => await serve(t, { redis: redis.url, keyPrefix }, routes)
  const [a, b] = [await start(), await start()]
  await using publisher = createPublisher({ redis: redis.url, keyPrefix })
  const [away, here] = [await member(t, a, 'ann'), await member(t, b, 'ann')]
  away.client.raw.terminate()
  await until(() => a.registry.stats().connections === 0)
  t.equal(await publisher.leave({ userId: 'ann' }, 'lobby'), 1)
  await here.client.nextOf('left')
  await say(a, 'secret')
  for (const { kept } of [away, here]) {
    t.strictSame(await comeBack(t, a, kept, 'ann'), [false])
    t.strictSame(await comeBack(t, b, { since: kept.since }, 'ann'), [false])
  }
  t.equal(await publisher.leave({ userId: 'nobody' }, 'lobby'), 0)
  await t.rejects(publisher.leave({ userId: 'ann' }, ''), { code: 'WSG_GROUP_NAME_INVALID' })
})

t.test('while the memory of Redis is full, a user is put out and blocked all the same, by whomever', async t => {
  const full = await startRedis(t)
  const [a, b] = [await serve(t, { redis: full.url }, routes), await serve(t, { redis: full.url }, routes)]
  await using publisher = createPublisher({ redis: full.url })
  const acts: ReadonlyArray<readonly [userId: string, act: () => Promise<unknown>]> = [
    ['ann', async () => await a.registry.leave({ userId: 'ann' }, 'lobby')],
    ['bob', async () => await publisher.leave({ userId: 'bob' }, 'lobby')],
    ['cy', async () => await a.registry.block({ userId: 'cy' }, { forMs: 60_000 })],
    ['dan', async () => await publisher.block({ userId: 'dan' }, { forMs: 60_000 })]
  ]
  const away = new Map<string, Kept>()
  for (const [userId] of acts) {
    const { client, kept } = await member(t, a, userId)
    away.set(userId, kept)
    client.raw.terminate()
    await client.raw.closed
  }
  await until(() => a.registry.stats().connections === 0)
  await full.admin.config('SET', 'maxmemory', '1mb')
  await t.rejects(say(a, 'nothing is stored'), { message: /OOM/ })
  for (const [userId, act] of acts) await t.resolves(act(), userId)
  await full.admin.config('SET', 'maxmemory', '0')
  await say(a, 'secret')
  for (const userId of ['cy', 'dan']) await b.registry.unblock({ userId })
  for (const [userId, kept] of away) t.strictSame(await comeBack(t, b, kept, userId), [false], userId)
})

onBoth('a blocked user reads nothing of what was said until the block ended', async (t, a, b) => {
  const { client, kept } = await member(t, a, 'ann')
  await b.registry.block({ userId: 'ann' }, { forMs: 60_000 })
  await client.raw.closed
  await say(a, 'secret')
  await b.registry.unblock({ userId: 'ann' })
  t.strictSame(await comeBack(t, a, kept, 'ann'), [false])
})

onBoth('a user who is away while it is blocked reads nothing of what was said meanwhile, of any group', async (t, a, b) => {
  const { client, kept } = await member(t, a, 'ann')
  const bob = await member(t, a, 'bob')
  for (const { raw } of [client, bob.client]) raw.terminate()
  await until(() => a.registry.stats().connections === 0)
  t.equal(await b.registry.block({ userId: 'ann' }, { forMs: 60_000 }), 0, 'nobody is there')
  await say(a, 'secret')
  await b.registry.unblock({ userId: 'ann' })
  for (const served of [a, b]) {
    t.strictSame(await comeBack(t, served, kept, 'ann'), [false])
    t.strictSame(await comeBack(t, served, { since: kept.since }, 'ann'), [false], 'as another session')
  }
  t.strictSame(await comeBack(t, b, bob.kept, 'bob'), [true, 'secret'], 'others lose nothing')
  const again = await openFramed(t, `${b.url}/lobby`, { token: 'ann', hello: { session: kept.session } })
  const { position, grant } = await again.nextOf('joined')
  again.raw.terminate()
  await say(a, 'owed')
  t.strictSame(await comeBack(t, a, { session: kept.session, since: position, grant }, 'ann'), [true, 'owed'], 'once let in again')
})

t.test('a publisher that blocks a user puts out those that are away', async t => {
  const keyPrefix = 'blocking:'
  const served = await serve(t, { redis: redis.url, keyPrefix }, routes)
  await using publisher = createPublisher({ redis: redis.url, keyPrefix })
  const { client, kept } = await member(t, served, 'ann')
  client.raw.terminate()
  await until(() => served.registry.stats().connections === 0)
  t.equal(await publisher.block({ userId: 'ann' }, { forMs: 60_000 }), 0)
  await say(served, 'secret')
  await publisher.unblock({ userId: 'ann' })
  t.strictSame(await comeBack(t, served, kept, 'ann'), [false])
})

t.test('a fresh token that allows less puts out every session of its user', async t => {
  const tokens: Readonly<Record<string, boolean>> = { full: true, less: false }
  const { url, registry } = await serve(t, {
    redis: redis.url,
    keyPrefix: 'refresh:',
    authenticate: token => token in tokens ? { userId: 'ann', token } : null
  }, app => app.wsRoom('/:room', { group, mayJoin: ({ identity }) => tokens[String(identity?.token)] === true }))
  const join = async (offer: Partial<Kept>): Promise<{ client: FramedClient, kept: Kept, recovered: unknown }> => {
    const client = await openFramed(t, `${url}/hall`, { token: 'full', hello: { session: offer.session } })
    client.send({ type: 'join', group: 'lobby', since: offer.since, grant: offer.grant, id: 1 })
    const { position, grant, recovered } = await client.nextOf('joined', { group: 'lobby' })
    return { client, kept: { session: client.welcome.session, since: position, grant }, recovered }
  }
  const [one, two] = [await join({}), await join({})]
  two.client.raw.terminate()
  one.client.send({ type: 'token', token: 'less', id: 2 })
  await one.client.nextOf('left')
  await one.client.nextOf('ack', { id: 2 })
  await registry.broadcastToGroup('lobby', 'secret')
  for (const { kept } of [one, two]) t.equal((await join(kept)).recovered, false)
})

t.test('what could not be stored while Redis was out is stored when it is back', async t => {
  const stoppable = await startRedis(t)
  const options = { redis: stoppable.url, outage: { join: 'local' } } as const
  const [a, b] = [await serve(t, options, routes), await serve(t, options, routes)]
  const { client, kept } = await member(t, a, 'ann')
  stoppable.stop()
  t.equal(await a.registry.leave(String(client.welcome.connectionId), 'lobby'), true)
  stoppable.cont()
  await until(async () => (await stoppable.keys()).some(key => key.includes(':x:')), { what: 'the revocation to be stored' })
  await until(() => a.registry.health().status === 'up' && b.registry.health().status === 'up')
  await say(a, 'secret')
  t.strictSame(await comeBack(t, b, kept, 'ann'), [false])
})

t.test('a storm of resumes reads who was put out in few calls, and none of these is older than its question', async t => {
  const wire = await Wire.start(redis.port)
  t.teardown(() => wire.close())
  const { backplane } = await new Local({ redis: wire.url, keyPrefix: 'storm:' }).start(t)
  // An answer is never back in the turn of its question, however busy the machine is.
  wire.delay('command', 20)
  const calls = async (): Promise<number> => Number(/cmdstat_hmget:calls=(\d+)/.exec(await redis.admin.info('commandstats'))?.[1] ?? 0)
  const before = await calls()
  let asked = 0
  const answers: Array<Promise<unknown>> = []
  for (; asked < 1_000; asked++) {
    answers.push(backplane.revoked('lobby', [`u:${asked}`, `s:${asked}`]))
    // Each comes in a turn of its own, as hellos do.
    await new Promise(resolve => { setImmediate(resolve) })
  }
  const late = backplane.revoked('lobby', ['u:ann'])
  await backplane.revoke('lobby', ['u:ann'], { at: 1_000 }, 60_000)
  t.match(await backplane.revoked('lobby', ['u:ann']), { at: 1_000 }, 'asked after that')
  t.strictSame(await Promise.all(answers), Array(1_000).fill(undefined))
  await late
  const made = await calls() - before
  t.ok(made < asked / 2, `${made} calls for ${asked} questions`)
})
