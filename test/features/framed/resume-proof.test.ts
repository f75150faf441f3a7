import t, { type Test } from 'tap'
import type { FastifyInstance } from 'fastify'
import { connect } from '../../helpers/client.ts'
import { onEachBackplane } from '../../helpers/app.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { startRedis } from '../../helpers/redis.ts'
import { serve, type Served } from '../../helpers/service.ts'
import { openFramed, type Frame, type FramedClient } from './framed-client.ts'

noUnhandled(t)
const redis = await startRedis(t)
/** The beginning of whatever log, as anybody could write it. */
const beginning = 'A'.repeat(24)
const group = ({ room }: { readonly room: string }): string => room
const log = { maxMessages: 3, ttlMs: 60_000 }

function routes (app: FastifyInstance): void {
  app.wsRoom('/:room', { auth: { required: false }, group, mayJoin: () => true })
  app.wsRoom('/past/:room', { auth: false, group, history: 1 })
}

function onBoth (name: string, run: (t: Test, a: Served, b: Served) => Promise<void>): void {
  onEachBackplane(t, redis, name, async (t, here) => {
    await run(t, await serve(t, { log, ...here() }, routes), await serve(t, { log, ...here() }, routes))
  })
}

/** What a client was given up to a message that says `end`. */
async function given (served: Served, client: FramedClient): Promise<unknown[]> {
  await client.nextOf('joined')
  await served.app.registry.broadcastToGroup('lobby', 'end')
  const got: unknown[] = []
  for (;;) {
    const { data } = await client.nextOf('message')
    if (data === 'end') return got
    got.push(data)
  }
}

async function say ({ app }: Served, ...texts: string[]): Promise<void> {
  for (const text of texts) await app.registry.broadcastToGroup('lobby', text)
}

const joinedOf = (client: FramedClient): Frame | undefined => client.frames.find(({ type }) => type === 'joined')

onBoth('nobody is given what was said before he came, whatever position he makes up', async (t, a, b) => {
  const member = await openFramed(t, `${a.url}/lobby`)
  await member.nextOf('joined')
  await say(a, 'secret 1')
  const { position } = await member.nextOf('message')
  const epoch = Buffer.from(String(position), 'base64url')
  const made = (offset: number, nonce: number): string => {
    const bytes = Buffer.from(epoch)
    bytes.writeUIntBE(offset, 8, 6)
    bytes.writeUInt32BE(nonce, 14)
    return bytes.toString('base64url')
  }
  await say(a, 'secret 2', 'secret 3', 'secret 4')
  for (const since of [beginning, 'B'.repeat(24), `${'A'.repeat(11)}${'B'.repeat(12)}A`, made(0, 0), made(0, 1), made(1, 1), made(2, 7)]) {
    const hello = { resume: { lobby: since }, grants: { lobby: `${since}${'A'.repeat(22)}` } }
    const spy = await openFramed(t, `${b.url}/lobby`, { hello })
    t.strictSame(await given(b, spy), [], since)
    t.match(joinedOf(spy), { recovered: false })
    const raw = connect(t, `${b.url}/lobby?since=${since}`)
    await raw.opened
    const byJoin = await openFramed(t, `${b.url}/other`)
    byJoin.send({ type: 'join', group: 'lobby', since, id: 1 })
    await byJoin.nextOf('ack')
    await say(a, 'now')
    t.equal((await byJoin.nextOf('message')).data, 'now')
    t.equal(await raw.next(), 'now')
    for (const { terminate } of [spy.raw, raw, byJoin.raw]) terminate()
  }
  t.ok(Number(b.app.registry.stats().resumesRefused) > 0)
})

onBoth('a client that joined an empty group is owed all that was said since, on any instance, and nobody else is', async (t, a, b) => {
  const first = await openFramed(t, `${a.url}/lobby`)
  const { position, grant } = await first.nextOf('joined')
  first.raw.terminate()
  await say(a, '1', '2')
  const back = await openFramed(t, `${b.url}/lobby`, { hello: { session: first.welcome.session, resume: { lobby: position } } })
  t.match(await back.next(), { type: 'joined', recovered: true })
  t.equal((await back.next()).data, '1', 'the position is sealed')
  const offer = { resume: { lobby: beginning }, grants: { lobby: grant } }
  const granted = await openFramed(t, `${b.url}/lobby`, { hello: { session: first.welcome.session, ...offer } })
  t.match(await granted.next(), { type: 'joined', recovered: true })
  const other = await openFramed(t, `${b.url}/lobby`, { hello: offer })
  t.match(await other.next(), { type: 'joined', recovered: false, reason: 'unavailable' }, 'another session')
  const elsewhere = await openFramed(t, `${b.url}/kitchen`, { hello: { session: first.welcome.session, resume: { kitchen: position } } })
  t.match(await elsewhere.next(), { type: 'joined', recovered: false }, 'of another group')
})

onBoth('a client that is back too late gets what is still there with its grant, and without it as much as anybody', async (t, a, b) => {
  const first = await openFramed(t, `${a.url}/lobby`)
  const { grant } = await first.nextOf('joined')
  await say(a, '1')
  const { position } = await first.nextOf('message')
  first.raw.terminate()
  await say(a, '2', '3', '4', '5', '6')
  const { session } = first.welcome
  const hello = { session, resume: { lobby: position } }
  const cases = [['lobby', { lobby: grant }, ['4', '5', '6']], ['lobby', {}, []], ['past/lobby', {}, ['6']]] as const
  for (const [path, grants, expected] of cases) {
    const back = await openFramed(t, `${b.url}/${path}`, { hello: { ...hello, grants } })
    t.match(await back.next(), { type: 'joined', recovered: false, reason: 'trimmed', grant: String })
    for (const data of expected) t.equal((await back.next()).data, data)
    await b.app.registry.broadcastToGroup('lobby', 'live', { volatile: true })
    t.equal((await back.next()).data, 'live')
  }
  const byJoin = await openFramed(t, `${b.url}/other`, { hello: { session } })
  byJoin.send({ type: 'join', group: 'lobby', since: position, grant, id: 1 })
  t.match(await byJoin.nextOf('joined', { group: 'lobby' }), { reason: 'trimmed' })
  t.equal((await byJoin.next()).data, '4')
})

onBoth('a grant is good for nothing from before it', async (t, a, b) => {
  await say(a, '1', '2')
  const late = await openFramed(t, `${a.url}/lobby`)
  const { grant } = await late.nextOf('joined')
  await say(a, '3')
  const { session } = late.welcome
  late.raw.terminate()
  const hello = { session, resume: { lobby: beginning }, grants: { lobby: grant } }
  const back = await openFramed(t, `${b.url}/lobby`, { hello })
  t.strictSame(await given(b, back), ['3'])
})

t.test('a page that was rendered from the history of an empty group resumes from there', async t => {
  const { app, url } = await serve(t, {}, routes)
  const { position } = await app.registry.history('lobby')
  await app.registry.broadcastToGroup('lobby', 'meanwhile')
  t.equal(await connect(t, `${url}/lobby?since=${position}`).next(), 'meanwhile')
})

t.test('with a secret of its own a service keeps none in Redis, and instances with the same one trust each other', async t => {
  const options = { log, redis: redis.url, keyPrefix: 'own:', secret: 's'.repeat(32) }
  const [a, b] = [await serve(t, options, routes), await serve(t, options, routes)]
  const first = await openFramed(t, `${a.url}/lobby`)
  const { grant } = await first.nextOf('joined')
  await say(a, '1')
  const hello = { session: first.welcome.session, resume: { lobby: beginning }, grants: { lobby: grant } }
  t.match(await (await openFramed(t, `${b.url}/lobby`, { hello })).next(), { type: 'joined', recovered: true })
  t.notOk((await redis.keys()).some(key => key.startsWith('own:') && key.endsWith('secret')))
})
