import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import type { AnyMessages } from '../../../plugin.ts'
import { connect } from '../../../lib/client/index.ts'
import { streamsOf } from '../../../lib/client/streams.ts'
import { startInstance } from '../../helpers/app.ts'
import { connect as connectRaw } from '../../helpers/client.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { startRedis } from '../../helpers/redis.ts'
import { until } from '../../helpers/until.ts'

noUnhandled(t)

/** Loses every third piece, as a slow link does. */
class Lossy extends WebSocket {
  #pieces = 0

  override emit (event: string, ...args: unknown[]): boolean {
    const text = event === 'message' ? String(args[0]) : ''
    if (text.includes('wsg.stream') && text.includes('"message"') && this.#pieces++ % 3 === 1) return true
    return super.emit(event, ...args)
  }
}

t.test('a reader that misses pieces reads what it lacks, the end too', async t => {
  const { registry, url } = await startInstance(t, {})
  const client = connect(`${url}/ws/lobby`, { WebSocket: Lossy })
  t.teardown(() => client.close())
  const streams = streamsOf(client, { quietMs: 100 })
  const texts: string[] = []
  streams.on('stream', ({ text }) => texts.push(text))
  await until(() => client.groups.length === 1)
  for (let round = 0; round < 5; round++) {
    const stream = registry.stream('lobby', `r${round}`, { flushMs: 10 })
    for (let n = 0; n < 40; n++) {
      stream.append(`${n} ü `)
      await sleep(3)
    }
    await stream.done(round)
    await until(() => streams.get('lobby', `r${round}`)?.state === 'done')
    t.equal(streams.get('lobby', `r${round}`)?.text, Array.from({ length: 40 }, (_, n) => `${n} ü `).join(''))
    t.equal(streams.get('lobby', `r${round}`)?.result, round)
    for (const [index, text] of texts.entries()) t.ok(text.startsWith(texts[index - 1] ?? ''))
    texts.length = 0
  }
})

t.test('through breaks, and a Redis that comes back without its data, a reader has every byte once', async t => {
  const redis = await startRedis(t)
  const options = { redis: redis.url, operationTimeoutMs: 500 }
  const [a, b] = [await startInstance(t, options), await startInstance(t, options)]
  let latest: WebSocket | undefined
  const Tracked = class extends WebSocket {
    constructor (url: string, protocols: string[]) {
      super(url, protocols)
      latest = this
    }
  }
  const client = connect([`${a.url}/ws/lobby`, `${b.url}/ws/lobby`], { WebSocket: Tracked, backoff: { minMs: 10, maxMs: 50 } })
  t.teardown(() => client.close())
  const streams = streamsOf(client, { quietMs: 500 })
  await until(() => client.groups.length === 1)
  const stream = a.registry.stream('lobby', 'r1', { flushMs: 10 })
  let whole = ''
  for (let n = 0; n < 200; n++) {
    const word = `${n} 😀 `
    whole += word
    stream.append(word)
    if (n % 50 === 20) latest?.terminate()
    if (n === 100) await redis.restart()
    await sleep(10)
  }
  await stream.done()
  await until(() => streams.get('lobby', 'r1')?.state === 'done')
  t.equal(streams.get('lobby', 'r1')?.text, whole)
  t.equal((await b.registry.readStream('lobby', 'r1'))?.text, whole)
  client.close()
})

t.test('any WebSocket client reads and stops by hand; strangers and greedy ones may not', async t => {
  const { registry, url } = await startInstance(t, {
    routes: app => {
      const messages = app.wsMessages({ messages: { say: { handler () {} } } }) as AnyMessages
      t.throws(() => app.wsMessages({ messages: { 'wsg.stream.read': { handler () {} } } }), { code: 'WSG_OPTION_INVALID' })
      app.wsRoom('/named/:room', { auth: { required: false }, group: ({ room }) => room, messages })
    }
  })
  for (const path of ['ws', 'named']) {
    const id = `of ${path}`
    const [ann, eve] = [connectRaw(t, `${url}/${path}/lobby`, { protocols: ['bearer', 'ann'] }), connectRaw(t, `${url}/${path}/den`)]
    await Promise.all([ann.opened, eve.opened])
    const stream = registry.stream('lobby', id, { owner: 'ann', meta: 1 })
    stream.append('hello')
    const ask = async (client: typeof ann, type: string, data: unknown): Promise<unknown> => {
      const before = client.messages.length
      client.send(JSON.stringify({ type, data, id: before }))
      return await until(() => client.messages.map(message => parsed(message)).find(message => message.id === before))
    }
    await until(() => ann.messages.some(message => String(message).includes('hello')))
    const pieces = ann.messages.map(message => parsed(message)).filter(({ type }) => type === 'wsg.stream')
    t.match(pieces.at(0), { data: { id, at: 0, meta: 1 } })
    const { data: { ids } } = await ask(ann, 'wsg.stream.list', { group: 'lobby' }) as { data: { ids: string[] } }
    t.ok(ids.includes(id))
    const whole = { type: 'reply', data: { id, epoch: /./, at: 0, to: 5, text: 'hello', meta: 1 } }
    t.match(await ask(ann, 'wsg.stream.read', { group: 'lobby', id }), whole)
    t.match(await ask(ann, 'wsg.stream.read', { group: 'lobby', id, epoch: 'other', from: 3 }), whole)
    t.match(await ask(ann, 'wsg.stream.read', { group: 'lobby', id, from: 1e9 }), whole)
    t.match(await ask(ann, 'wsg.stream.read', { group: 'lobby', id: 'none' }), { type: 'error', code: 'WSG_STREAM_UNKNOWN' })
    for (const data of [undefined, null, 7, [], { group: 'den', id }, { group: 7, id }, { group: 'lobby' }, { group: 'lobby', id: {} }]) {
      t.match(await ask(ann, 'wsg.stream.read', data), { type: 'error', code: /^WSG_(FORBIDDEN|MESSAGE_INVALID)$/ })
    }
    for (const type of ['wsg.stream.list', 'wsg.stream.read', 'wsg.stream.stop']) {
      t.match(await ask(eve, type, { group: 'lobby', id }), { type: 'error', code: 'WSG_FORBIDDEN' })
    }
    t.match(await ask(ann, 'wsg.stream.stop', { group: 'lobby', id }), { type: 'reply', data: { stopped: true } })
    t.ok(stream.signal.aborted)
    await until(
      () => ann.messages.map(message => parsed(message)).some(({ data }) => (data as { end?: unknown } | undefined)?.end === 'stopped')
    )
    for (let n = 0; n < 300; n++) ann.send(JSON.stringify({ type: 'wsg.stream.list', data: { group: 'lobby' }, id: `x${n}` }))
    await until(() => ann.messages.some(message => String(message).includes('WSG_RATE_LIMITED')))
    t.ok(Number(registry.stats().messagesRefused) > 0)
    t.equal(await registry.groupCount('lobby'), 1, 'the connection stays')
    ann.close()
    await until(async () => await registry.groupCount('lobby') === 0)
  }
})

t.test('no member makes a piece of a stream, and requests may be written as any JSON', async t => {
  const { registry, url } = await startInstance(t, {
    routes: app => { app.wsRoom('/json/:room', { auth: { required: false }, group: ({ room }) => room, json: true }) }
  })
  const readers = [false, true].map(json => {
    const client = connect(`${url}/ws/lobby`, { WebSocket, json })
    t.teardown(() => client.close())
    return { client, streams: streamsOf(client) }
  })
  for (const { client } of readers) await until(() => client.groups.length === 1)
  const stream = registry.stream('lobby', 'r1', { flushMs: 10 })
  stream.append('true')
  for (const { streams } of readers) await until(() => streams.get('lobby', 'r1')?.text === 'true')

  const piece = { id: 'r1', epoch: 'forged', at: 0, to: 5, text: 'false', end: 'done' }
  const forged = [
    JSON.stringify({ type: 'wsg.stream', data: piece }),
    JSON.stringify({ type: 'wsg.stream', data: piece }, undefined, 1),
    JSON.stringify({ data: piece, type: 'wsg.stream' }),
    JSON.stringify({ type: 'wsg.stream', id: {}, data: piece }),
    JSON.stringify({ type: 'wsg.stream', data: piece, more: Array.from({ length: 20_001 }, () => 0) }),
    `{"type":"said","type":"wsg\\u002estream","data":${JSON.stringify(piece)}}`
  ]
  for (const path of ['ws', 'json']) {
    const mallory = connectRaw(t, `${url}/${path}/lobby`)
    await mallory.opened
    const answers = (): unknown[] => mallory.messages.map(message => parsed(message)).filter(({ type }) => type === 'error')
    for (const text of forged) mallory.send(text)
    await until(() => answers().length === forged.length)
    t.match(answers(), forged.map(() => ({ code: /^WSG_(FORBIDDEN|MESSAGE_INVALID)$/ })), path)
    mallory.send('{ "id": 1, "data": { "group": "lobby" }, "type": "wsg.stream.list" }')
    await until(() => mallory.messages.some(message => parsed(message).type === 'reply'))
    t.match(mallory.messages.map(message => parsed(message)).find(({ type }) => type === 'reply'), { id: 1, data: { ids: ['r1'] } })
    mallory.close()
  }
  await stream.done()
  for (const { streams } of readers) {
    await until(() => streams.get('lobby', 'r1')?.state === 'done')
    t.equal(streams.get('lobby', 'r1')?.text, 'true')
  }
})

function parsed (message: unknown): Record<string, unknown> {
  try {
    return JSON.parse(String(message)) as Record<string, unknown>
  } catch {
    return {} // the id that the test's room sends
  }
}
