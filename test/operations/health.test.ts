import t from 'tap'
import groupsHealth from '../../lib/operations/health.ts'
import { memoryCluster, type BackplaneState, type Health } from '../../plugin.ts'
import { redisCluster } from '../helpers/app.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { serve, service } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

interface Answer { readonly ready: boolean, readonly status: string, readonly since: string, readonly problems?: string[] }

t.test('an instance that works is live and ready, and says since when', async (t) => {
  const before = Date.now()
  const { app } = await serve(t, {}, app => { void app.register(groupsHealth, { prefix: '/health' }) })
  t.same((await app.inject('/health/livez')).json(), { status: 'live' })
  const ready = await app.inject('/health/readyz')
  t.equal(ready.statusCode, 200)
  t.match(ready.json<Answer>(), { ready: true, status: 'up', problems: [] })
  t.ok(Date.parse(ready.json<Answer>().since) >= before && Date.parse(ready.json<Answer>().since) <= Date.now())
  t.equal((await app.inject('/health/readyz')).json<Answer>().since, ready.json<Answer>().since, 'it stays while the status does')
})

t.test('a status holds since it became so, not since somebody asked', async (t) => {
  const { app } = await serve(t, {}, () => {})
  const readyAt = Date.now()
  await until(() => Date.now() > readyAt)
  const up = app.registry.health()
  t.ok(up.status === 'up' && up.since <= readyAt)
  const draining = app.registry.drain({ overMs: 0 })
  const drainedAt = Date.now()
  await until(() => Date.now() > drainedAt)
  const closing = app.registry.health()
  t.ok(closing.status === 'closing' && closing.since <= drainedAt)
  await draining
})

t.test('a repair that is over in a moment, and met by a probe, does not begin a status anew', async (t) => {
  const backplane = memoryCluster().backplane()
  let state: BackplaneState = 'up'
  Object.defineProperty(backplane, 'state', { get: () => state })
  const { app } = await serve(t, { backplane }, () => {})
  const seen = (now: BackplaneState): Health => {
    state = now
    return app.registry.health()
  }
  const { since } = seen('up')
  let time = since
  t.intercept(Date, 'now', { value: () => time })
  time += 10_000
  t.match(seen('degraded'), { status: 'degraded', since: time })
  time += 900
  t.match(seen('up'), { status: 'up', since })
  time += 10_000
  seen('degraded')
  time += 2_000
  t.match(seen('up'), { status: 'up', since: time }, 'a longer one does')
  time += 10_000
  seen('down')
  time += 100
  t.match(seen('up'), { status: 'up', since: time }, 'and so does an outage')
})

t.test('it is not ready before it started, and live all the same', async (t) => {
  const backplane = memoryCluster().backplane()
  const start = backplane.start.bind(backplane)
  const answers: boolean[] = []
  backplane.start = async local => {
    answers.push(app.registry.health().ready)
    await start(local)
  }
  const { app } = await service(t, { backplane })
  await app.register(groupsHealth)
  await app.ready()
  t.strictSame(answers, [false])
  t.equal((await app.inject('/livez')).statusCode, 200)
})

t.test('while Redis is out it is ready or not by policy, with reasons, and since when', async (t) => {
  const cluster = await redisCluster(t, undefined, {
    operationTimeoutMs: 300,
    outage: { upgrade: 'refuse' },
    routes: app => {
      void app.register(groupsHealth)
      void app.register(groupsHealth, { prefix: '/public', reasons: false })
    }
  })
  const { app } = await cluster.start()
  t.equal((await app.inject('/readyz')).statusCode, 200)
  const brokenAt = Date.now()
  await cluster.redis.kill()
  await until(async () => (await app.inject('/readyz')).statusCode === 503)
  const { problems = [], ...answer } = (await app.inject('/readyz')).json<Answer>()
  t.match(answer, { ready: false, status: 'down' })
  t.ok(Date.parse(answer.since) >= brokenAt)
  t.match(problems[0], /./)
  t.strictSame(Object.keys((await app.inject('/public/readyz')).json<object>()), ['ready', 'status', 'since'])
  t.equal((await app.inject('/livez')).statusCode, 200, 'a restart would help nobody')
})
