// A backplane of the service that fails in ways the contract does not know: nobody is closed, no text gets out, nothing is unhandled.
import t, { type Test } from 'tap'
import { memoryCluster, WebsocketGroupsError, type Backplane, type LocalInstance } from '../../plugin.ts'
import { connect } from '../helpers/client.ts'
import { messageEnvelope } from '../helpers/envelopes.ts'
import { FakeBackplane } from '../helpers/fakes.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { serve, service, type Served } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'
import { openFramed } from './framed/framed-client.ts'

const secret = 'db.internal:5432 password=hunter2'
const failure = (): Error => Object.assign(new Error(secret), { statusCode: 404, code: 'ENOENT' })

/** Code in JavaScript rejects with anything. */
const rejection = async (reason: Error | undefined): Promise<never> => await new Promise((_resolve, reject) => { reject(reason) })

const answersOddly = 'answers with a symbol'
/** Calls whose answer is of no interest. */
const answerless = ['subscribe', 'unsubscribe', 'revoke', 'syncMember', 'close']

/** The ways in which a call, or a property, fails. */
const ways: Readonly<Record<string, () => unknown>> = {
  throws () { throw failure() },
  rejects: async () => await rejection(failure()),
  'rejects with nothing': async () => await rejection(undefined),
  [answersOddly]: () => Symbol(secret)
}

/** Calls and properties of a backplane whose failure keeps nobody from anything: by default, policy goes on without them. */
const spared = [
  'subscribe', 'unsubscribe', 'interrupted', 'position', 'secret', 'blocks', 'settle', 'stats', 'close', 'syncMember',
  'syncUser', 'state', 'problems', 'now'
]
const atBoot = ['secret', 'blocks']
/** The others: what a call to the registry that needs them rejects with. */
const needed: Readonly<Record<string, readonly [need: keyof typeof needs, code?: string]>> = {
  publish: ['disconnect', 'WSG_TIMEOUT'],
  append: ['broadcast', 'WSG_TIMEOUT'],
  block: ['block', 'WSG_TIMEOUT'],
  // It is known here, which counts.
  revoke: ['leave'],
  history: ['history', 'WSG_BACKPLANE_UNAVAILABLE'],
  count: ['count', 'WSG_BACKPLANE_UNAVAILABLE'],
  members: ['members', 'WSG_BACKPLANE_UNAVAILABLE'],
  streams: ['stream', 'WSG_BACKPLANE_UNAVAILABLE']
}

const needs = {
  disconnect: async ({ registry }: Served) => await registry.disconnect({ userId: 'nobody here' }),
  broadcast: async ({ registry }: Served) => await registry.broadcastToGroup('lobby', 'x'),
  block: async ({ registry }: Served) => await registry.block({ userId: 'zoe' }, { forMs: 1_000 }),
  leave: async ({ registry }: Served) => await registry.leave({ userId: 'zoe' }, 'lobby'),
  history: async ({ registry }: Served) => await registry.history('lobby'),
  count: async ({ registry }: Served) => await registry.groupCount('lobby'),
  members: async ({ registry }: Served) => await registry.members('lobby'),
  stream: async ({ registry }: Served) => await registry.stream('lobby', 'answer').done()
} as const

const requests = [
  { type: 'hello' }, { type: 'join', group: 'more', id: 1 }, { type: 'message', data: 'x', id: 2 }, { type: 'leave', group: 'more', id: 3 }
]

interface Failing { readonly backplane: Backplane, readonly calls: number, fail (): void, local (): LocalInstance }

/** A backplane in memory of which one thing fails from a moment on. */
function failing (place: string, way: () => unknown): Failing {
  let [on, calls] = [false, 0]
  let local: LocalInstance | undefined
  const memory = memoryCluster().backplane()
  const fail = (): unknown => {
    calls++
    return way()
  }
  const backplane = new Proxy(memory, {
    get (_, name) {
      const value: unknown = name === 'now' ? Date.now : Reflect.get(memory, name, memory)
      if (typeof value !== 'function') return on && name === place ? fail() : value
      return (...values: unknown[]): unknown => {
        if (name === 'start') local = values[0] as LocalInstance
        return on && name === place ? fail() : Reflect.apply(value, memory, values)
      }
    }
  })
  return {
    backplane,
    get calls () { return calls },
    fail () { on = true },
    local () {
      if (local === undefined) throw new Error('the backplane was not started')
      return local
    }
  }
}

async function serveRooms (t: Test, backplane: Backplane): Promise<Served> {
  const nobody = (): void => undefined
  const hooks = { onOccupied: nobody, onVacated: nobody, onUserOnline: nobody, onUserOffline: nobody }
  return await serve(t, { backplane, outage: { reads: 'reject' }, ...hooks }, app => {
    app.wsRoom('/:room', { presence: true, mayJoin: () => true, history: 10 })
    app.get('/count', async () => await app.registry.groupCount('lobby'))
  })
}

for (const place of [...spared, ...Object.keys(needed)]) {
  for (const [name, way] of Object.entries(ways)) {
    t.test(`${place} ${name}`, async t => {
      const own = failing(place, way)
      if (atBoot.includes(place)) own.fail()
      const served = await serveRooms(t, own.backplane)
      const { app, url, logs } = served
      const there = connect(t, `${url}/lobby`, { protocols: ['bearer', 'ann'] })
      await there.opened
      await until(() => served.registry.count() === 1)
      own.fail()

      const raw = connect(t, `${url}/lobby`, { protocols: ['bearer', 'bob'] })
      const framed = connect(t, `${url}/lobby`, { protocols: ['wsg.v1', 'bearer', 'eve'] })
      for (const { opened } of [raw, framed]) await opened
      for (const request of requests) framed.send(JSON.stringify(request))
      await framed.nextWhere(frame => String(frame).includes('"id":3'))
      await served.registry.broadcastToGroup('lobby', 'volatile', { volatile: true })
      const [need, code] = needed[place] ?? []
      const asked = async (): Promise<void> => { if (need !== undefined) await needs[need](served) }
      if (code === undefined) await asked()
      else await t.rejects(asked, { code, message: /^(?!.*hunter2)/ })
      t.type(served.registry.health().status, 'string')
      t.type(served.registry.stats().connections, 'number')
      t.notMatch((await app.inject('/count')).body, /hunter2/)
      await raw.close()
      t.equal(there.ws.readyState, there.ws.OPEN)
      t.equal(framed.ws.readyState, framed.ws.OPEN)

      await app.close()
      t.ok(own.calls > 0, 'it was called')
      const fails = name !== answersOddly || !answerless.includes(place)
      t.equal(logs.some(({ event }) => event === 'backplane_call_failed'), fails, 'the log tells')
      for (const { messages } of [there, raw, framed]) t.notMatch(messages.join(), /hunter2/)
    })
  }
}

t.test('what a backplane hands over wrongly is told to the log, and to nobody else', async t => {
  const own = failing('', () => undefined)
  const { registry, url, logs } = await serveRooms(t, own.backplane)
  const member = connect(t, `${url}/lobby`, { protocols: ['bearer', 'ann'] })
  await member.opened
  await until(async () => await registry.groupCount('lobby') === 1)
  const right = messageEnvelope('x')
  const needed = ['origin', 'sequence', 'kind', 'target', 'except', 'command', 'payload']
  const lacking = needed.map(field => ({ ...right, [field]: undefined }))
  const wrong: unknown[] = [undefined, null, 'x', {}, ...lacking, { ...right, payload: 'x' }, { ...right, target: 'lobby' }]
  const local = own.local()
  for (const envelope of wrong) local.deliver(envelope as typeof right)
  t.equal(logs.filter(({ event }) => event === 'backplane_call_failed').length, 10, 'as many lines as are written of one event at once')
  local.deliver(right)
  t.equal(await member.next(), 'x')
  t.strictSame(member.messages, ['x'])
})

t.test('the boot fails with what `start` rejects with, also with nothing', async t => {
  for (const [reason, message] of [[failure(), secret], [undefined, /undefined/]] as const) {
    const backplane = Object.assign(memoryCluster().backplane(), { start: async () => await rejection(reason) })
    const { app } = await service(t, { backplane })
    await t.rejects(Promise.resolve(app.ready()), { message })
  }
})

t.test('a list with something that is no block counts as an outage, and the boot goes on', async t => {
  const odd: unknown[] = [null, {}, { name: 'u:ann' }, { name: 7, leftMs: 1_000 }]
  for (const block of odd) {
    const backplane = Object.assign(memoryCluster().backplane(), { blocks: async () => [block] })
    const { url, logs } = await serve(t, { backplane }, app => app.wsRoom('/:room', { auth: false }))
    await connect(t, `${url}/lobby`).opened
    t.ok(logs.some(({ event }) => event === 'backplane_call_failed'))
  }
})

t.test('a boot that fails with the list of blocks closes the backplane', async t => {
  let closed = 0
  const memory = memoryCluster().backplane()
  const backplane = Object.assign(memory, {
    blocks: async () => await rejection(new WebsocketGroupsError('WSG_REDIS_REFUSED')),
    async close () { closed++ }
  })
  const { app } = await service(t, { backplane })
  await t.rejects(Promise.resolve(app.ready()), { code: 'WSG_REDIS_REFUSED' })
  t.equal(closed, 1)
})

t.test('a list with something that is no member counts as an outage, for presence too', async t => {
  noUnhandled(t)
  const backplane = new FakeBackplane()
  let reads = 0
  backplane.onRead = async () => {
    reads++
    return [null] as never
  }
  const { url } = await serve(t, { backplane }, app => app.wsRoom('/:room', { auth: false, presence: true }))
  const client = await openFramed(t, `${url}/lobby`)
  t.match(await client.nextOf('members'), { members: [{ connections: 1 }] }, 'who is here is known without the backplane')
  await until(() => reads > 1)
})
