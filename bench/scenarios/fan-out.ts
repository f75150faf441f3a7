import type { MeasureOptions } from '../options.ts'
import { measure } from '../rig/measure.ts'
import { perform } from '../rig/runs.ts'
import type { Measured } from '../results.ts'
import { groupNames } from '../systems/system.ts'

/** One group, published to from another process: how cost grows with the rate, and with the number of members. */
export async function fanOut ({ systems, runs, number, numbers }: MeasureOptions): Promise<Measured> {
  const members = number('members', 1_000)
  const bytes = number('bytes', 120)
  const seconds = number('seconds', 10)
  const warmUp = number('warm-up', 0)
  const memberCurveRate = number('curve-rate', 50)
  const points = [
    ...numbers('rates', [10, 100, 1_000, 2_000]).map(perSecond => ({ curve: 'rate', clients: members, perSecond })),
    ...numbers('curve', [10, 100, 1_000, 4_000]).map(clients => ({ curve: 'members', clients, perSecond: memberCurveRate }))
  ]
  const cells = await perform({
    systems: systems([...groupNames, 'floor']),
    conditions: points,
    runs,
    run: async (system, { clients, perSecond }) =>
      await measure(system, {
        clients, groups: 1, slow: 0, placement: 'spread', instances: 1, bystanders: 0, perSecond, bytes, binary: false, seconds, warmUp
      })
  })
  return { title: `one group, messages of ${bytes} bytes, published by another process, ${seconds} s`, cells }
}
