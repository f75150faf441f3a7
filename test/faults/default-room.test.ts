import t from 'tap'
import { connect as connectClient } from '../../lib/client/index.ts'
import { WebSocket } from 'ws'
import { connect } from '../helpers/client.ts'
import { startRedis } from '../helpers/redis.ts'
import { until } from '../helpers/until.ts'
import { service } from '../helpers/service.ts'

for (const loggedBroadcast of ['reject', 'queue'] as const) {
  t.test(`a default room keeps those who type while Redis is out, and tells framed clients (${loggedBroadcast})`, async t => {
    const redis = await startRedis(t)
    const { app, listen } = await service(t, {
      redis: redis.url,
      outage: { loggedBroadcast },
      operationTimeoutMs: 300,
      rooms: { '/room/:room': { auth: false } }
    })
    const { registry } = app
    const url = (await listen()).replace('http', 'ws')
    const raw = connect(t, `${url}/room/a`)
    const client = connectClient(`${url}/room/a`, { WebSocket })
    t.teardown(() => client.close())
    await until(async () => await registry.groupCount('a') === 2)
    const heard: unknown[] = []
    client.on('message', ({ data }) => { heard.push(data) })
    await client.send('before')
    await raw.nextWhere(message => message === 'before')

    redis.stop()
    await until(() => registry.health().status === 'down')
    const results: Array<Promise<string>> = []
    for (let n = 0; n < 5; n++) {
      raw.send(`raw ${n}`)
      results.push(client.send(`framed ${n}`).then(() => 'sent', ({ code }: { code: string }) => code))
    }
    if (loggedBroadcast === 'reject') t.strictSame(await Promise.all(results), Array(5).fill('WSG_BACKPLANE_UNAVAILABLE'))
    redis.cont()
    await until(() => registry.health().status === 'up', { timeoutMs: 60_000 })
    const ends = await Promise.all(results)
    t.ok(ends.every(end => ['sent', 'WSG_BACKPLANE_UNAVAILABLE', 'WSG_TIMEOUT'].includes(end)), String(ends))
    await until(async () => await client.send('after').then(() => true, () => false))
    await raw.nextWhere(message => message === 'after')
    t.equal(client.state, 'open')
    t.equal(registry.count(), 2)
    t.equal(registry.stats().connectionsClosed, 0)
    if (loggedBroadcast === 'reject') t.ok((registry.stats().messagesFailed ?? 0) >= 10)
    await app.close()
  })
}
