import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster } from '../rig/cluster.ts'
import { deliveries, type Result, type Row } from '../results.ts'
import type { DrillOptions } from '../options.ts'
import type { BalancerName } from '../rig/load.ts'

const pollMs = 50

/**
 * A deploy as docs/operations.md tells it: each of three instances is drained, closed and started again, in turn, while messages pour in. A
 * balancer sends nobody to an instance that is not ready; with `--balancer random` it knows nothing of how many each has.
 */
export async function rollingDrain ({ number, text }: DrillOptions): Promise<Result> {
  const balancer = text('balancer', 'least') as BalancerName
  if (balancer !== 'least' && balancer !== 'random') throw new Error(`--balancer is least or random, not ${String(balancer)}`)
  const clients = number('clients', 5_000)
  const instances = number('instances', 3)
  const perSecond = number('per-second', 50)
  const overMs = number('over', 20_000)
  const groups = Array.from({ length: number('groups', 50) }, (_, i) => `room${i}`)
  const cluster = await Cluster.start('ours', { instances, workers: number('workers', 2), clients, groups })
  await cluster.open({ ports: cluster.ports, balancer })
  await cluster.publish(groups.length * 1_000 / perSecond)
  await sleep(3_000)
  const rows: Row[] = []
  for (let i = 0; i < instances; i++) rows.push(await replace(cluster, i, overMs))
  const report = await cluster.report()
  await cluster.close()
  return {
    title: `${instances} instances are drained over ${overMs / 1e3} s each and replaced, ` +
      `${clients} clients in ${groups.length} groups, ${perSecond} messages/s in all, balancer: ${balancer}`,
    rows: [...rows, { instance: 'all', ...deliveries(report), 'away ms (p50/p99/max)': String(report.away) }],
    raw: { rows, ...report }
  }
}

/** Drains one instance, waits until its clients are elsewhere, and starts it anew. */
async function replace (cluster: Cluster, i: number, overMs: number): Promise<Row> {
  const others = cluster.instances.filter((_, at) => at !== i)
  const counts = async (): Promise<number[]> => await Promise.all(others.map(async ({ call }) => (await call.stats()).connections ?? 0))
  const leaving = (await cluster.instances[i]?.call.stats())?.connections ?? 0
  await cluster.usage() // counts from here on
  await cluster.each(async call => await call.setPorts(cluster.ports.filter((_, at) => at !== i)))
  const startedAt = performance.now()
  const drained = cluster.instances[i]?.call.drain(overMs)
  let mostAway = 0
  let backAt: number | undefined
  let isDrained = false
  void drained?.then(() => { isDrained = true })
  while (backAt === undefined && performance.now() - startedAt < overMs * 3) {
    await sleep(pollMs)
    const away = await cluster.away()
    mostAway = Math.max(mostAway, away)
    if (isDrained && away === 0) backAt = performance.now()
  }
  const { instances: usages } = await cluster.usage()
  const after = await counts()
  await cluster.instances[i]?.end('SIGTERM')
  await cluster.startInstance(i)
  await cluster.each(async call => await call.setPorts(cluster.ports))
  return {
    instance: i + 1,
    clients: leaving,
    'all back after s': backAt === undefined ? 'never' : Math.round((backAt - startedAt) / 100) / 10,
    'away at once': mostAway,
    'most on one instance %': Math.round(Math.max(...after) / sum(after) * 1_000) / 10,
    'loop lag ms, drained': usages[i]?.lagP99 ?? 0,
    'others (p99)': usages.filter((_, at) => at !== i).map(({ lagP99 }) => lagP99).join(', '),
    'others (max)': usages.filter((_, at) => at !== i).map(({ lagMax }) => lagMax).join(', '),
    'CPU % instances': usages.map(({ cpu }) => cpu).join(', ')
  }
}

const sum = (counts: readonly number[]): number => counts.reduce((a, b) => a + b, 0)
