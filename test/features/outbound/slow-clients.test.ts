import t from 'tap'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from '../../helpers/client.ts'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { until } from '../../helpers/until.ts'
import { lazyClient, serveGroups, streamOf, type Service } from './service.ts'

noUnhandled(t)

const filler = 'x'.repeat(10_000)

/** Fills what the kernel buffers for a client that does not read. */
async function clog (service: Service, group: string): Promise<void> {
  await until(async () => {
    for (let n = 0; n < 20; n++) void service.registry.broadcastToGroup(group, filler)
    await sleep(1)
    return service.registry.stats().slowConnections === 1
  })
}

/** The payloads in what the server sent: unmasked frames. */
async function readAll (socket: Socket): Promise<string[]> {
  const chunks: Buffer[] = []
  socket.on('data', chunk => chunks.push(chunk))
  socket.resume()
  // Twice, as a timer that is late fires before the socket is read.
  for (let quiet = 0; quiet < 2;) {
    const before = chunks.length
    await sleep(100)
    quiet = chunks.length === before ? quiet + 1 : 0
  }
  const bytes = Buffer.concat(chunks)
  const texts: string[] = []
  for (let at = 0; at < bytes.length;) {
    const short = (bytes[at + 1] ?? 0) & 127
    const [length, head] = short < 126
      ? [short, 2]
      : short === 126 ? [bytes.readUInt16BE(at + 2), 4] : [Number(bytes.readBigUInt64BE(at + 2)), 10]
    texts.push(bytes.toString('utf8', at + head, at + head + length))
    at += head + length
  }
  return texts
}

t.test('a slow client misses volatile messages alone, and the others nothing', async t => {
  const service = await serveGroups(t)
  const lazy = await lazyClient(t, service, '/ws?groups=g')
  await clog(service, 'g')
  const quick = connect(t, `${service.url}/ws?groups=g`)
  await quick.next()
  const { slowRecipients, localRecipients } = await service.registry.broadcastToGroup('g', 'cursor', { volatile: true })
  t.strictSame({ slowRecipients, localRecipients }, { slowRecipients: 1, localRecipients: 2 })
  const { slowRecipients: nobody, ...empty } = await service.registry.broadcastToGroup('empty', 'x')
  t.strictSame([nobody, empty.localRecipients], [undefined, 0], 'nobody slow there')
  void service.registry.broadcastToGroup('g', 'said')
  t.strictSame([await quick.next(), await quick.next()], ['cursor', 'said'])
  t.equal(service.registry.stats().framesDropped, 1)
  const texts = await readAll(lazy)
  t.notOk(texts.includes('cursor'))
  t.equal(texts.at(-1), 'said')
  t.equal(service.registry.stats().slowConnections, 0, 'it caught up')
  void service.registry.broadcastToGroup('g', 'cursor again', { volatile: true })
  t.strictSame(await readAll(lazy), ['cursor again'])
})

t.test('of messages with a conflation key a slow client gets the latest of each', async t => {
  const service = await serveGroups(t)
  const lazy = await lazyClient(t, service, '/ws?groups=g')
  await clog(service, 'g')
  for (let n = 1; n <= 50; n++) {
    void service.registry.broadcastToGroup('g', `euro ${n}`, { conflationKey: 'euro' })
    void service.registry.broadcastToGroup('g', `yen ${n}`, { conflationKey: 'yen' })
    if (n % 10 === 0) await sleep(1)
  }
  void service.registry.broadcastToGroup('g', 'kept')
  await sleep(10)
  t.equal(service.registry.stats().framesConflated, 98)
  const texts = (await readAll(lazy)).filter(text => text !== filler)
  t.strictSame(texts, ['kept', 'euro 50', 'yen 50'])
  t.equal(service.registry.all()[0]?.bufferedBytes, 0)
  void service.registry.broadcastToGroup('g', 'euro 51', { conflationKey: 'euro' })
  void service.registry.broadcastToGroup('g', 'euro 52', { conflationKey: 'euro' })
  t.strictSame(await readAll(lazy), ['euro 51', 'euro 52'], 'who reads gets all')
})

t.test('with a low mark, too, a slow client gets the latest, and leaves no listeners behind', async t => {
  const service = await serveGroups(t, { slowBufferedBytes: 1 })
  const lazy = await lazyClient(t, service, '/ws?groups=g')
  const stream = streamOf([...service.app.websocketServer.clients][0])
  const before = stream.listenerCount('drain')
  let latest = ''
  lazy.on('data', (chunk: Buffer) => { latest = chunk.toString('latin1').slice(-20) })
  lazy.pause()
  for (let n = 0; n < 12; n++) {
    await clog(service, 'g')
    await service.registry.broadcastToGroup('g', `price ${n} old`, { conflationKey: 'price' })
    await service.registry.broadcastToGroup('g', `price ${n} new`, { conflationKey: 'price' })
    lazy.resume()
    await until(() => latest.endsWith(`price ${n} new`))
    t.equal(service.registry.stats().slowConnections, 0)
    lazy.pause()
  }
  t.equal(stream.listenerCount('drain'), before)
})

t.test('a client that ends its side gets what is on its way', async t => {
  const service = await serveGroups(t, { maxBufferedBytes: 64_000_000 })
  const lazy = await lazyClient(t, service, '/ws?groups=g')
  const [connection] = service.registry.all()
  for (let n = 0; n < 1_000; n++) void service.registry.broadcastToGroup('g', filler)
  await until(() => (connection?.bufferedBytes ?? 0) > 1_000_000)
  await sleep(20)
  lazy.end()
  await until(() => connection?.closed === true)
  t.equal(connection?.send('too late'), false)
  await service.registry.broadcastToGroup('g', 'too late')
  await sleep(20)
  const texts = await readAll(lazy)
  t.equal(texts.length, 1_000)
  t.notOk(texts.includes('too late'))
})

t.test('a conflation key is a short string', async t => {
  const { registry } = await serveGroups(t)
  for (const conflationKey of ['', 'x'.repeat(256), 5 as unknown as string]) {
    await t.rejects(registry.broadcastToGroup('g', 'x', { conflationKey }), { code: 'WSG_CONFLATION_KEY_INVALID' })
  }
})

t.test('a client that never reads is closed with 4008, and costs no more memory than its limit', async t => {
  const service = await serveGroups(t, { maxBufferedBytes: 200_000 })
  const lazy = await lazyClient(t, service, '/ws?groups=g')
  const [connection] = service.registry.all()
  let most = 0
  for (let n = 0; n < 5_000 && service.registry.count() > 0 && connection?.closed === false; n++) {
    void service.registry.broadcastToGroup('g', filler)
    most = Math.max(most, connection.bufferedBytes)
    if (n % 20 === 0) await sleep(1)
  }
  t.equal(connection?.closed, true)
  t.ok(most < 200_000 + 2 * 65_536 + filler.length, `${most} bytes`)
  t.equal(service.registry.stats().slowConsumersClosed, 1)
  const texts = await readAll(lazy)
  t.equal(texts.at(-1)?.slice(2), 'client reads too slowly')
  await until(() => service.registry.count() === 0)
  t.equal(service.registry.stats().slowConnections, 0)
})
