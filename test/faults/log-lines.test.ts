import t from 'tap'
import { connect } from '../helpers/client.ts'
import { startRedis } from '../helpers/redis.ts'
import { serve } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

const groups = Array.from({ length: 3_000 }, (_, n) => `group ${n}`)

t.test('an outage that concerns 3,000 groups writes a few lines, not one for each', async t => {
  const redis = await startRedis(t)
  const patient = { bootTimeoutMs: 8_000, operationTimeoutMs: 10_000, joinTimeoutMs: 20_000 }
  const { registry, url, logs } = await serve(t, { redis: redis.url, maxGroupsPerConnection: 5_000, ...patient }, app => {
    app.wsRoom('/ws/:room', { auth: { required: false }, onJoin: connection => connection.send(connection.id) })
  })
  const warnings = (): Array<unknown> => logs.filter(({ level }) => level >= 40).map(({ event }) => event)
  const id = String(await connect(t, `${url}/ws/lobby`).next())
  await Promise.all(groups.map(async group => await registry.join(id, group)))
  const broadcast = async (): Promise<Array<string | undefined>> => await Promise.all(groups.map(async group => {
    return await registry.broadcastToGroup(group, 'x').then(({ scope }) => scope, (error: { code?: string }) => error.code)
  }))
  t.strictSame(new Set(await broadcast()), new Set(['cluster']))
  t.strictSame(warnings(), [])

  // Each step concerns all groups: the log of each can be read no more, nor appended to, and then is gone.
  await redis.admin.call('ACL', 'SETUSER', 'default', '-hmget', '-lrange')
  await redis.admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await broadcast()
  await redis.admin.call('ACL', 'SETUSER', 'default', '+@all')
  await until(() => registry.health().status === 'up', { timeoutMs: 30_000, what: 'all logs to be read' })
  await redis.admin.config('SET', 'maxmemory', '1mb')
  await broadcast()
  await redis.admin.config('SET', 'maxmemory', '0')
  await redis.kill()
  await broadcast()
  await redis.restart()
  await until(
    () => registry.health().status === 'up' && Number(registry.stats().gaps) >= groups.length, { timeoutMs: 30_000, what: 'all to be told' }
  )
  t.strictSame(new Set(await broadcast()), new Set(['cluster']))
  // Each log is lost for itself: the instance notices at its next message.
  await redis.admin.flushall()
  for (const group of groups.slice(0, 300)) await registry.broadcastToGroup(group, 'x')
  t.ok(warnings().length > 3)
  t.ok(warnings().length < 40, `${warnings().length} lines: ${warnings().join(', ')}`)
})
