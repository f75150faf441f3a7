import t from 'tap'
import { connect } from '../../helpers/client.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { serve } from '../../helpers/service.ts'
import { until } from '../../helpers/until.ts'

noUnhandled(t)

t.test('what waits for slow clients is limited in all: those furthest behind are ended, others go on', async t => {
  const ended: number[] = []
  const options = { limits: { bufferedBytes: 6_000_000 }, maxBufferedBytes: 50_000_000 }
  const { url, app } = await serve(t, options, app => {
    app.get('/:name', { websocket: true }, app.wsHandler({
      onMessage () {},
      onDisconnect (_, { code }) { ended.push(code) }
    }))
  })
  const { registry } = app
  const open = async (name: string): Promise<ReturnType<typeof connect>> => {
    const client = connect(t, `${url}/${name}`)
    await client.opened
    return client
  }
  const [furthest, other] = [await open('furthest'), await open('other'), await open('reader')]
  furthest.ws.pause()
  other.ws.pause()
  const find = (name: string): (typeof registry extends { get (id: string): infer Found } ? NonNullable<Found> : never) => {
    const [found] = registry.filter(({ params }) => (params as { name: string }).name === name)
    if (found === undefined) throw new Error(`${name} is not connected`)
    return found
  }
  const megabyte = Buffer.alloc(1_000_000)
  const reader = find('reader')
  // The network takes some megabytes before anything waits here.
  while (find('other').bufferedBytes < 2_000_000) find('other').send(megabyte)
  const behind = find('furthest')
  while (!behind.closed) behind.send(megabyte)
  await until(() => ended.length === 1)
  t.strictSame(ended, [4008])
  t.equal(find('other').closed, false)
  await until(() => Number(registry.stats().bufferedBytes) <= 6_000_000)
  t.equal(registry.stats().slowConsumersClosed, 1)
  t.equal(reader.send('still here'), true)
  other.terminate()
  await until(() => registry.stats().bufferedBytes === 0)
})

t.test('a message that waits for many slow members takes memory once, and ends nobody', async t => {
  const options = { limits: { bufferedBytes: 20_000_000 }, maxBufferedBytes: 50_000_000 }
  const { url, app: { registry } } = await serve(t, options, app => { app.wsRoom('/:room', { auth: false }) })
  const members = Array.from({ length: 30 }, () => connect(t, `${url}/room`))
  for (const member of members) await member.opened
  await until(() => registry.all().length === 30 && registry.all().every(({ groups }) => groups.length === 1))
  for (const { ws } of members) ws.pause()
  const megabyte = Buffer.alloc(1_000_000)
  const waiting = (): number[] => registry.all().map(({ bufferedBytes }) => bufferedBytes)
  while (Math.min(...waiting()) < 2_000_000) await registry.broadcastToGroup('room', megabyte)
  t.ok(waiting().reduce((sum, one) => sum + one, 0) > 40_000_000, 'far more than the limit, counted for each')
  t.equal(registry.count(), 30)
  const bytes = Number(registry.stats().bufferedBytes)
  t.ok(bytes >= 2_000_000 && bytes < 20_000_000, `${bytes} bytes wait`)
  t.equal(registry.stats().slowConsumersClosed, 0)
  for (const { ws } of members) ws.terminate()
  await until(() => registry.stats().bufferedBytes === 0)
})

t.test('clients that send and do not read the answers are not read either, the sooner the more of them there are', async t => {
  const { url, app: { registry } } = await serve(t, { limits: { bufferedBytes: 8_000_000 } }, app => {
    app.get('/', { websocket: true }, app.wsHandler({ onMessage (connection, data) { connection.send(data) } }))
  })
  const clients = Array.from({ length: 10 }, () => connect(t, url))
  for (const client of clients) {
    await client.opened
    client.ws.pause()
  }
  const data = Buffer.alloc(50_000)
  // The network takes some megabytes for each of them.
  for (let n = 0; n < 300; n++) for (const { ws } of clients) ws.send(data)
  await until(() => Number(registry.stats().slowConnections) === 10 && registry.stats().socketsPaused === 10, { timeoutMs: 30_000 })
  const bytes = Number(registry.stats().bufferedBytes)
  t.ok(bytes < 3_000_000, `${bytes} bytes wait; a quarter of maxBufferedBytes for each would be 10 MB`)
  t.equal(registry.stats().slowConsumersClosed, 0)
  for (const { ws } of clients) ws.resume()
  await until(() => registry.stats().socketsPaused === 0 && registry.stats().bufferedBytes === 0, { timeoutMs: 30_000 })
  t.equal(registry.count(), 10)
})
