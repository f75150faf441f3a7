// A file of its own, as a master without slots is left after ten seconds.
import t from 'tap'
import { Local } from '../helpers/local-instance.ts'
import { noUnhandled } from '../helpers/no-unhandled.ts'
import { slotOfGroup, startRedisCluster } from '../helpers/redis-cluster.ts'
import { until } from '../helpers/until.ts'

noUnhandled(t)

t.test('what was counted of a master counts on when it has no slots any more and its connections are closed', async t => {
  const cluster = await startRedisCluster(t, { masters: 1 })
  const one = await new Local({ redis: { cluster: [...cluster.addresses] }, whenDown: 'reject', operationTimeoutMs: 2_000 }).start(t)
  const figure = (name: string): number => one.backplane.stats()[name] ?? 0
  await one.enterAll(['lobby'])
  const slot = slotOfGroup('lobby')
  const first = await cluster.masterOf(slot)
  const second = await cluster.add()
  await cluster.migrate(slot, second)
  await until(() => figure('redisMasters') === 2 && figure('redisConnections') === 4)
  const reconnects = figure('redisReconnects')
  // Again and again, as a connection that is killed before it is ready is not counted.
  await until(async () => {
    for (const type of ['normal', 'pubsub']) await second.admin.call('CLIENT', 'KILL', 'TYPE', type)
    return figure('redisReconnects') >= reconnects + 2
  }, { everyMs: 500 })
  await until(() => one.backplane.state === 'up')
  const counted = figure('redisReconnects')
  await cluster.migrate(slot, first)
  await until(() => figure('redisMasters') === 1)
  await until(() => figure('redisConnections') === 2, { timeoutMs: 30_000, what: 'the connections to close' })
  t.ok(figure('redisReconnects') >= counted, 'counters never go down')
})
