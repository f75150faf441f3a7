import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster } from '../rig/cluster.ts'
import { deliveries, type Result, type Row } from '../results.ts'
import type { DrillOptions } from '../options.ts'
import { load } from '../systems/system.ts'

/** Broadcasts to clients whose connections are cut again and again: who gets all of them? */
export async function drill ({ systems, number }: DrillOptions): Promise<Result> {
  const clients = number('clients', 2_000)
  const seconds = number('seconds', 60)
  const instances = number('instances', 2)
  const perSecond = number('per-second', 2)
  const everyMs = number('cut-every', 15) * 1_000
  const forMs = number('cut-for', 2) * 1_000
  const rows: Row[] = []
  const raw = []
  for (const name of systems) {
    const cluster = await Cluster.start(name, { instances, workers: number('workers', 2), clients, groups: ['all'] })
    await cluster.open()
    await cluster.publish(1_000 / perSecond)
    await cluster.each(async call => await call.cut(everyMs, forMs))
    await sleep(seconds * 1_000)
    await cluster.stopPublishing()
    await cluster.each(async call => await call.stopCutting())
    const usage = await cluster.usage()
    const back = await cluster.allBack()
    const report = await cluster.report()
    await cluster.close()
    const { name: system } = await load(name)
    rows.push({
      system,
      ...deliveries(report),
      'all back': String(back),
      'away ms (p50/p99/max)': String(report.away),
      'age at arrival ms (p50/p99/max)': String(report.ages),
      'CPU % instances': usage.instances.map(({ cpu }) => cpu).join(', '),
      'CPU % load': usage.workers.map(({ cpu }) => cpu).join(', ')
    })
    raw.push({ system, ...report, usage })
  }
  return {
    title: `${clients} clients on ${instances} instances, ${perSecond} broadcasts/s for ${seconds} s, ` +
      `each client cut every ${everyMs / 1e3} s for ${forMs / 1e3} s`,
    rows,
    raw
  }
}
