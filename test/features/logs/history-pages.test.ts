import t, { type Test } from 'tap'
import { comparePositions, type HistoryOptions, type WebsocketGroupsOptions } from '../../../plugin.ts'
import { connect as connectClient } from '../../../lib/client/index.ts'
import { WebSocket } from 'ws'
import { onEachBackplane } from '../../helpers/app.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { startRedis } from '../../helpers/redis.ts'
import { until } from '../../helpers/until.ts'
import { openFramed } from '../framed/framed-client.ts'
import { serve, type Served } from '../../helpers/service.ts'

noUnhandled(t)
const redis = await startRedis(t)

function onBoth (name: string, run: (t: Test, options: WebsocketGroupsOptions) => Promise<void>): void {
  onEachBackplane(t, redis, name, async (t, here) => await run(t, here()))
}

async function start (t: Test, options: WebsocketGroupsOptions): Promise<Served> {
  return await serve(t, options, app => {
    app.wsRoom('/:room', { group: ({ room }) => room, history: 2, mayJoin: (_, group) => group !== 'secret', presence: true })
    app.wsRoom('/plain/:room', { group: ({ room }) => `plain:${room}` })
  })
}

/** Sends `m1` to `m<count>`. Resolves with their positions. */
async function fill ({ app }: Served, count: number, group = 'g'): Promise<string[]> {
  const positions: string[] = []
  for (let n = 1; n <= count; n++) {
    const { position = '' } = await app.registry.broadcastToGroup(group, `m${n}`, { from: { userId: `u${n % 2}` } })
    positions.push(position)
  }
  return positions
}

onBoth('pages lead both ways, and `more` says whether there are others', async (t, options) => {
  const a = await start(t, options)
  const positions = await fill(a, 30)
  const at = (n: number): string => positions[n - 1] ?? ''
  const page = async (query: HistoryOptions): Promise<string> => {
    const { messages, more, gap } = await a.app.registry.history('g', query)
    const [first, last] = [messages[0], messages.at(-1)].map(message => String(message?.data ?? '').slice(1))
    return `${messages.length}: ${first}-${last}${more ? ' more' : ''}${gap === undefined ? '' : ` ${gap}`}`
  }
  t.equal(await page({ limit: 3 }), '3: 28-30 more', 'the latest')
  t.equal(await page({ limit: 3, reverse: true }), '3: 30-28 more')
  t.equal(await page({ limit: 30 }), '30: 1-30')
  t.equal(await page({ since: 'start', limit: 3 }), '3: 1-3 more')
  t.equal(await page({ since: 'A'.repeat(24), limit: 3 }), '3: 1-3 more')
  t.equal(await page({ since: 'start', limit: 3, reverse: true }), '3: 30-28 more')
  t.equal(await page({ since: at(27), limit: 3 }), '3: 28-30')
  t.equal(await page({ since: at(26), limit: 3 }), '3: 27-29 more')
  t.equal(await page({ since: at(26), limit: 3, reverse: true }), '3: 30-28 more')
  t.equal(await page({ since: at(27), limit: 3, reverse: true }), '3: 30-28')
  t.equal(await page({ before: at(4), limit: 3 }), '3: 1-3')
  t.equal(await page({ before: at(5), limit: 3 }), '3: 2-4 more')
  t.equal(await page({ before: at(5), limit: 3, reverse: true }), '3: 4-2 more')
  t.equal(await page({ before: at(1), limit: 3 }), '0: -')
  t.equal(await page({ since: at(3), before: at(10), limit: 3 }), '3: 4-6 more')
  t.equal(await page({ since: at(3), before: at(7), limit: 3 }), '3: 4-6')
  t.equal(await page({ since: at(3), before: at(10), limit: 3, reverse: true }), '3: 9-7 more')
  t.equal(await page({ since: at(3), before: at(7), limit: 3, reverse: true }), '3: 6-4')

  const back: string[] = []
  let before: string | undefined
  do {
    const { messages, more } = await a.app.registry.history('g', { limit: 7, reverse: true, before })
    back.push(...messages.map(({ data }) => String(data)))
    before = more ? messages.at(-1)?.position : undefined
  } while (before !== undefined)
  t.strictSame(back, positions.map((_, n) => `m${n + 1}`).reverse(), 'page by page towards the past')
  for (const wrong of [{ before: 'x' }, { since: 'begin' }, { limit: 0 }]) await t.rejects(a.app.registry.history('g', wrong))
})

onBoth('what a page cannot begin with is said', async (t, options) => {
  const a = await start(t, { ...options, log: { maxMessages: 5, ttlMs: 60_000 } })
  const positions = await fill(a, 8)
  const foreign = (await fill(a, 1, 'other'))[0] ?? ''
  const { history } = a.app.registry
  const page = async (query: HistoryOptions): Promise<unknown[]> => {
    const { messages, gap } = await history.call(a.app.registry, 'g', query)
    return [messages.length, gap]
  }
  t.strictSame(await page({ since: 'start' }), [5, 'trimmed'])
  t.strictSame(await page({ since: positions[0], reverse: true }), [5, 'trimmed'])
  t.strictSame(await page({ since: positions[2] }), [5, undefined])
  t.strictSame(await page({ before: foreign }), [0, 'epoch'])
  t.strictSame(await page({ before: positions[4] }), [1, undefined])
  t.strictSame(await page({ before: positions[3] }), [0, 'trimmed'], 'the log begins there, and something was before it')
  t.strictSame(await page({ before: positions[1], reverse: true }), [0, 'trimmed'])
  t.strictSame(await page({ since: positions[0], before: positions[1] }), [0, 'trimmed'])
  t.strictSame(await page({ since: positions[4], before: foreign }), [0, 'epoch'], 'one end of another group')
  t.strictSame(await page({ since: foreign, before: positions[4] }), [1, 'epoch'])
  t.strictSame(await page({ since: positions[6], before: positions[4] }), [0, undefined], 'nothing is between them')
})

onBoth('each message says when it was sent, and by whom', async (t, options) => {
  const a = await start(t, options)
  const before = Date.now()
  await fill(a, 2)
  const ann = await openFramed(t, `${a.url}/talk`, { token: 'ann' })
  await ann.nextOf('joined')
  ann.send({ type: 'message', data: 'hi', id: 1 })
  const live = await ann.nextOf('message', { data: 'hi' })
  const { messages } = await a.app.registry.history('talk')
  t.match(messages, [{ data: 'hi', from: { userId: 'ann', connectionId: ann.welcome.connectionId } }])
  t.equal(live.at, messages[0]?.at)
  const g = await a.app.registry.history('g')
  t.strictSame(g.messages.map(({ from }) => from), [{ userId: 'u1' }, { userId: 'u0' }])
  for (const { at } of [...messages, ...g.messages]) t.ok(at >= before - 1_000 && at <= Date.now() + 1_000, `${at}`)
  await t.rejects(a.app.registry.broadcastToGroup('g', 'x', { from: { userId: 'x'.repeat(256) } }), { code: 'WSG_OPTION_INVALID' })
})

onBoth('a client pages where its route allows it, and may join with some of the past', async (t, options) => {
  const a = await start(t, options)
  await fill(a, 12, 'talk')
  await fill(a, 4, 'more')
  const client = connectClient(`${a.url}/talk`, { token: 'ann', WebSocket })
  t.teardown(() => client.close())
  const got: string[] = []
  client.on('message', ({ data, at }) => got.push(`${String(data)} ${typeof at}`))
  const page = await client.history('talk', { limit: 5, reverse: true })
  t.strictSame(page.messages.map(({ data }) => data), ['m12', 'm11', 'm10', 'm9', 'm8'])
  t.match(page, { more: true, gap: undefined, position: page.messages[0]?.position })
  t.match(page.messages[0], { from: { userId: 'u0' }, at: Number })
  const older = await client.history('talk', { before: page.messages.at(-1)?.position })
  t.strictSame([older.messages.length, older.more], [7, false])
  await client.join('more', { history: 3 })
  await until(() => got.length === 5)
  t.strictSame(got, ['m11 number', 'm12 number', 'm2 number', 'm3 number', 'm4 number'])
  await t.rejects(client.history('secret'), { code: 'WSG_FORBIDDEN' })
  await t.rejects(client.history('talk', { before: 'x' }), { code: 'WSG_POSITION_INVALID' })
  const plain = connectClient(`${a.url}/plain/talk`, { token: 'ann', WebSocket })
  await t.rejects(plain.history('plain:talk'), { code: 'WSG_FORBIDDEN' })
  plain.close()
  await t.rejects(plain.history('plain:talk'), { code: 'CLOSED' })
})

t.test('positions of one group can be compared', async t => {
  const a = await start(t, {})
  const positions = await fill(a, 5)
  t.strictSame([...positions].reverse().sort(comparePositions), positions)
  t.equal(comparePositions(positions[0] ?? '', positions[0] ?? ''), 0)
  t.equal(comparePositions('A'.repeat(24), positions[0] ?? ''), -1)
  const [foreign = ''] = await fill(a, 1, 'other')
  t.throws(() => comparePositions(foreign, positions[0] ?? ''), { code: 'WSG_POSITION_INVALID' })
  t.throws(() => comparePositions('x', positions[0] ?? ''), { code: 'WSG_POSITION_INVALID' })
})
