import t from 'tap'
import { setTimeout as sleep } from 'node:timers/promises'
import { noUnhandled } from '../../helpers/no-unhandled.ts'
import { startRedis } from '../../helpers/redis.ts'
import { serve } from '../../helpers/service.ts'
import { until } from '../../helpers/until.ts'
import { fault, Reader } from './reader.ts'

const clients = 100
const messages = 150
const everyMs = 100
const cut = { everyMs: 3_000, forMs: 500 }

// The short form of `npm run drill` in bench/, where 2,000 clients are cut every 15 s for 2 s.
t.test('clients that are cut every 3 s for half a second get every message exactly once and in order', async t => {
  noUnhandled(t)
  const redis = await startRedis(t)
  const instances = await Promise.all([1, 2].map(async () => await serve(t, { redis: redis.url, operationTimeoutMs: 10_000 }, app => {
    app.wsRoom('/ws/:room', { auth: false })
  })))
  const ports = instances.map(({ port }) => port)
  // The usual back-off would keep a client away for longer than the next cut is off.
  const readers = Array.from({ length: clients }, () => new Reader(t, ports, 'drill', { backoff: { minMs: 100, maxMs: 500 } }))
  await until(() => readers.every(reader => reader.isIn(['drill'])), { what: 'all clients to be there', timeoutMs: 60_000 })

  let cuts = 0
  const cutters = readers.map(async (reader, i) => {
    await sleep(cut.everyMs * i / clients)
    return setInterval(() => {
      // On a slow machine the way back may take longer than the next cut is off: who is cut before is never there.
      if (!reader.isIn(['drill'])) return
      cuts++
      reader.line.cut(cut.forMs)
    }, cut.everyMs)
  })
  t.teardown(async () => { for (const cutter of cutters) clearInterval(await cutter) })
  const cutOften = (): boolean => readers.every(({ returns }) => returns >= 4)
  let sent = 0
  while (sent < messages || (!cutOften() && sent < 10 * messages)) {
    const pause = sleep(everyMs)
    sent++
    // One after the other, from either instance: the numbers say in which order they are in the log.
    await instances[sent % 2]?.registry.broadcastToGroup('drill', String(sent))
    await pause
  }
  for (const cutter of cutters) clearInterval(await cutter)

  const delivered = (): number => readers.reduce((sum, reader) => sum + reader.ledger('drill').delivered, 0)
  await until(() => delivered() === clients * sent, { timeoutMs: 60_000, what: 'the last messages' }).catch(error => t.comment(error))
  await sleep(300) // for what comes twice
  t.equal(delivered(), clients * sent)
  t.equal(fault(readers, new Map([['drill', sent]]), () => ['drill']), undefined)
  t.ok(cutOften(), 'every client came back again and again')
  t.equal(new Set(readers.map(({ client }) => client.positions.drill)).size, 1, 'all stand at the same position')
  t.comment(`${clients} clients, ${sent} messages, ${cuts} cuts, ` +
    `${readers.reduce((sum, { returns }) => sum + returns, -clients)} returns, ` +
    `${delivered()} delivered, longest pause ${Math.max(...readers.map(reader => Math.round(reader.ledger('drill').longestPauseMs)))} ms`)
})
