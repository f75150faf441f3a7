import { setTimeout as sleep } from 'node:timers/promises'
import type { DrillOptions } from '../options.ts'
import { LoadGenerator } from '../rig/load-generator.ts'
import { compile } from '../rig/native.ts'
import { assertLinux, cpuUs } from '../rig/proc.ts'
import type { Rig } from '../rig/rig.ts'
import { median, pairedRatio } from '../rig/runs.ts'
import { startRig } from '../rig/start.ts'
import { until } from '../rig/until.ts'
import type { Result, Row } from '../results.ts'

/** An instance of each build, and its own Redis. */
interface Pair { readonly before: Rig, readonly now: Rig }
type Build = keyof Pair
/** Microseconds of a join: CPU of the instance and of Redis, and the time that Redis spends in scripts, by the wall clock. */
interface Cost { readonly server: number, readonly redis: number, readonly scripts: number }
type Costs = Readonly<Record<Build, Cost[]>>

/** The work that follows joins and closes, such as stored leaves, is over by then (milliseconds). */
const settledMs = 500

/**
 * What a join costs an instance that has seen many, and its Redis, beside another build (`--before`). Both run all the time, and get their
 * clients in turn: a thousand joins of one process cost up to a tenth more than those of another process of the same build, which
 * `join-storm` shows as a difference. Each build is first in every other round; the ratio is the median of the rounds, with the quartiles
 * in parentheses.
 */
export async function joins ({ number, numbers }: DrillOptions): Promise<Result> {
  assertLinux()
  compile('load')
  const [clients, rounds, warmUp] = [number('clients', 2_000), number('rounds', 24), number('warm-up', 16_000)]
  const conditions = numbers('groups', [1, clients])
  const pair: Pair = { before: await startRig('ours-before'), now: await startRig('ours') }
  const builds: readonly Build[] = ['before', 'now']
  let named = 0

  /** The clients are gone at the end. */
  async function cost (rig: Rig, groups: number): Promise<Cost> {
    const generator = new LoadGenerator()
    const used = async (): Promise<number[]> => [...[...rig.pids, rig.redisPid ?? 0].map(cpuUs), await rig.redis?.scriptUs() ?? 0]
    const before = await used()
    // Groups of their own: an instance stays subscribed for a while to groups that its members left.
    await rig.open({ clients, groups, named: `round${++named}-` }, generator)
    const [server = 0, redis = 0, scripts = 0] = (await used()).map((us, index) => (us - (before[index] ?? 0)) / clients)
    await generator.end()
    await until(async () => await rig.connections() === 0, 60_000, 20)
    await sleep(settledMs)
    return { server, redis, scripts }
  }

  try {
    for (let joined = 0; joined < warmUp; joined += conditions.length * clients) {
      for (const groups of conditions) for (const build of builds) await cost(pair[build], groups)
    }
    const rows: Row[] = []
    for (const groups of conditions) {
      const costs: Costs = { before: [], now: [] }
      for (let round = 0; round < rounds; round++) {
        for (const build of round % 2 === 0 ? builds : builds.toReversed()) {
          costs[build].push(await cost(pair[build], groups))
        }
      }
      rows.push(rowOf(groups, costs))
    }
    return { title: `${clients} clients connect, 256 at a time, and join a group each; medians of ${rounds} rounds`, rows, raw: {} }
  } finally {
    for (const build of builds) await pair[build].close()
  }
}

function rowOf (groups: number, { before, now }: Costs): Row {
  const ratio = (figure: keyof Cost): string => pairedRatio(now.map(cost => cost[figure]), before.map(cost => cost[figure]))
  return {
    groups,
    'server CPU, us per join: before': median(before.map(({ server }) => server)).toPrecision(3),
    now: median(now.map(({ server }) => server)).toPrecision(3),
    ratio: ratio('server'),
    'ratio of Redis CPU': ratio('redis'),
    'of time in its scripts': ratio('scripts')
  }
}
