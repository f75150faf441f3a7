import t from 'tap'
import { connect } from '../helpers/client.ts'
import { startRedisCluster } from '../helpers/redis-cluster.ts'
import { serve } from '../helpers/service.ts'
import { until } from '../helpers/until.ts'

const groups = Array.from({ length: 1_000 }, (_, n) => `group ${n}`)

t.test('an outage of a cluster, and the loss of its data, write a few lines, not one for each of 256 partitions', async t => {
  const cluster = await startRedisCluster(t)
  const { addresses, nodes } = cluster
  const options = { redis: { cluster: [...addresses] }, maxGroupsPerConnection: 5_000, bootTimeoutMs: 8_000, leaseMs: 3_000 }
  const { registry, url, logs } = await serve(t, options, app => {
    app.wsRoom('/ws/:room', { auth: { required: false }, onJoin: connection => connection.send(connection.id) })
  })
  const told = (event: string): number => logs.filter(line => line.event === event).length
  const id = String(await connect(t, `${url}/ws/lobby`).next())
  await Promise.all(groups.map(async group => await registry.join(id, group)))
  t.ok((registry.stats().partitionsOpen ?? 0) > 200)

  await cluster.flush()
  await until(() => told('registration_lost') > 0, { timeoutMs: 10_000, what: 'a partition to notice' })
  for (const node of nodes) node.stop()
  await until(() => told('lease_not_renewed') > 0, { timeoutMs: 20_000, what: 'a beat to fail' })
  for (const node of nodes) node.cont()
  await until(() => registry.health().status === 'up', { timeoutMs: 30_000, what: 'all partitions to be up' })
  await until(() => told('backplane_up') > 0)
  t.equal(told('lease_not_renewed'), 1)
  const warnings = logs.filter(({ level }) => level >= 40).map(({ event }) => event)
  t.ok(warnings.length < 40, `${warnings.length} lines: ${[...new Set(warnings)].join(', ')}`)
})
