import { setTimeout as sleep } from 'node:timers/promises'
import type { MeasureOptions } from '../options.ts'
import { LoadGenerator } from '../rig/load-generator.ts'
import { cpuUs, rssBytes } from '../rig/proc.ts'
import type { Rig } from '../rig/rig.ts'
import { perform, type Run } from '../rig/runs.ts'
import { startRig } from '../rig/start.ts'
import type { Measured } from '../results.ts'
import { groupNames, type Name } from '../systems/system.ts'

/** Memory that V8 has just freed goes back to the system a little later: the lowest of some readings counts. */
const readings = 4

interface Conditions { readonly clients: number, readonly seconds: number }

/** Connections that do nothing, each in a group of its own: what they take of memory, and of CPU. */
export async function idle ({ systems, runs, number, numbers }: MeasureOptions): Promise<Measured> {
  const seconds = number('seconds', 10)
  const cells = await perform({
    systems: systems([...groupNames, 'bare']),
    conditions: numbers('clients', [1_000, 3_000, 9_000]).map(clients => ({ clients, seconds })),
    runs,
    run
  })
  return { title: `idle connections, each in a group of its own, ${seconds} s`, cells }
}

async function run (system: Name, { clients, seconds }: Conditions): Promise<Run> {
  const rig = await startRig(system, { steadyMemory: true })
  try {
    await warmUp(rig)
    const before = await memory(rig)
    const ms = await rig.open({ clients, groups: clients })
    const [server = 0] = rig.pids
    const [serverBefore, redisBefore, startedAt] = [cpuUs(server), cpuUs(rig.redisPid ?? 0), performance.now()]
    await sleep(seconds * 1_000)
    const us = (performance.now() - startedAt) * 1e3
    const [serverUs, redisUs] = [cpuUs(server) - serverBefore, cpuUs(rig.redisPid ?? 0) - redisBefore]
    // Last, so that nothing waits any longer that came with the opening, such as spans for their exporter.
    const after = await memory(rig)
    return {
      figures: {
        openedPerSecond: clients / ms * 1e3,
        rssKb: (after.rss - before.rss) / clients / 1_024,
        heapKb: (after.heap - before.heap) / clients / 1_024,
        redisKb: (after.redis - before.redis) / clients / 1_024,
        rssMb: after.rss / 1e6,
        serverCpu: serverUs / us * 100,
        redisCpu: redisUs / us * 100
      }
    }
  } finally {
    await rig.close()
  }
}

/** Some connections come and go, and what happens every 5 s happens once, so that what the first of them cost is not counted. */
async function warmUp (rig: Rig): Promise<void> {
  const load = new LoadGenerator()
  await rig.open({ clients: 1_000, groups: 1_000 }, load)
  await load.end()
  await sleep(5_500)
}

async function memory (rig: Rig) {
  await sleep(1_000)
  const rss: number[] = []
  let heap = 0
  for (let n = 0; n < readings; n++) {
    [heap = 0] = await rig.heapBytes()
    await sleep(500)
    rss.push(rssBytes(rig.pids[0] ?? 0))
  }
  return { heap, rss: Math.min(...rss), redis: await rig.redis?.memoryBytes() ?? 0 }
}
