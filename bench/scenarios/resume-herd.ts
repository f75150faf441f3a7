import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster } from '../rig/cluster.ts'
import { deliveries, type Result, type Row } from '../results.ts'
import type { DrillOptions } from '../options.ts'
import { load } from '../systems/system.ts'

/** All clients are on one instance, which is killed; all come back at once, to another that knew none of their groups. */
export async function resumeHerd ({ systems, number }: DrillOptions): Promise<Result> {
  const clients = number('clients', 2_000)
  const perSecond = number('per-second', 40)
  const backoffMs = number('backoff', 25)
  const groups = Array.from({ length: number('groups', 20) }, (_, i) => `room${i}`)
  const rows: Row[] = []
  const raw = []
  for (const name of systems) {
    const cluster = await Cluster.start(name, { instances: 2, workers: number('workers', 2), clients, groups })
    const [first = 0, second = 0] = cluster.ports
    await cluster.open({ ports: [first], backoffMs })
    await cluster.publish(groups.length * 1_000 / perSecond)
    await sleep(3_000)
    // Ours reads lists, socket.io a stream.
    const countReads = async (): Promise<number> => await cluster.redis.calls('lrange') + await cluster.redis.calls('xrange')
    const readsBefore = await countReads()
    const [, survivor] = cluster.instances
    await survivor?.call.usage()
    const start = performance.now()
    await cluster.each(async call => await call.setPorts([second]))
    await cluster.instances[0]?.end('SIGKILL')
    await cluster.broken(clients)
    const back = await cluster.allBack()
    const backMs = Math.round(performance.now() - start)
    const lag = await survivor?.call.usage()
    const reads = await countReads() - readsBefore
    const stats = await survivor?.call.stats()
    await sleep(1_000)
    await cluster.startInstance(0)
    const report = await cluster.report()
    await cluster.close()
    const { name: system } = await load(name)
    rows.push({
      system,
      ...deliveries(report),
      'all back after ms': back ? backMs : 'never',
      'away ms (p50/p99/max)': String(report.away),
      'log reads': reads,
      'groups in memory': stats?.recentGroups ?? '',
      'lag ms of the instance (p99/max)': `${lag?.lagP99} / ${lag?.lagMax}`,
      'its CPU %': lag?.cpu ?? ''
    })
    raw.push({ system, ...report, backMs, reads, lag, stats })
  }
  return {
    title: `${clients} clients in ${groups.length} groups come back at once ` +
      `(within some ${2 * backoffMs} ms), ${perSecond} messages/s in all`,
    rows,
    raw
  }
}
