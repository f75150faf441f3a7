import type { MeasureOptions } from '../options.ts'
import { measure } from '../rig/measure.ts'
import { perform } from '../rig/runs.ts'
import type { Measured } from '../results.ts'
import { groupNames } from '../systems/system.ts'

/** Text and binary, small and large. */
export async function sizes ({ systems, runs, number, numbers }: MeasureOptions): Promise<Measured> {
  const clients = number('members', 200)
  const perSecond = number('rate', 50)
  const seconds = number('seconds', 10)
  const cells = await perform({
    systems: systems([...groupNames, 'floor']),
    conditions: numbers('bytes', [120, 1_024, 16_384]).flatMap(bytes => [{ bytes, binary: false }, { bytes, binary: true }]),
    runs,
    run: async (system, { bytes, binary }) =>
      await measure(
        system, { clients, groups: 1, slow: 0, placement: 'spread', instances: 1, bystanders: 0, perSecond, bytes, binary, seconds }
      )
  })
  return { title: `one group of ${clients}, ${perSecond} messages/s, ${seconds} s`, cells }
}
