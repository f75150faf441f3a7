import { setTimeout as sleep } from 'node:timers/promises'
import type { MeasureOptions } from '../options.ts'
import { LoadGenerator } from '../rig/load-generator.ts'
import { cpuUs } from '../rig/proc.ts'
import { perform, type Run } from '../rig/runs.ts'
import { startRig } from '../rig/start.ts'
import type { Measured } from '../results.ts'
import { groupNames, type Name } from '../systems/system.ts'

interface Conditions {
  readonly joins: number
  readonly groups: number
  readonly instances: number
  /** Clients that join before it counts. What an instance compiles at its first thousands of joins is in none of the figures then. */
  readonly warmUp: number
}

/** All come at once: what a join costs, from the handshake to the moment when the client is told that it is in its group. */
export async function joinStorm ({ systems, runs, number, numbers }: MeasureOptions): Promise<Measured> {
  const joins = number('joins', 10_000)
  const instances = number('instances', 2)
  const warmUp = number('warm-up', 0)
  const cells = await perform({
    systems: systems(groupNames),
    conditions: numbers('groups', [1, 1_000, 10_000]).map(groups => ({ joins, groups, instances, warmUp })),
    runs,
    run
  })
  const after = warmUp === 0 ? '' : `, after ${warmUp} others`
  return { title: `${joins} clients connect, 256 at a time, and join a group each, on ${instances} instances${after}`, cells }
}

async function run (system: Name, { joins, groups, instances, warmUp }: Conditions): Promise<Run> {
  const rig = await startRig(system, { instances })
  const early = new LoadGenerator()
  try {
    if (warmUp > 0) await rig.open({ clients: warmUp, groups }, early)
    await sleep(500) // what it does at its start is done
    await rig.lags()
    const used = (): number => rig.pids.reduce((sum, pid) => sum + cpuUs(pid), 0)
    const [commandsBefore, redisBefore, serversBefore] = [await rig.redis?.commands() ?? 0, cpuUs(rig.redisPid ?? 0), used()]
    const ms = await rig.open({ clients: joins, groups })
    const lags = await rig.lags()
    return {
      figures: {
        joinsPerSecond: joins / ms * 1e3,
        ms,
        commandsPerJoin: ((await rig.redis?.commands() ?? 0) - commandsBefore) / joins,
        redisUs: (cpuUs(rig.redisPid ?? 0) - redisBefore) / joins,
        serverUs: (used() - serversBefore) / joins,
        loadCpu: cpuUs(rig.load.pid) / ms / 10,
        lagP99Ms: Math.max(0, ...lags.map(({ p99 }) => p99)),
        lagMaxMs: Math.max(0, ...lags.map(({ max }) => max))
      }
    }
  } finally {
    await early.end()
    await rig.close()
  }
}
