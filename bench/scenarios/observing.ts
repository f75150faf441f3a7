import { setTimeout as sleep } from 'node:timers/promises'
import type { DrillOptions } from '../options.ts'
import { compile } from '../rig/native.ts'
import { assertLinux, cpuUs } from '../rig/proc.ts'
import type { Rig } from '../rig/rig.ts'
import { median, pairedRatio } from '../rig/runs.ts'
import { startRig } from '../rig/start.ts'
import { until } from '../rig/until.ts'
import { names, parseNames } from '../systems/system.ts'
import type { Result, Row } from '../results.ts'

/** Both, with all clients connected. */
interface Pair { readonly plain: Rig, readonly observed: Rig }
type Kind = keyof Pair

/** In the middle of what is published: the first messages meet code and sockets that were idle (milliseconds). */
const settlingMs = 500

/**
 * What metrics, traces and the dashboard cost an instance: its CPU for each delivery beside that of an instance without them. Both run all
 * the time, and get their messages in turn, for a few seconds each: two processes that are measured minutes apart differ by more than this
 * costs. Each is first in every other round; the ratio is the median of the rounds, with the quartiles in parentheses.
 * `--observed ours` puts two instances without beside each other, and so shows by how much two processes differ anyway.
 */
export async function observing ({ number, numbers, text }: DrillOptions): Promise<Result> {
  assertLinux()
  compile('load')
  const [clients, bytes, rounds] = [number('members', 1_000), number('bytes', 120), number('rounds', 15)]
  const [seconds, warmUp] = [number('seconds', 3), number('warm-up', 20_000)]
  const [observed = 'ours-observed'] = parseNames(text('observed', 'ours-observed'), names)
  const pair: Pair = { plain: await startRig('ours'), observed: await startRig(observed) }
  const kinds: readonly Kind[] = ['plain', 'observed']
  const publish = async (rig: Rig, perSecond: number): Promise<void> => (
    await rig.publish({ perSecond, groups: 1, bytes, binary: false, more: await rig.sent() > 0 })
  )

  /** CPU of the instance in microseconds for each delivery. */
  async function cost (rig: Rig, perSecond: number): Promise<number> {
    const cpu = (): number => rig.pids.map(cpuUs).reduce((a, b) => a + b, 0)
    await publish(rig, perSecond)
    await sleep(settlingMs)
    await rig.load.start()
    const before = cpu()
    await sleep(seconds * 1_000)
    const [{ delivered }, used] = [await rig.load.mark(), cpu() - before]
    await rig.stop()
    const due = perSecond * clients * seconds
    if (Math.abs(delivered / due - 1) > 0.05) throw new Error(`${delivered} deliveries, ${due} are due: is the machine busy?`)
    return used / delivered
  }

  try {
    for (const kind of kinds) {
      await pair[kind].open({ clients, groups: 1 })
      await publish(pair[kind], 2_000)
      await until(async () => await pair[kind].sent() >= warmUp, 60_000, 50)
      await pair[kind].stop()
    }
    const rows: Row[] = []
    for (const perSecond of numbers('rates', [100, 2_000])) {
      const costs: Record<Kind, number[]> = { plain: [], observed: [] }
      for (let round = 0; round < rounds; round++) {
        for (const kind of round % 2 === 0 ? kinds : kinds.toReversed()) costs[kind].push(await cost(pair[kind], perSecond))
      }
      rows.push(rowOf(perSecond, costs))
    }
    return { title: `one group of ${clients}, messages of ${bytes} bytes; medians of ${rounds} rounds of ${seconds} s`, rows, raw: {} }
  } finally {
    for (const kind of kinds) await pair[kind].close()
  }
}

function rowOf (perSecond: number, { plain, observed }: Readonly<Record<Kind, readonly number[]>>): Row {
  return {
    'messages/s': perSecond,
    'us per delivery: without': median(plain).toPrecision(3),
    'with all of it': median(observed).toPrecision(3),
    ratio: pairedRatio(observed, plain)
  }
}
