import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster } from '../rig/cluster.ts'
import { deliveries, type Result, type Row } from '../results.ts'
import type { DrillOptions } from '../options.ts'
import { load } from '../systems/system.ts'

/** Each of three instances is ended and started again, in turn, while messages pour in. */
export async function rolling ({ systems, number, text }: DrillOptions): Promise<Result> {
  const clients = number('clients', 2_000)
  const instances = number('instances', 3)
  const perSecond = number('per-second', 50)
  const groups = Array.from({ length: number('groups', 20) }, (_, i) => `room${i}`)
  const signal = text('signal', 'SIGTERM') as NodeJS.Signals
  const rows: Row[] = []
  const raw = []
  for (const name of systems) {
    const cluster = await Cluster.start(name, { instances, workers: number('workers', 2), clients, groups })
    await cluster.open()
    await cluster.publish(groups.length * 1_000 / perSecond)
    const backMs: Array<number | undefined> = []
    for (let i = 0; i < instances; i++) {
      await sleep(3_000)
      const start = performance.now()
      await cluster.instances[i]?.end(signal)
      await cluster.startInstance(i)
      const back = await cluster.allBack()
      backMs.push(back ? Math.round(performance.now() - start) : undefined)
    }
    const usage = await cluster.usage()
    await sleep(2_000)
    const report = await cluster.report()
    await cluster.close()
    const { name: system } = await load(name)
    rows.push({
      system,
      ...deliveries(report),
      'all back after ms': backMs.map(ms => ms ?? 'never').join(', '),
      'away ms (p50/p99/max)': String(report.away),
      'longest pause ms (p50/p99/max)': String(report.pauses),
      'age at arrival ms (p50/p99/max)': String(report.ages),
      'CPU % load': usage.workers.map(({ cpu }) => cpu).join(', ')
    })
    raw.push({ system, ...report, backMs, usage })
  }
  return {
    title: `rolling restart by ${signal} of ${instances} instances, ` +
      `${clients} clients in ${groups.length} groups, ${perSecond} messages/s in all`,
    rows,
    raw
  }
}
