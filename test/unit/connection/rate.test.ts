import t from 'tap'
import { RateLimit, RateTable, unpaid } from '../../../lib/connection/inbound/rate.ts'

t.test('a rate lets through its burst at once, then one after the other, and saves up no more than the burst', async t => {
  const limit = new RateLimit({ perSecond: 10, burst: 20 })
  let paidUntil = unpaid
  for (let n = 0; n < 20; n++) paidUntil = limit.charge(paidUntil, 1_000)
  t.equal(paidUntil, 1_000, 'the whole burst is within the limit')
  paidUntil = limit.charge(paidUntil, 1_000)
  t.equal(paidUntil, 1_100, 'the next one is a tenth of a second too early')
  t.equal(limit.charge(paidUntil, 1_100), 1_200, 'each one after that costs as much')
  t.equal(limit.charge(paidUntil, 1_000_000), 1_000_000 - 2_000 + 100, 'a long silence gives the burst back, and nothing more')
  t.equal(limit.charge(unpaid, 0, 30), 1_000, 'thirty at once are ten too many')
  t.equal(new RateLimit({ perSecond: 4 }).burstMs, 1_000, 'the burst is that of a second where none is given')
})

t.test('a rate of less than one a second lets one through at a time', async t => {
  const limit = new RateLimit({ perSecond: 0.5 })
  const paidUntil = limit.charge(unpaid, 1_000)
  t.equal(limit.excess(paidUntil, 1_000), 0, 'the first one')
  t.equal(limit.excess(limit.charge(paidUntil, 1_000), 1_000), 2_000, 'the next one has to wait')
  t.equal(limit.excess(limit.charge(paidUntil, 3_000), 3_000), 0, 'for two seconds')
})

t.test('a table counts each name by itself, counts nobody who was refused, and forgets', async t => {
  let now = 0
  const table = new RateTable({ perSecond: 1, burst: 2 }, 3, () => now)
  t.strictSame([table.take('a'), table.take('a'), table.take('a'), table.take('b')], [0, 0, 1_000, 0])
  t.equal(table.take('a'), 1_000, 'to be refused costs nothing')
  now = 1_000
  t.strictSame([table.take('a'), table.take('a')], [0, 1_000])
  for (const name of ['c', 'd', 'e']) table.take(name)
  t.equal(table.size, 3, 'no more names than allowed')
  now = 10_000
  table.take('f')
  t.equal(table.size, 1, 'names that were quiet are forgotten')
})
