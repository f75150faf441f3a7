import t from 'tap'
import type { Connection } from '../../plugin.ts'
import { testCluster } from '../../lib/testing/index.ts'
import { connect } from '../helpers/client.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { serve, service } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

t.test('await using closes a connection, and waits until its socket is gone', async t => {
  const seen: unknown[] = []
  let kept: Connection | undefined
  const { registry, url } = await serve(t, {}, app => app.get('/', { websocket: true }, app.wsHandler({
    async onConnect (connection) {
      {
        await using brief = connection
        brief.send('bye')
        kept = brief as Connection
      }
      seen.push(connection.closed, connection.signal.aborted, registry.count())
    },
    onMessage () {},
    onDisconnect: (_connection, { code }) => { seen.push(code) }
  })))
  const client = connect(t, url)
  t.equal(await client.next(), 'bye', 'what it was sent before goes out')
  t.match(await client.closed, { code: 1000 })
  await kept?.[Symbol.asyncDispose]()
  await until(() => seen.length === 4)
  t.strictSame(seen, [true, true, 0, 1000], 'a callback may wait for it, and a second time nothing happens')
})

t.test('using removes a handler of instances', async t => {
  const { app } = await service(t)
  await app.ready()
  const { instances } = app.registry
  {
    using handler = instances.on('load', () => 7)
    t.strictSame(await instances.ask('load', null), { replies: [7], missing: 0 })
    t.type(handler, 'function', 'it may be called, too')
  }
  t.strictSame(await instances.ask('load', null), { replies: [], missing: 1 })
})

t.test('a function that two parts give as handler is called for each, and the removal of one leaves the other', async t => {
  const { app } = await service(t)
  await app.ready()
  const { instances } = app.registry
  let calls = 0
  const handler = (): number => ++calls
  const [first, second] = [instances.on('load', handler), instances.on('load', handler)]
  await instances.ask('load', null)
  t.equal(calls, 2)
  second()
  second()
  t.strictSame(await instances.ask('load', null), { replies: [3], missing: 0 })
  first()
  t.strictSame(await instances.ask('load', null), { replies: [], missing: 1 })
})

t.test('await using ends a stream of tokens that its producer left open: as failed', async t => {
  const { app } = await service(t)
  await app.ready()
  const produce = async (id: string, work: () => void): Promise<void> => {
    await using stream = app.registry.stream('lobby', id)
    stream.append('some')
    work()
    await stream.done()
  }
  await produce('whole', () => {})
  t.match(await app.registry.readStream('lobby', 'whole'), { state: 'done', text: 'some' })
  await t.rejects(produce('broken', () => { throw new Error('the model is gone') }), { message: 'the model is gone' })
  t.match(await app.registry.readStream('lobby', 'broken'), { state: 'failed', error: { code: 'WSG_HANDLER_FAILED' } })
})

t.test('using closes the clients of the testing kit', async t => {
  const { app } = await service(t)
  app.wsRoom('/:room', { auth: false })
  await using cluster = await testCluster({ app: () => app, instances: 1 })
  let raw, framed
  {
    using one = await cluster.open('/lobby')
    using two = await cluster.connect('/lobby')
    raw = one
    framed = two
  }
  t.match(await raw.closed(), { code: 1005 })
  t.match(await framed.closed(), { code: 1000 })
})
