import t from 'tap'
import { TokenBucket } from '../../lib/connection/inbound/rate.ts'
import { resolveOptions } from '../../lib/options/resolve.ts'
import { upgradeStatus } from '../helpers/client.ts'
import { service } from '../helpers/service.ts'

t.test('a bucket lets through its burst, then its rate, and sends each refused one behind the others', async t => {
  let now = 0
  const bucket = new TokenBucket({ perSecond: 10, burst: 20 }, () => now)
  const take = (count: number): number[] => Array.from({ length: count }, () => bucket.take())
  t.strictSame(take(20), Array(20).fill(0))
  t.strictSame(take(25), [...Array(10).fill(1), ...Array(10).fill(2), ...Array(5).fill(3)])
  now = 1_000
  t.strictSame(take(10), Array(10).fill(0), 'those of the first second')
  t.equal(bucket.take(), 2, 'fifteen are before it')
  now = 1_000_000
  t.strictSame(take(21).filter(seconds => seconds === 0).length, 20, 'no more than the burst is saved up')
  t.equal(Math.max(...take(1_000)), 30, 'nobody is sent away for longer')
})

t.test('more upgrades than upgradeLimit allows get 503 with Retry-After, other requests do not count', async t => {
  const { app, listen } = await service(t, { upgradeLimit: { perSecond: 1, burst: 3 } })
  app.wsRoom('/ws/:room', { auth: false })
  app.get('/plain', async () => 'plain')
  const url = await listen()
  for (let n = 0; n < 5; n++) t.equal((await app.inject('/plain')).statusCode, 200)
  const answers = []
  for (let n = 0; n < 6; n++) answers.push(await upgradeStatus(`${url}/ws/x`))
  t.strictSame(answers.map(({ statusCode }) => statusCode), [101, 101, 101, 503, 503, 503])
  t.strictSame(answers.slice(3).map(({ headers }) => headers['retry-after']), ['1', '2', '3'])
  t.match(JSON.parse(answers[3]?.body ?? ''), { code: 'WSG_REFUSED', message: /too many at once/ })
  t.equal(app.registry.stats().upgradesRefused, 3)
})

t.test('a wrong limit is refused', async t => {
  t.throws(() => resolveOptions({ upgradeLimit: {} }), { message: /upgradeLimit\.perSecond must be an integer from 1 .* got undefined/ })
  t.throws(() => resolveOptions({ upgradeLimit: { perSecond: 0 } }), { message: /upgradeLimit\.perSecond must be .* got 0/ })
  t.throws(() => resolveOptions({ upgradeLimit: { perSecond: 1, burst: 1.5 } }), { message: /upgradeLimit\.burst must be .* got 1\.5/ })
  t.throws(() => resolveOptions({ upgradeLimit: { perSecond: 1, rate: 5 } }), { message: /no option upgradeLimit\.rate/ })
})
