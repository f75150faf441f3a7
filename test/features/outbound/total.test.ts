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
  t.ok(Number(registry.stats().bufferedBytes) <= 6_000_000)
  t.equal(registry.stats().slowConsumersClosed, 1)
  t.equal(reader.send('still here'), true)
  other.terminate()
  await until(() => registry.stats().bufferedBytes === 0)
})
